"""What a reader hands on: samples of one source, before they are split and scaled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

DIGEST_BYTES = 16
"""128 bits: by the birthday bound, no two of 2^40 samples share a digest by accident."""


def _ignore(*_: object) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told how reading goes.

    Attributes:
        notify: Takes a line of text: what is being done.
        advance: Takes the samples done and in all.
    """

    notify: Callable[[str], None] = _ignore
    advance: Callable[[int, int], None] = _ignore


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Samples of one source.

    Attributes:
        inputs: Array `[M, ...]`: uint8 `[M, C, H, W]` for images, float32 or int64 for others; a
            DataFrame for a table, until it is encoded.
        targets: Array `[M, ...]` as the source has it: numbers, truth values or texts; or several.
        digests: uint8 `[M, 16]`: two samples have the same inputs if and only if they are equal.
            A table's own reader leaves them out.
        classes: Names; the targets are then numbers of names. Empty where the source has none.
        normalize: The scale by default: `"auto"` or `"none"`.
        notes: What a user should know.
        where: Says where sample i is from, for messages.
    """

    inputs: Any
    targets: NDArray[Any] | tuple[NDArray[Any], ...]
    digests: NDArray[np.uint8]
    classes: tuple[str, ...] = ()
    normalize: str = "auto"
    notes: tuple[str, ...] = field(default=())
    where: Callable[[int], str] = "sample {}".format

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def is_image(self) -> bool:
        """Whether the inputs are stored images `[M, C, H, W]`."""
        return getattr(self.inputs, "ndim", 0) == 4 and self.inputs.dtype == np.uint8


def digests_of(rows: Iterable[NDArray[Any]]) -> NDArray[np.uint8]:
    """Return a digest of each array's bytes, uint8 `[M, 16]`."""
    parts = [_digest(np.ascontiguousarray(row)) for row in rows]
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, DIGEST_BYTES)


def _digest(row: NDArray[Any]) -> bytes:
    return hashlib.blake2b(row.data, digest_size=DIGEST_BYTES).digest()
