"""Decoded images on disk: made once, then mapped into memory.

An entry is two files, `KEY.images.npy` (uint8 `[N, C, H, W]`) and `KEY.digests.npy` (uint8
`[N, 16]`), written whole or not at all. The key covers the encoded images and every option that
changes a pixel, so an entry is never stale; it may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.atomic import temporary_path, write_atomic
from harness.data.samples import DIGEST_BYTES
from harness.folders import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_FORMAT = "1"
"""Part of every key: raised when decoding changes, so that old entries are not taken."""
_STALE_S = 86_400
"""A temporary file of that age was left by a process that was killed."""
_CONTENT_LIMIT_BYTES = 2**30
"""Files are known by their content up to this size in all (a second's reading), else by stat."""
Images = tuple["NDArray[np.uint8]", "NDArray[np.uint8]"]
"""Images `[N, C, H, W]` and their digests `[N, 16]`."""


def cached_images(
    key: str, shape: tuple[int, int, int, int], fill: Callable[[NDArray[np.uint8]], Any]
) -> tuple[Images, str]:
    """Return images from the cache, or have them made and kept there.

    Args:
        key: Of the encoded images and all options, from `cache_key`.
        shape: `[N, C, H, W]`.
        fill: Writes all images into the array it is given, and returns their digests `[N, 16]`.

    Returns:
        Images and digests, the images mapped from the file (copied on write); and a note, empty
        unless the cache can't be written: the images are in memory then.
    """
    folder = cache_folder() / "datasets"
    found = find_images(key, len_=shape[0])
    if found is not None and found[0].shape == shape:
        return found, ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        file = _Reserved(folder / f"{key}.images.npy", shape)
    except OSError as exc:
        images = np.empty(shape, np.uint8)
        note = f"Decoded images can't be kept in {folder}: {exc.strerror}. They are in memory."
        return (images, fill(images)), note
    with file as images:
        digests = fill(images)
        images.flush()
    try:
        buffer = io.BytesIO()
        np.save(buffer, digests)
        write_atomic(folder / f"{key}.digests.npy", buffer.getvalue())
        file.keep()
    except OSError as exc:
        file.discard()
        return (images, digests), f"Decoded images can't be kept in {folder}: {exc.strerror}."
    return find_images(key, shape[0]) or (images, digests), ""


def find_images(key: str, len_: int) -> Images | None:
    """Return an entry of `len_` images, mapped into memory; None where there is none."""
    folder = cache_folder() / "datasets"
    try:
        images = np.load(folder / f"{key}.images.npy", mmap_mode="c", allow_pickle=False)
        digests = np.load(folder / f"{key}.digests.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # absent, or not a whole file: it is made anew
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len_:
        return None
    return (images, digests) if digests.shape == (len_, DIGEST_BYTES) else None


def cache_key(parts: Iterable[bytes], options: object) -> str:
    """Return a name for what `parts` identify, under some options."""
    digest = hashlib.sha256(f"{_FORMAT} {options!r}".encode())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:32]


def file_identities(paths: Iterable[Path], by_content: bool = True) -> list[bytes]:
    """Return what identifies each file: a hash of its content, or its place, size and times.

    Times include the change time, which no tool sets at will: an edit that keeps size and
    modification time is noticed.

    Args:
        paths: The files.
        by_content: Whether to read them, where that takes no more than about a second.
    """
    files = list(paths)
    if by_content and sum(path.stat().st_size for path in files) <= _CONTENT_LIMIT_BYTES:
        return [_content(path) for path in files]
    return [_place_and_times(path) for path in files]


def _place_and_times(path: Path) -> bytes:
    try:
        one = path.stat()
    except OSError:
        return f"{path}|absent".encode()  # a dangling link: decoding will say so
    return f"{path}|{one.st_size}|{one.st_mtime_ns}|{one.st_ctime_ns}".encode()


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class _Reserved:
    """A file of an array that gets its final name only when it is whole."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path = path
        self._temporary = temporary_path(path)
        try:
            self.images = np.lib.format.open_memmap(
                self._temporary, mode="w+", dtype=np.uint8, shape=shape
            )
            with self._temporary.open("r+b") as file:
                # Writing to a mapped file on a full disk would kill the process: room is
                # reserved first, which fails cleanly.
                os.posix_fallocate(file.fileno(), 0, self._temporary.stat().st_size)
        except BaseException:
            self.discard()
            raise

    def __enter__(self) -> Any:
        return self.images

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.discard()

    def keep(self) -> None:
        with self._temporary.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(self._temporary, self._path)

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink()
