"""A folder that is made once: whole or not at all, by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARKER = "recipe"
"""File with the version of the recipe by which a folder was made; written last."""


def made_by(folder: Path) -> str | None:
    """Return the recipe's version by which a folder was made; None where it isn't whole."""
    try:
        return (folder / MARKER).read_text().strip()
    except OSError:
        return None


def make_once(folder: Path, version: str, make: Callable[[Path, Path], None]) -> None:
    """Make a folder, unless it is there in this version.

    It is made beside its place and renamed when whole; an older one is replaced. Whoever comes
    second waits for the first.

    Args:
        folder: Where it shall lie.
        version: Of the recipe.
        make: Is called with the folder to make and a folder for what isn't kept; neither exists.

    Raises:
        BackendUnavailable: If the disk is full or can't be written.
        Exception: Whatever `make` raises; nothing is left then.
    """
    folder = folder.absolute()
    with _disk_errors(folder), _locked(folder):
        if made_by(folder) == version:
            return
        for stale in folder.parent.glob(f".{folder.name}.*.part"):
            shutil.rmtree(stale)  # of a process that was killed: we hold the lock
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}.", suffix=".part", dir=folder.parent, ignore_cleanup_errors=True
        ) as name:
            made = Path(name) / "made"
            make(made, Path(name) / "work")
            (made / MARKER).write_text(f"{version}\n")
            if folder.exists():
                folder.rename(Path(name) / "old")
            made.rename(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder's makers; the kernel frees it on any death."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn a disk that is full or can't be written into one clear error."""
    try:
        yield
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Make room there" if full else "Make it writable"
        raise BackendUnavailable(
            f"The emulated ARM machine can't be made in {folder}: {exc}. {remedy}, or set "
            "HARNESS_CACHE_DIR to another folder."
        ) from exc
