"""Many encoded images to one array, on every core; what can't be decoded is gathered and told."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import statistics
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from harness.data.images import ImageForm, decode, look
from harness.data.samples import digests_of
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from harness.data.samples import Listener

_AT_ONCE = 256
"""Images handed to the threads together: bounds the encoded bytes that are in memory."""
_TRIAL, _SMALL_S = 16, 0.5e-3
"""If the first so many take less each, threads would only get in each other's way: most of the time
goes to Python code, which runs in one thread at a time (50,000 images of 32x32 took 6 s in one
thread and 13 s in two)."""
_NAMED = 3
"""Bad images that a message names; it counts the rest."""


class Bad:
    """Images that can't be used.

    Args:
        where: Says where sample i is from.
    """

    def __init__(self, where: Callable[[int], str]) -> None:
        self._where = where
        self._named: list[str] = []
        self._count = 0

    def add(self, index: int, exc: Exception) -> None:
        """Remember sample `index` and why."""
        self._count += 1
        if len(self._named) < _NAMED:
            self._named.append(f"{self._where(index)} ({str(exc) or type(exc).__name__})")

    def check(self, total: int) -> None:
        """Raise a `ConfigError` that names some of them, if there are any."""
        if self._count:
            more = "" if self._count <= _NAMED else f", and {self._count - _NAMED:,} more"
            raise ConfigError(
                f"{self._count:,} of {total:,} images can't be used: {'; '.join(self._named)}"
                f"{more}. Repair them or take them out."
            )


def find_form(
    encoded: Iterable[bytes | Path],
    total: int,
    size: tuple[int, int] | None,
    channels: int | None,
    where: Callable[[int], str],
) -> ImageForm:
    """Return the form that all images share; their headers are read where the user left it open.

    Args:
        encoded: All images, in order; read once, and not at all where size and channels are given.
        total: How many there are.
        size: Height and width that they are to have; None for their own.
        channels: 1 or 3; None for 1 if all are grey, else 3.
        where: Says where sample i is from.

    Raises:
        ConfigError: If there is no size given and they differ in it, or some are no images.
    """
    if size is not None and channels is not None:
        return ImageForm(channels, *size, resize=True)
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    bad, grey = Bad(where), True
    for index, seen in _on_all_cores(look, encoded):
        if isinstance(seen, Exception):
            bad.add(index, seen)
        else:
            sizes[seen[:2]] += 1
            grey &= seen[2]
    bad.check(total)
    if size is None and len(sizes) > 1:
        common = [f"{count:,} of {h}x{w}" for (h, w), count in sizes.most_common(3)]
        more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
        raise ConfigError(
            f"The images differ in size (height x width): {', '.join(common)}{more}. Add "
            "size=HEIGHTxWIDTH, such as size=64, and all are resized to it."
        )
    height, width = size or sizes.most_common(1)[0][0]
    return ImageForm(channels or (1 if grey else 3), height, width, resize=size is not None)


def decode_into(
    images: NDArray[np.uint8],
    encoded: Iterable[bytes | Path],
    form: ImageForm,
    where: Callable[[int], str],
    listen: Listener,
) -> NDArray[np.uint8]:
    """Decode images into `images` `[N, C, H, W]`; return their digests, uint8 `[N, 16]`.

    Raises:
        ConfigError: If some can't be decoded.
    """
    bad = Bad(where)
    total = len(images)

    def one(item: bytes | Path) -> NDArray[np.uint8]:
        return decode(item, form)

    for index, pixels in _on_all_cores(one, encoded):
        if isinstance(pixels, Exception):
            bad.add(index, pixels)
        else:
            images[index] = pixels
        if (index + 1) % _AT_ONCE == 0 or index + 1 == total:
            listen.advance(index + 1, total)
    bad.check(total)
    return digests_of(images)


def _on_all_cores(
    function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[tuple[int, Any]]:
    """Yield each item's number and result, in order; an exception is a result.

    Pillow lets other threads run while it decodes large images, so threads are enough.
    """

    def guarded(item: Any) -> Any:
        try:
            return function(item)
        except Exception as exc:  # Pillow's decoders raise whatever a broken file leads them to
            return exc

    remaining = iter(items)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool, _no_warnings():
        trial, seconds = [], []
        for item in itertools.islice(remaining, _TRIAL):
            start = time.perf_counter()
            trial.append(guarded(item))
            seconds.append(time.perf_counter() - start)
        yield from enumerate(trial)
        # The median: the first image also pays for what Pillow loads on first use.
        small = statistics.median(seconds or [0]) < _SMALL_S
        several = map if small else pool.map
        first = len(trial)
        while chunk := list(itertools.islice(remaining, _AT_ONCE)):
            yield from enumerate(several(guarded, chunk), first)
            first += len(chunk)


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence Pillow, which warns of large images and odd metadata that don't matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
