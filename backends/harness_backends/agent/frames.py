"""Frames: how headers, blobs and arrays go over a pipe."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from typing import Any, BinaryIO, Callable, Dict, Iterable, List, Optional, Tuple

Header = Dict[str, Any]
Reply = Tuple[Header, bytes]

MAGIC = b"\x00HARNESS-AGENT-2\n"
SIZES = struct.Struct(">II")
LARGEST_HEADER = 1 << 24
SILENCE_LIMIT = 1 << 16
"""Bytes that a shell may print before the protocol begins."""
PIECE = 1 << 16
"""Bytes read at once: on a slow line a piece has to arrive well before a watchdog bites."""

Read = Callable[[int], bytes]


class NotTheProtocol(Exception):
    """What came is no frame."""


class Ear:
    """Reads exactly as many bytes as asked, and remembers since when it has been listening."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._listens_since: Optional[float] = None

    @property
    def silence_s(self) -> float:
        """How long nothing has been heard, seconds; 0 while nobody listens."""
        since = self._listens_since
        return 0.0 if since is None else time.monotonic() - since

    def read(self, size: int) -> bytes:
        """Return `size` bytes; fewer at the end of the stream."""
        parts: List[bytes] = []
        while size:
            self._listens_since = time.monotonic()
            part = self._stream.read1(min(size, PIECE))
            self._listens_since = None
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class Mouth:
    """Writes frames whole, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def begin(self) -> None:
        """Write what a frame can't begin with: the protocol starts after it."""
        with self._lock:
            self._stream.write(MAGIC)
            self._stream.flush()

    def say(self, header: Header, blob: bytes = b"") -> None:
        """Write one frame."""
        with self._lock:
            self._stream.write(frame(header, blob))
            self._stream.flush()


def frame(header: Header, blob: bytes = b"") -> bytes:
    """Return a frame as bytes."""
    text = json.dumps(header).encode()
    return SIZES.pack(len(text), len(blob)) + text + blob


def read_header(read: Read) -> Optional[Tuple[Header, int]]:
    """Return the next frame's header and the size of its blob; None at the end of the stream.

    Raises:
        NotTheProtocol: If something else came.
    """
    head = read(SIZES.size)
    if len(head) < SIZES.size:
        return None
    header_size, blob_size = SIZES.unpack(head)
    if header_size > LARGEST_HEADER:
        raise NotTheProtocol
    text = read(header_size)
    if len(text) < header_size:
        return None
    try:
        header = json.loads(text.decode())
    except ValueError:
        raise NotTheProtocol from None
    if not isinstance(header, dict):
        raise NotTheProtocol
    return header, blob_size


def read_frame(read: Read) -> Optional[Reply]:
    """Return the next header and blob; None at the end of the stream, also within a frame."""
    head = read_header(read)
    if head is None:
        return None
    blob = read(head[1])
    return (head[0], blob) if len(blob) == head[1] else None


def skip_noise(read: Read) -> bool:
    """Read up to the end of MAGIC; return whether it came.

    Raises:
        NotTheProtocol: If too much else came before it.
    """
    seen = b""
    for _ in range(SILENCE_LIMIT):
        byte = read(1)
        if not byte:
            return False
        seen = (seen + byte)[-len(MAGIC) :]
        if seen == MAGIC:
            return True
    raise NotTheProtocol


def pack(np: Any, named: Iterable[Tuple[str, Any]]) -> Reply:
    """Return a header and a blob for named arrays."""
    arrays = [(name, np.ascontiguousarray(array)) for name, array in named]
    specs = [{"name": n, "dtype": str(a.dtype), "shape": list(a.shape)} for n, a in arrays]
    return {"arrays": specs}, b"".join(array.tobytes() for _, array in arrays)


def unpack(np: Any, specs: List[Header], blob: Any) -> Dict[str, Any]:
    """Return the named arrays of a blob, which may also be a mapped file."""
    arrays: Dict[str, Any] = {}
    at = 0
    for spec in specs:
        dtype = np.dtype(spec["dtype"])
        count = int(np.prod(spec["shape"], dtype="int64"))
        array = np.frombuffer(blob, dtype, count, at).reshape(spec["shape"])
        arrays[spec["name"]] = array.copy()
        at += count * dtype.itemsize
    return arrays


def take_stdout() -> BinaryIO:
    """Move the protocol off descriptor 1, so that a library's print can't corrupt it."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out


def failure(error: BaseException) -> Header:
    """Return what is replied where a request failed."""
    return {"ok": False, "kind": type(error).__name__, "message": str(error)}
