"""The two files of a machine's lock, for every user and process on it.

Both are locked with flock, so that the kernel frees them on any death. Whoever wants the lock
passes the gate first, and whoever wants it alone waits for the sharers to leave while it holds the
gate, so no newcomer overtakes it.

This file is sent to boards: standard library, Python 3.8.
"""

from __future__ import annotations

import contextlib
import fcntl
import os


class LockFile:
    """The lock in a folder.

    Args:
        folder: Where the two files lie.

    Raises:
        OSError: If they can't be opened; `filename` says which.
    """

    def __init__(self, folder: str) -> None:
        self._gate = _opened(os.path.join(folder, "latency-harness.gate"))
        self._lock = _opened(os.path.join(folder, "latency-harness.lock"))

    def take(self, alone: bool) -> None:
        """Wait for the lock: alone for timing, with others for training and scoring."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Let others have it."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files, which lets others have it, too."""
        os.close(self._gate)
        os.close(self._lock)


def _opened(path: str) -> int:
    """Open a lock file that every user of the machine can lock."""
    try:
        # O_CREAT on another user's file in a sticky folder is refused by some kernels.
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with contextlib.suppress(PermissionError):  # another user was faster: it is theirs
            os.fchmod(descriptor, 0o666)
        return descriptor
