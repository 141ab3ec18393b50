"""Arrays that a user brings, as stored inputs: images to uint8 `[N, C, H, W]`, the rest as it is.

- uint8 with three dimensions is `[N, H, W]`, one channel.
- uint8 with four has its channels where 1, 3 or 4 stands: in dimension 1 or in the last; where both
  or neither have it, `layout=` must say.
- uint8 with two dimensions, `[N, F]`, is no image: it becomes float32, not scaled.
- Other whole numbers with three or four dimensions are taken as images if all are 0 to 255; with
  two, `[N, F]`, they are numbers of tokens, int64, whatever they mean: features should be float32.
- Floating-point numbers become float32 and are otherwise left alone: no layout is guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from harness.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.options import DataSpec

_CHANNELS = (1, 3, 4)
_CHUNK = 1024
_LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as Pillow converts to grey."""


def stored_array(array: NDArray[Any], spec: DataSpec, what: str) -> NDArray[Any]:
    """Return inputs as they are stored.

    Args:
        array: `[N, ...]`, of any dtype.
        spec: Layout, size and channels asked.
        what: What the array is, for messages, such as `x of data.npz`.

    Returns:
        uint8 `[N, C, H, W]`, float32 `[N, ...]` or int64 `[N, L]`.

    Raises:
        ConfigError: If the values are no numbers, not finite, or no image where they should be;
            or if the layout can't be told.
    """
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise ConfigError(
            f"{what} must be [N, ...], two dimensions or more, none of them empty. "
            f"{_received(array)}"
        )
    if array.dtype.kind == "f":
        return _floats(array, spec, what)
    if array.dtype.kind not in "iub":
        raise ConfigError(f"{what} must hold numbers. {_received(array)}")
    if array.ndim == 2:
        _refuse_image_keys(spec, what)
        return array.astype(np.int64) if array.dtype != np.uint8 else array.astype(np.float32)
    if array.ndim > 4 or array.min(initial=0) < 0 or array.max(initial=0) > 255:
        raise ConfigError(
            f"{what}: whole numbers with {array.ndim} dimensions are taken as images, [N, H, W] or "
            f"[N, H, W, C], with values from 0 to 255. {_received(array)} Store anything else as "
            "float32."
        )
    return _images(array.astype(np.uint8, copy=False), spec, what)


def _floats(array: NDArray[Any], spec: DataSpec, what: str) -> NDArray[np.float32]:
    if spec.size is not None or spec.channels is not None:
        _refuse_image_keys(spec, what)
    if spec.layout == "nhwc" and array.ndim == 4:
        array = array.transpose(0, 3, 1, 2)
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is told
        found = np.ascontiguousarray(array, dtype=np.float32)
    bad = sum(
        int((~np.isfinite(found[i : i + _CHUNK])).sum()) for i in range(0, len(found), _CHUNK)
    )
    if bad:
        raise ConfigError(
            f"{what}: {bad:,} of {found.size:,} values are NaN or infinite as float32. Replace "
            "them, or leave those samples out."
        )
    return found


def _refuse_image_keys(spec: DataSpec, what: str) -> None:
    if spec.size is not None or spec.channels is not None:
        raise ConfigError(
            f"size= and channels= are for images of uint8, and {what} is something else. Leave "
            "them out, or store the images as uint8."
        )


def _images(array: NDArray[np.uint8], spec: DataSpec, what: str) -> NDArray[np.uint8]:
    if array.ndim == 3:
        found = array[:, None]
    else:
        layout = spec.layout or _layout(array, what)
        found = array.transpose(0, 3, 1, 2) if layout == "nhwc" else array
    return fitted_array(np.ascontiguousarray(found), spec, what)


def _layout(array: NDArray[np.uint8], what: str) -> str:
    first, last = array.shape[1] in _CHANNELS, array.shape[3] in _CHANNELS
    if first == last:
        why = "both ends look" if first else "neither end looks"
        raise ConfigError(
            f"{what}: {why} like channels (1, 3 or 4). {_received(array)} Say which: layout=nchw "
            "or layout=nhwc."
        )
    return "nchw" if first else "nhwc"


def fitted_array(images: NDArray[np.uint8], spec: DataSpec, what: str) -> NDArray[np.uint8]:
    """Return images `[N, C, H, W]` with the size and the channels asked; as they are if none are.

    Sizes are changed as `harness.data.images` does: whole, bilinear, anti-aliased.

    Raises:
        ConfigError: If the channels can't be had from those that are there.
    """
    channels = spec.channels or images.shape[1]
    if channels != images.shape[1] and {channels, images.shape[1]} != {1, 3}:
        raise ConfigError(
            f"{what} has {images.shape[1]} channels; channels={channels} can't be made of them."
        )
    size = spec.size or images.shape[2:]
    if (channels, *size) == images.shape[1:]:
        return images
    chunks = np.split(images, range(_CHUNK, len(images), _CHUNK))
    return np.concatenate([_fitted(chunk, channels, size) for chunk in chunks])


def _fitted(images: NDArray[np.uint8], channels: int, size: tuple[int, ...]) -> NDArray[np.uint8]:
    values = torch.from_numpy(images.astype(np.float32))
    if channels < images.shape[1]:
        values = torch.einsum("nchw,c->nhw", values, torch.tensor(_LUMA))[:, None]
    if tuple(size) != images.shape[2:]:
        values = F.interpolate(values, tuple(size), mode="bilinear", antialias=True)
    whole = values.round().clamp(0, 255).to(torch.uint8)
    return whole.expand(-1, channels, -1, -1).contiguous().numpy()


def _received(array: NDArray[Any]) -> str:
    return f"Received: {array.dtype} {list(array.shape)}."
