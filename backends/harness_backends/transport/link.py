"""A running supervisor: requests go in, replies come out."""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import subprocess
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from harness.errors import BackendError, ConnectionLost, DeviceLost, DeviceUnreachable
from harness_backends import bundle
from harness_backends.agent import frames
from harness_backends.transport.launch import how_it_ended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.errors import HarnessError
    from harness_backends.transport.launch import Launch

HELLO_S = 60.0
"""Longest wait for a supervisor's hello, and for what it does itself."""
PING_S = 5.0
"""How often a far supervisor hears that this side is there; its watchdog waits for four."""
_GARBLED = "The timing process printed something else than the protocol."


class Silent(Exception):
    """No reply came in time."""


class NotKept(BackendError):
    """The device doesn't have what was named by its hash."""


class Link:
    """A supervisor that was started, and the pipes to it.

    Args:
        launch: How to start it.
        hello_s: Longest wait for its hello, seconds; `HELLO_S` unless given.

    Raises:
        DeviceUnreachable: If a board can't be reached, with what to do.
        BackendUnavailable: If there is no fit Python there.
        DeviceLost: If it doesn't begin on this machine.
    """

    def __init__(self, launch: Launch, hello_s: float | None = None) -> None:
        self.launch = launch
        self._ids = itertools.count(1)
        self._buffer, self._said = bytearray(), b""
        self._lost: ConnectionLost | None = None
        self._writing = threading.Lock()
        setup = {
            "launch": list(launch.worker), "counts": launch.counts, "locks": launch.locks,
            "folder": launch.folder, "limit_bytes": launch.keeps_bytes,
            "watchdog_s": launch.watchdog_s,
        }  # fmt: skip
        document = bundle.document(setup)
        try:
            self._process = subprocess.Popen(
                launch.argv(len(document)),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, **launch.environment}, bufsize=0, start_new_session=True,
            )  # fmt: skip
        except OSError as exc:
            raise launch.explained(None, str(exc)) from exc
        self.close = weakref.finalize(self, _end, self._process, self._writing)
        try:
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)
            wait_s = HELLO_S if hello_s is None else hello_s
            self.hello = self._greet(document, wait_s)
        except BaseException:
            self.close()
            raise
        if launch.watchdog_s is not None:
            beat = threading.Thread(target=_beat, args=(weakref.ref(self),), daemon=True)
            beat.start()

    @property
    def alive(self) -> bool:
        """Whether nothing is known against it."""
        return self._lost is None and self._process.poll() is None

    def request(
        self,
        header: Mapping[str, Any],
        blob: bytes = b"",
        wait_s: float = HELLO_S,
        on_wait: Callable[[], None] | None = None,
    ) -> tuple[dict[str, Any], bytes]:
        """Send a request and return its reply.

        Args:
            header: What is asked.
            blob: Data that goes with it.
            wait_s: Longest wait without a byte of the reply, seconds.
            on_wait: Called when that is over; then the wait has no end.

        Raises:
            BackendError: If it was refused; the text is the runtime's own.
            NotKept: If the device lacks what is named by its hash.
            DeviceLost: If the worker ended.
            ConnectionLost: If the supervisor can't be spoken to any more.
            Silent: If no reply came in time.
        """
        if self._lost is not None:
            raise self._lost
        number = next(self._ids)
        try:
            self._write(frames.frame({**header, "id": number}, blob), wait_s)
            while True:
                if on_wait is not None:
                    self._await_reply(wait_s, on_wait)
                reply, data = self._reply(wait_s)
                if reply.pop("id", None) == number:  # else it comes too late: nobody waits for it
                    break
        except frames.NotTheProtocol:
            raise self._give_up(_GARBLED) from None
        return _checked(reply), data

    def _await_reply(self, wait_s: float, on_wait: Callable[[], None]) -> None:
        """Wait until a reply begins, however long that takes."""
        told = False
        while not self._buffer:
            try:
                self._fill(None if told else wait_s)
            except Silent:
                on_wait()
                told = True

    def put(self, sha256: str, data: bytes) -> None:
        """Have the device keep data under its hash.

        Raises:
            BackendError: If it can't, such as for want of space.
        """
        try:
            self.request({"op": "put", "sha256": sha256}, data)
        except Silent:
            raise self.give_up_silent() from None

    def ping(self) -> None:
        """Let the device know that this side is there."""
        # A request that is being written is as good as a ping.
        if self.alive and self._writing.acquire(blocking=False):
            try:
                text = frames.frame({"op": "ping", "id": 0})
                os.write(self._stdin, text)
            except (OSError, ValueError):
                pass  # it was closed, or the next request finds out why
            finally:
                self._writing.release()

    def give_up_silent(self) -> ConnectionLost:
        """End a connection on which nothing comes any more; return the error to raise."""
        return self._give_up(f"The connection to {self.launch.where} went silent; it was ended.")

    def _give_up(self, why: str) -> ConnectionLost:
        self._process.kill()
        self._lost = ConnectionLost(why)
        return self._lost

    @property
    def _stdin(self) -> int:
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def _greet(self, document: bytes, wait_s: float) -> dict[str, Any]:
        """Send what is to run there, and return its hello."""
        where = self.launch.where
        try:
            self._write(document, wait_s)
            while frames.MAGIC not in self._buffer:
                if len(self._buffer) > frames.SILENCE_LIMIT:
                    raise frames.NotTheProtocol
                self._fill(wait_s)
            del self._buffer[: self._buffer.index(frames.MAGIC) + len(frames.MAGIC)]
            return _checked(self._reply(wait_s)[0])
        except ConnectionLost as exc:
            raise self._not_begun() from exc
        except Silent:
            self._process.kill()
            words = f"{where} did not answer within {wait_s:.0f} s; the attempt was ended."
            raise self._of_kind(words) from None
        except frames.NotTheProtocol:
            self._process.kill()
            raise self._of_kind(f"{where}: {_GARBLED}") from None

    def _of_kind(self, words: str) -> HarnessError:
        return DeviceUnreachable(words) if self.launch.far else DeviceLost(words)

    def _not_begun(self) -> HarnessError:
        return self.launch.explained(self._process.wait(), self._words())

    def _reply(self, wait_s: float) -> tuple[dict[str, Any], bytes]:
        found = frames.read_frame(lambda size: self._read(size, wait_s))
        assert found is not None  # the end of the stream raises
        return found

    def _read(self, size: int, wait_s: float) -> bytes:
        while len(self._buffer) < size:
            self._fill(wait_s)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _fill(self, wait_s: float | None) -> None:
        """Read what has come; drain stderr beside it, so that a chatty library can't block."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        deadline = None if wait_s is None else time.monotonic() + wait_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not self._process.stderr.closed:
                selector.register(self._process.stderr, selectors.EVENT_READ)
            while True:  # what only writes to stderr is silent, too
                left_s = None if deadline is None else deadline - time.monotonic()
                ready = selector.select(left_s) if left_s is None or left_s > 0 else []
                if not ready:
                    raise Silent
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 20)
                    if key.fileobj is self._process.stdout:
                        if not data:
                            raise self._ended()
                        self._buffer += data
                        return
                    self._said = (self._said + data)[-4096:]
                    if not data:
                        selector.unregister(key.fileobj)

    def _write(self, data: bytes, wait_s: float) -> None:
        """Write everything; what is taken piece by piece is not silent."""
        view = memoryview(data)
        with self._writing, selectors.DefaultSelector() as selector:
            selector.register(self._stdin, selectors.EVENT_WRITE)
            while view:
                if not selector.select(wait_s):
                    raise Silent
                try:
                    view = view[os.write(self._stdin, view) :]
                except BlockingIOError:
                    continue
                except OSError as exc:
                    raise self._ended() from exc

    def _ended(self) -> ConnectionLost:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        last = self._words().splitlines()[-1:]
        words = f" Its last words: {last[0]}" if last else ""
        self._lost = ConnectionLost(
            f"The connection to {self.launch.where} was lost: its process {how_it_ended(code)}."
            f"{words}"
        )
        return self._lost

    def _words(self) -> str:
        """Return what an ended process left in stderr; a child of its own may hold it open."""
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._process.stderr.fileno(), 1 << 16):
                self._said = (self._said + data)[-4096:]
        return self._said.decode(errors="replace").strip()


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    """Return a reply that is good.

    Raises:
        frames.NotTheProtocol: If it is no reply.
        BackendError: If it says that something failed.
    """
    if "ok" not in reply:
        raise frames.NotTheProtocol
    if reply.pop("ok"):
        return reply
    kind, message = reply.get("kind"), reply.get("message")
    if kind == "NotKept":
        raise NotKept(f"{message} is not there")
    if kind == "WorkerEnded":
        words = f" Its last words: {message}" if message else ""
        how = how_it_ended(reply["code"])
        raise DeviceLost(_GARBLED if reply["garbled"] else f"The timing process {how}.{words}")
    raise BackendError(f"{kind}: {message}")


def _beat(link: weakref.ref[Link]) -> None:
    """Ping as long as there is a link to ping over."""
    while True:
        time.sleep(PING_S)
        one = link()
        if one is None or not one.alive:
            return
        one.ping()
        del one


def _end(process: subprocess.Popen[bytes], writing: threading.Lock) -> None:
    """Close the pipes; kill the process where it doesn't go by itself."""
    held = writing.acquire(timeout=1.0)  # or a ping might go to another file of the same number
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    if held:
        writing.release()
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
