"""What was sent, by its hash: a model that is timed ten times goes over the line once."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from typing import IO, List, Tuple

from harness_backends.agent.frames import Read

_PART, _FRESH_S = "part-", 3600.0


class NotKept(Exception):
    """Nothing of that hash is kept, or no longer."""


class Store:
    """Files by SHA-256 in a folder that is kept below a size; the longest unused go first.

    Args:
        folder: Made when something is put; `~` is the user's home.
        limit_bytes: How much is kept. What is larger than that is kept alone.
    """

    def __init__(self, folder: str, limit_bytes: int) -> None:
        self.folder, self._limit_bytes = os.path.expanduser(folder), limit_bytes

    def put(self, read: Read, size: int, sha256: str) -> None:
        """Keep `size` bytes that `read` gives; all are read, whatever happens.

        Raises:
            OSError: If they can't be written; nothing is left of them then.
            ValueError: If they have another hash.
        """
        try:
            self._make_room(size)
            descriptor, path = tempfile.mkstemp(prefix=_PART, dir=self.folder)
        except OSError:
            _skip(read, size)
            raise
        try:
            digest = _copy(read, size, descriptor)
            if digest != sha256:
                raise ValueError("received %s instead of %s" % (digest[:12], sha256[:12]))
            os.rename(path, self._path(sha256))
        except BaseException:
            _remove(path)
            raise

    def open(self, sha256: str) -> IO[bytes]:
        """Return a kept file, checked against its hash; it can be read on when it is removed.

        Raises:
            NotKept: If it isn't there, or was damaged.
        """
        path = self._path(sha256)
        try:
            file = open(path, "rb")  # noqa: SIM115 - the caller closes it
        except OSError:
            raise NotKept(sha256) from None
        digest = hashlib.sha256()
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
        if digest.hexdigest() != sha256:
            file.close()
            _remove(path)
            raise NotKept(sha256)
        file.seek(0)
        os.utime(file.fileno())
        return file

    def _path(self, sha256: str) -> str:
        return os.path.join(self.folder, sha256)

    def _make_room(self, size: int) -> None:
        os.makedirs(self.folder, exist_ok=True)
        kept = self._kept()
        excess = sum(one[1] for one in kept) + size - self._limit_bytes
        for _, own, path in kept:
            if excess <= 0:
                return
            _remove(path)
            excess -= own

    def _kept(self) -> List[Tuple[float, int, str]]:
        """Return when each file was last used, its size and its path, the longest unused first."""
        found, fresh_s = [], time.time() - _FRESH_S
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            try:
                state = os.stat(path)
            except OSError:
                continue
            if name.startswith(_PART) and state.st_mtime > fresh_s:
                continue  # another process is writing it
            found.append((state.st_mtime, state.st_size, path))
        return sorted(found)


def _remove(path: str) -> None:
    with suppress(OSError):  # another process may be faster
        os.unlink(path)


def _copy(read: Read, size: int, descriptor: int) -> str:
    """Write what is read to a file, to the disk; return its hash."""
    digest, left = hashlib.sha256(), size
    try:
        with os.fdopen(descriptor, "wb") as file:
            while left:
                piece = read(min(left, 1 << 20))
                if not piece:
                    raise EOFError("the connection ended")
                left -= len(piece)
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        _skip(read, left)  # or the rest would be taken for frames
        raise
    return digest.hexdigest()


def _skip(read: Read, size: int) -> None:
    while size:
        piece = read(min(size, 1 << 20))
        if not piece:
            return
        size -= len(piece)
