"""A worker as its supervisor sees it: three pipes, and how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from contextlib import suppress
from typing import IO, Any, Callable, List, Optional

from harness_backends.agent.frames import (
    SIZES,
    Header,
    Mouth,
    NotTheProtocol,
    Read,
    read_header,
    skip_noise,
)

BOOT = (
    "import sys;sys.path=[p for p in sys.path if p];import json;"
    "s=json.loads(sys.stdin.buffer.read(int(sys.argv[1])).decode());"
    "exec(compile(s['boot'],'harness-agent','exec'))"
)
"""Reads what to run from standard input and runs it: nothing is installed over there.

The working folder is no place to import from: a file there may have a library's name.
"""
_SAID = 4096
"""Bytes of standard error that are kept."""


class Child:
    """A worker's process.

    Args:
        argv: How to start a Python here.
        setup: What BOOT reads, all its modules included.
        mouth: Where its replies go.

    Raises:
        OSError: If it can't be started.
    """

    def __init__(self, argv: List[str], setup: Header, mouth: Mouth) -> None:
        document = json.dumps(setup).encode()
        environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
        self._process = subprocess.Popen(
            [*argv, "-c", BOOT, str(len(document))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment,
        )  # fmt: skip
        self._mouth, self._said, self._lock = mouth, b"", threading.Lock()
        self._asked: Optional[int] = setup["id"]
        self._ended: Optional[Header] = None
        self._listener = _thread(self._listen_to_errors)
        _thread(self._pass_replies_on)
        self._write(lambda stdin: stdin.write(document))

    def pass_on(self, header: Header, read: Read, size: int) -> None:
        """Hand a request on; its blob is read piece by piece."""
        with self._lock:
            ended, self._asked = self._ended, header["id"]
        left = size
        text = json.dumps(header).encode()
        self._write(lambda stdin: stdin.write(SIZES.pack(len(text), size) + text))
        while left:
            piece = read(min(left, 1 << 16))
            if not piece:
                return
            left -= len(piece)
            self._write(lambda stdin, piece=piece: stdin.write(piece))  # type: ignore[misc]
        self._write(lambda stdin: stdin.flush())
        if ended is not None:
            self._tell_end()

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()

    def _write(self, write: Callable[[IO[bytes]], Any]) -> None:
        assert self._process.stdin is not None
        try:
            write(self._process.stdin)
            self._process.stdin.flush()
        except (OSError, ValueError):
            pass  # it has ended: that is told where its replies end

    def _pass_replies_on(self) -> None:
        assert self._process.stdout is not None
        stdout, read = self._process.stdout, self._process.stdout.read
        garbled = False
        try:
            if skip_noise(read):
                while True:
                    head = read_header(read)
                    if head is None:
                        break
                    blob = read(head[1])
                    if len(blob) < head[1]:
                        break
                    with self._lock:
                        self._asked = None
                    self._mouth.say(head[0], blob)
        except NotTheProtocol:
            garbled = True
        except (OSError, ValueError):
            pass  # nobody listens any more
        self._end(garbled)
        stdout.close()

    def _end(self, garbled: bool) -> None:
        if garbled:
            self._process.kill()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        code = self._process.wait()
        self._listener.join(timeout=1)  # a child of its own may still hold the pipe open
        lines = self._said.decode(errors="replace").strip().splitlines()
        with self._lock:
            self._ended = {
                "ok": False, "kind": "WorkerEnded", "message": lines[-1] if lines else "",
                "code": code, "garbled": garbled,
            }  # fmt: skip
        self._tell_end()

    def _tell_end(self) -> None:
        """Answer what was asked of an ended process, once."""
        with self._lock:
            asked, self._asked = self._asked, None
            ended = self._ended
        if asked is not None and ended is not None:
            with suppress(OSError, ValueError):  # nobody may listen any more
                self._mouth.say(dict(ended, id=asked))

    def _listen_to_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for piece in iter(lambda: os.read(stream.fileno(), 1 << 16), b""):
                self._said = (self._said + piece)[-_SAID:]


def _thread(run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run)
    thread.daemon = True
    thread.start()
    return thread
