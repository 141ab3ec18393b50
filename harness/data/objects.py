"""From Python's own objects to arrays of numbers, truth values or texts."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
_NAMED = 5


def from_tensor(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor's values; floating-point types that NumPy lacks become float32.

    Args:
        tensor: Anywhere, of any layout and with or without a gradient.
    """
    found = tensor.detach().cpu().to_dense()
    if found.is_floating_point() and found.dtype not in _NUMPY_FLOATS:
        found = found.float()
    array: NDArray[Any] = found.numpy()
    return array


def array_of(one: Any, what: str) -> NDArray[Any]:
    """Return a tensor, an array, a number or lists of them as an array.

    Args:
        one: The values.
        what: What they are, for messages.

    Raises:
        ConfigError: If they make no array, such as lists of different lengths.
    """
    if isinstance(one, torch.Tensor):
        return from_tensor(one)
    try:
        return np.asarray(one)
    except (TypeError, ValueError, RuntimeError) as exc:
        raise ConfigError(
            f"{what} must be one tensor, array, number or text. Received: {type(one).__name__}, "
            f"which makes no array ({str(exc).split('.')[0]})."
        ) from exc


def plain(values: NDArray[Any], what: str) -> NDArray[Any]:
    """Return an array of numbers, truth values or texts; bytes are read as UTF-8.

    Args:
        values: `[N, ...]`, of any type; objects must be of one kind.
        what: What they are, for messages.

    Raises:
        ConfigError: If one is missing, is of another kind than others, or no UTF-8.
    """
    if values.dtype.kind == "S":
        try:
            return np.char.decode(values, "utf-8")
        except UnicodeDecodeError as exc:
            raise ConfigError(
                f"{what} are bytes that are no UTF-8: {exc}. Make texts or numbers of them."
            ) from exc
    if values.dtype.kind in "OT":  # objects, and texts of NumPy's StringDType
        return _of_objects(values.astype(object), what)
    return values


def _of_objects(values: NDArray[Any], what: str) -> NDArray[Any]:
    import pandas as pd  # slow to import, and seldom needed

    flat = values.ravel()
    missing = np.flatnonzero(pd.isna(flat))
    if len(missing):
        shown = ", ".join(map(str, missing[:_NAMED] // (flat.size // len(values))))
        raise ConfigError(
            f"{what}: {len(missing):,} of {flat.size:,} are missing (None or NaN), in samples "
            f"{shown}{', ...' if len(missing) > _NAMED else ''}. Fill them in, or leave those "
            "samples out."
        )
    if all(isinstance(one, str) for one in flat):
        return values.astype(str)
    if all(isinstance(one, bytes) for one in flat):
        return plain(values.astype(np.bytes_), what)
    if all(isinstance(one, (numbers.Real, np.bool)) for one in flat):
        found = np.asarray(flat.tolist())
        if found.dtype.kind in "iubf":
            return found.reshape(values.shape)
    kinds = sorted({type(one).__name__ for one in flat})
    raise ConfigError(
        f"{what} must be all numbers, all truth values or all texts. Received: "
        f"{', '.join(kinds[:_NAMED])}."
    )
