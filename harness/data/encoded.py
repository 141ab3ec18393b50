"""Encoded images of any reader to stored ones: through the cache, else by decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.data.cache import cached_images, find_images
from harness.data.decoding import decode_into, find_form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from harness.data.cache import Images
    from harness.data.options import DataSpec
    from harness.data.samples import Listener


def stored_images(
    key: str,
    total: int,
    encoded: Callable[[], Iterable[bytes | Path]],
    spec: DataSpec,
    where: Callable[[int], str],
    listen: Listener,
) -> tuple[Images, tuple[str, ...]]:
    """Return images uint8 `[N, C, H, W]`, their digests and notes.

    Args:
        key: From `cache_key`, of the encoded images, `spec.size` and `spec.channels`.
        total: How many there are.
        encoded: Returns all images, in order; called once or twice, or not at all.
        spec: Size and channels asked.
        where: Says where sample i is from.
        listen: Told how it goes.

    Raises:
        ConfigError: If images can't be decoded, or differ in size and no size is asked.
    """
    found = find_images(key, total)
    if found is not None:
        return found, ()
    listen.notify(f"decoding {total:,} images (once; kept for the next time)")
    form = find_form(encoded(), total, spec.size, spec.channels, where)
    images, note = cached_images(
        key, (total, *form.shape),
        lambda array: decode_into(array, encoded(), form, where, listen),
    )  # fmt: skip
    return images, (note,) if note else ()
