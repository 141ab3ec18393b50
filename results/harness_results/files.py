"""The results folder's refusals as messages, and locks that die with us."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.errors import ConfigError, ResultsError, StudyLocked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT,
    errno.ENAMETOOLONG,
)  # fmt: skip


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals into messages with a remedy.

    Raises:
        ConfigError: If the folder can't be written by this user.
        ResultsError: If the disk is full or fails.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in _REFUSED:
            raise ConfigError(
                f"The results folder {folder} can't be written ({exc.strerror}). Choose another "
                "with `--results DIR`."
            ) from exc
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResultsError(
                f"No space left for {folder}. Everything recorded so far is whole; free some "
                "space and run the same command to go on."
            ) from exc
        raise ResultsError(f"{folder}: {exc}. Everything recorded so far is whole.") from exc


@contextmanager
def locked(path: Path, wait: bool, busy: str = "") -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel frees it on any death.

    Args:
        path: Lock file, made where absent.
        wait: Wait for the holder rather than fail.
        busy: Message where it is held and `wait` is false.

    Raises:
        StudyLocked: If it is held by another process and `wait` is false.
    """
    with disk_errors(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as exc:
            raise StudyLocked(busy) from exc
        yield
    finally:
        os.close(descriptor)
