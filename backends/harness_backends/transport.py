"""How the agent's process is reached: an argument list and two pipes."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BackendError, DeviceLost
from harness_backends import agent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BOOT = "import sys;exec(compile(sys.stdin.buffer.read(int(sys.argv[1])),'harness-agent','exec'))"
"""Reads the agent's source from standard input and runs it: nothing is installed over there."""

TIMEOUT_S = 120.0
"""Longest wait for one reply: a runtime that is silent for longer hangs."""

_SIGNALS = {
    4: "SIGILL: the runtime uses instructions that this CPU lacks",
    6: "SIGABRT: the runtime gave up",
    9: "SIGKILL: the system may have run out of memory",
    11: "SIGSEGV: the runtime crashed",
}
_SILENCE_LIMIT = 1 << 16
_LARGEST_HEADER = 1 << 24
_NO_PROTOCOL = "The timing process printed something else than the protocol."


def local_argv() -> list[str]:
    """Return the argument list of a Python on this machine that sees the same packages."""
    return [sys.executable, "-P", "-u"]  # -P: never import from the working folder


class Channel:
    """A running agent.

    Args:
        argv: How to start a Python there; the agent's boot code is appended.
        runtime: Key of the agent's runtime.
        timeout_s: Longest wait for one reply, seconds; `TIMEOUT_S` unless given.

    Raises:
        DeviceLost: If the process can't be started, or doesn't say hello.
        BackendError: If its runtime can't be loaded.
    """

    def __init__(self, argv: Sequence[str], runtime: str, timeout_s: float | None = None) -> None:
        source = Path(agent.__file__).read_bytes()
        self._timeout_s = timeout_s if timeout_s is not None else TIMEOUT_S
        self._buffer = bytearray()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            self._process = subprocess.Popen(
                [*argv, "-c", BOOT, str(len(source)), runtime],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment, bufsize=0, start_new_session=True,
            )  # fmt: skip
        except OSError as exc:
            raise DeviceLost(f"The timing process could not be started: {exc}.") from exc
        self._stderr = b""
        try:
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)
            self._write(source)
            self.hello = self._hello()
        except BaseException:
            self.close()
            raise

    def request(
        self, header: Mapping[str, Any], blob: bytes = b"", expected_s: float = 0.0
    ) -> tuple[dict[str, Any], bytes]:
        """Send a request and return its reply.

        Args:
            header: What is asked.
            blob: Data that goes with it.
            expected_s: What the work itself takes, seconds; the time-out begins after that.

        Raises:
            BackendError: If the runtime refused; the text is its own.
            DeviceLost: If the process died or did not answer in time.
        """
        text = json.dumps(header).encode()
        self._write(agent.SIZES.pack(len(text), len(blob)) + text + blob)
        return self._reply(expected_s)

    def close(self) -> None:
        """End the process; it is killed where it doesn't go by itself."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _hello(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout_s
        while agent.MAGIC not in self._buffer:
            if len(self._buffer) > _SILENCE_LIMIT:
                raise DeviceLost(_NO_PROTOCOL)
            self._fill(deadline)
        del self._buffer[: self._buffer.index(agent.MAGIC) + len(agent.MAGIC)]
        return self._reply()[0]

    def _reply(self, expected_s: float = 0.0) -> tuple[dict[str, Any], bytes]:
        deadline = time.monotonic() + expected_s + self._timeout_s
        header_size, blob_size = agent.SIZES.unpack(self._read(agent.SIZES.size, deadline))
        if header_size > _LARGEST_HEADER:
            raise DeviceLost(_NO_PROTOCOL)
        try:
            header: dict[str, Any] = json.loads(self._read(header_size, deadline))
            ok = header.pop("ok")
        except (ValueError, KeyError, AttributeError) as exc:
            raise DeviceLost(_NO_PROTOCOL) from exc
        blob = self._read(blob_size, deadline)
        if not ok:
            raise BackendError(f"{header['kind']}: {header['message']}")
        return header, blob

    def _read(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._fill(deadline)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _fill(self, deadline: float) -> None:
        """Read what has come; drain stderr beside it, so that a chatty library can't block."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            selector.register(self._process.stderr, selectors.EVENT_READ)
            while True:
                left_s = deadline - time.monotonic()  # what only writes to stderr is silent, too
                ready = selector.select(left_s) if left_s > 0 else []
                if not ready:
                    raise self._silent()
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 20)
                    if key.fileobj is self._process.stdout:
                        if not data:
                            raise self._lost()
                        self._buffer += data
                        return
                    self._stderr = (self._stderr + data)[-4096:]
                    if not data:
                        selector.unregister(key.fileobj)

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        view, deadline = memoryview(data), time.monotonic() + self._timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdin, selectors.EVENT_WRITE)
            while view:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._silent()
                try:
                    view = view[os.write(self._process.stdin.fileno(), view) :]
                except OSError as exc:
                    raise self._lost() from exc

    def _hear_last_words(self) -> None:
        """Read what an ended process left in stderr; a child of its own may still hold it open."""
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._process.stderr.fileno(), 1 << 16):
                self._stderr = (self._stderr + data)[-4096:]

    def _silent(self) -> DeviceLost:
        self._process.kill()
        return DeviceLost(
            f"The timing process did not answer within {self._timeout_s:.0f} s; it was ended."
        )

    def _lost(self) -> DeviceLost:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._hear_last_words()
        how = f"ended with code {code}"
        if code < 0:
            how = f"was killed by signal {-code} ({_SIGNALS.get(-code, 'see `man 7 signal`')})"
        said = self._stderr.decode(errors="replace").strip().splitlines()
        tail = f" Its last words: {said[-1]}" if said else ""
        return DeviceLost(f"The timing process {how}.{tail}")
