"""One line for people about data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from harness.data.split import Data, Scale, Split

_SHOWN = 3
"""Values per channel that are worth a place in a line."""


def describe(data: Data, normalize: str) -> str:
    """Return such as `"cats: 700 train, 150 validation, 150 test; 2 classes; 3x32x32 images"`.

    Args:
        data: The data.
        normalize: What the scale was made by.
    """
    sizes = ", ".join(
        f"{len(split):,} {name}"
        for name, split in (
            ("train", data.train), ("validation", data.validation), ("test", data.test)
        )
    )  # fmt: skip
    parts = [sizes, _targets(data), _inputs(data.train)]
    if data.train.scale is not None:
        parts.append(_scale(data.train.scale, normalize))
    return f"{data.name}: {'; '.join(part for part in parts if part)}"


def _targets(data: Data) -> str:
    if data.kind == "other":
        return "targets for a loss of your own"
    if data.kind == "classification":
        return f"{data.outputs} classes"
    return "one value to predict" if data.outputs == 1 else f"{data.outputs} values to predict"


def _inputs(split: Split) -> str:
    shape = split.inputs.shape[1:]
    sides = "x".join(map(str, shape))
    if split.inputs.dtype == torch.uint8 and len(shape) == 3:
        return f"{sides} images"
    if len(shape) == 1:
        words = "features" if split.inputs.is_floating_point() else "tokens"
        return f"{sides} {words}"
    return f"{sides} inputs"


def _scale(scale: Scale, normalize: str) -> str:
    if normalize == "none":
        return "scaled to 0..1"
    if len(scale.mean) > _SHOWN:
        return "normalised by the training split" if normalize == "auto" else "normalised"
    mean, std = (", ".join(f"{x:.3g}" for x in one) for one in (scale.mean, scale.std))
    return f"normalised by mean {mean}, deviation {std}"
