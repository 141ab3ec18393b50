"""scikit-learn's digits as they are: 1,797 images of 8x8 pixels, ten classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.datasets import load_digits

from harness.data.arrays import stored_array
from harness.data.samples import Samples, digests_of

if TYPE_CHECKING:
    from harness.data.options import DataSpec
    from harness.data.samples import Listener

_WHITE = 16
"""The largest grey level; stored as 255."""


def read(place: str, spec: DataSpec, listen: Listener) -> dict[str, Samples]:
    """Return the digits, undivided."""
    digits = load_digits()
    images = np.round(digits.images * (255 / _WHITE)).astype(np.uint8)
    stored = stored_array(images, spec, place)
    return {"all": Samples(stored, digits.target.astype(np.int64), digests_of(stored))}
