"""One lock per host: training and scoring share it, timing takes it alone, writers first.

Two files, both locked with flock so that the kernel frees them on any death: whoever wants the
lock passes the gate first, and timing waits for the sharers to leave while it holds the gate, so
no newcomer overtakes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


FOLDER = Path("/tmp")  # noqa: S108 - opened without following links
"""Where the host's lock files lie: the same for every user, which TMPDIR need not be."""


class HostLock:
    """The lock of this host, shared by every user and process on it.

    Args:
        folder: Where the two lock files lie; `FOLDER` unless given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        base = folder if folder is not None else FOLDER
        self._gate = _open_shared(base / "latency-harness.gate")
        self._lock = _open_shared(base / "latency-harness.lock")
        self._held = 0
        weakref.finalize(self, _close, self._gate, self._lock)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with others: for training and scoring.

        Whoever holds it already goes on holding it: a second pass of the gate would wait for a
        timing that waits for the first.
        """
        if not self._held:
            self._enter(fcntl.LOCK_SH)
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def breathe(self) -> None:
        """Let a waiting timing pass; call it between batches, inside `shared`."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._enter(fcntl.LOCK_SH)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock alone: for timing."""
        self._enter(fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _enter(self, mode: int) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._lock, mode)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)


def _open_shared(path: Path) -> int:
    """Open a lock file that every user of the host can lock."""
    try:
        return _opened(path)
    except OSError as exc:
        raise ConfigError(
            f"The host's timing lock {path} can't be opened ({exc.strerror}). Let its owner or an "
            "administrator remove it."
        ) from exc


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        # O_CREAT on another user's file in a sticky folder is refused by some kernels.
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with contextlib.suppress(PermissionError):  # another user was faster: it is theirs
            os.fchmod(descriptor, 0o666)
        return descriptor
