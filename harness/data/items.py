"""A map-style data set of a user's, read once into arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from harness.data.images import GREY, ImageForm, fitted
from harness.data.objects import array_of, plain
from harness.errors import ConfigError
from harness.importing import user_code

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.options import DataSpec
    from harness.data.samples import Listener

_COMPARED = 8
"""Items that are read twice, to see whether they are random."""
_REPORT_EVERY = 256


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """All items of a data set.

    Attributes:
        inputs: `[N, ...]`; uint8 `[N, C, H, W]` of Pillow images.
        targets: `[N, ...]`, or several such arrays.
        are_pictures: Whether the inputs were Pillow images.
        notes: What a user should know.
    """

    inputs: NDArray[Any]
    targets: NDArray[Any] | tuple[NDArray[Any], ...]
    are_pictures: bool
    notes: tuple[str, ...]


def read_items(dataset: Any, what: str, spec: DataSpec, listen: Listener) -> Items:
    """Return all items.

    Args:
        dataset: Has `len()` and `[i]`, which gives (input, target): tensors, arrays, numbers,
            texts or Pillow images; a target may be a tuple of them.
        what: What it is, for messages.
        spec: Size and channels, for Pillow images.
        listen: Told how it goes.

    Raises:
        ConfigError: If an item is no pair, items differ in shape or kind, or the user's code fails.
    """
    with user_code(f"{what}: len()", "--data"):
        total = len(dataset)
    if not total:
        raise ConfigError(f"`--data`: {what} is empty.")
    inputs: list[NDArray[Any]] = []
    targets: list[Any] = []
    pictures = 0
    listen.notify(f"reading {total:,} items ({what})")
    for index in range(total):
        one, target = _item(dataset, index, what)
        inputs.append(_as_array(one, spec, f"item {index} of {what}"))
        targets.append(target)
        pictures += isinstance(one, Image.Image)
        if (index + 1) % _REPORT_EVERY == 0 or index + 1 == total:
            listen.advance(index + 1, total)
    notes = (f"The items of {what} were read once{_randomness(dataset, inputs, what, spec)}.",)
    if pictures not in (0, total):
        raise ConfigError(
            f"`--data`: {pictures:,} of {total:,} inputs of {what} are Pillow images and the "
            "others are not. Make them one kind."
        )
    stacked = _stacked(inputs, f"inputs of {what}")
    return Items(stacked, _targets(targets, what), bool(pictures), notes)


def _item(dataset: Any, index: int, what: str) -> tuple[Any, Any]:
    with user_code(f"{what}: item {index}", "--data"):
        item = dataset[index]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        received = type(item).__name__
        if isinstance(item, dict):
            received = f"a dict with {', '.join(map(repr, item))}"
        elif isinstance(item, (tuple, list)):
            received += f" of {len(item)}"
        raise ConfigError(
            f"`--data`: item {index} of {what} must be (input, target). Received: {received}."
        )
    return item[0], item[1]


def _as_array(one: Any, spec: DataSpec, what: str) -> NDArray[Any]:
    if isinstance(one, Image.Image):
        try:
            return _pixels(one, spec)
        except (OSError, ValueError) as exc:
            raise ConfigError(f"`--data`: {what} can't be used: {exc}.") from exc
    found = array_of(one, f"`--data`: the input of {what}")
    if found.dtype.kind not in "iubf":
        raise ConfigError(
            f"`--data`: {what} must have a tensor, an array, numbers or an image as input. "
            f"Received: {type(one).__name__}."
        )
    return found


def _pixels(image: Image.Image, spec: DataSpec) -> NDArray[np.uint8]:
    upright = ImageOps.exif_transpose(image)
    height, width = spec.size or (upright.height, upright.width)
    channels = spec.channels or (1 if upright.mode in GREY else 3)
    return fitted(upright, ImageForm(channels, height, width, resize=spec.size is not None))


def _stacked(arrays: list[NDArray[Any]], what: str) -> NDArray[Any]:
    shapes = sorted({one.shape for one in arrays})
    if len(shapes) > 1:
        found = ", ".join(str(list(shape)) for shape in shapes[:3])
        raise ConfigError(
            f"`--data`: {what} differ in shape: {found}{', ...' if len(shapes) > 3 else ''}. Make "
            "them one shape; for Pillow images, add size= and channels=."
        )
    stacked = np.stack(arrays)
    return stacked[:, None] if stacked.ndim == 1 else stacked


def _targets(targets: list[Any], what: str) -> Any:
    if isinstance(targets[0], tuple):
        if len({len(one) if isinstance(one, tuple) else -1 for one in targets}) > 1:
            raise ConfigError(f"`--data`: the targets of {what} differ in how many there are.")
        return tuple(_column(list(part), what) for part in zip(*targets, strict=True))
    return _column(targets, what)


def _column(values: list[Any], what: str) -> NDArray[Any]:
    named = f"`--data`: targets of {what}"
    arrays = [array_of(one, named) for one in values]
    if len({one.shape for one in arrays}) > 1:
        raise ConfigError(f"{named} differ in shape. Make them one shape.")
    if all(one.dtype.kind in "iubf" for one in arrays):
        return np.stack(arrays)
    # As objects: NumPy would make texts of the numbers, and of what is missing, beside texts.
    return plain(np.stack([one.astype(object) for one in arrays]), named)


def _randomness(dataset: Any, inputs: list[NDArray[Any]], what: str, spec: DataSpec) -> str:
    """Return what to add where a second reading gives something else."""
    for index in range(min(_COMPARED, len(inputs))):
        again = _as_array(_item(dataset, index, what)[0], spec, what)
        if not np.array_equal(again, inputs[index]):
            return (
                ". They are random, and this randomness is now frozen: use --augment instead, "
                "which shows another view in every epoch"
            )
    return "; random augmentation inside it would be frozen"
