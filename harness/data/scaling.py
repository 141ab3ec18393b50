"""Scales of stored samples, by name, by value or from the training split."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from harness.data.split import Scale
from harness.data.values import explicit_scale
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.data.split import Split

_NAMED = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}
"""Mean and deviation of red, green and blue in 0..1: those of torchvision's ImageNet weights, and
those of CIFAR-10's training images."""
_MOST_VALUES = 20_000_000
"""Values that a mean is taken over: evenly spaced samples make it up, so that data larger than
memory are not read whole at every start."""
_CHUNK_VALUES = 2_000_000


def find_scale(train: Split, normalize: str) -> Scale | None:
    """Return what prepares stored samples; None where they are left alone.

    Args:
        train: The training split, without a scale.
        normalize: `"auto"`, `"none"`, `"imagenet"`, `"cifar10"` or values as text.

    Raises:
        ConfigError: If the values are not one, or one per channel or feature.
    """
    stored = train.inputs
    factor = 1 / 255 if stored.dtype == torch.uint8 else 1.0
    if not stored.is_floating_point() and factor == 1:
        if normalize not in ("auto", "none"):
            raise ConfigError(f"Token numbers can't be scaled. Received: normalize={normalize}.")
        return None
    if normalize == "none":
        return None if factor == 1 else Scale(factor=factor)
    if normalize == "auto":
        mean, std = _moments(train, factor)
        return Scale(mean, std, factor)
    if normalize in _NAMED:
        mean, std = _NAMED[normalize]
    else:
        means, stds = explicit_scale(normalize)
        mean, std = tuple(means), tuple(stds)
    _check_count(normalize, (len(mean), len(std)), stored.shape[1])
    return Scale(mean, std, factor)


def _check_count(normalize: str, counts: tuple[int, int], needed: int) -> None:
    if not set(counts) <= {1, needed}:
        raise ConfigError(
            f"normalize={normalize} has {counts[0]} means and {counts[1]} deviations; the samples "
            f"have {needed} channels or features. Give one value, or {needed}; or use "
            "normalize=auto."
        )


def _moments(train: Split, factor: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation per entry of dimension 1."""
    per_sample = train.inputs[0].numel()
    step = max(1, len(train) * per_sample // _MOST_VALUES)
    rows = torch.arange(0, len(train), step)
    chunks = torch.split(rows, max(1, _CHUNK_VALUES // per_sample))
    others = [d for d in range(train.inputs.ndim) if d != 1]
    shape = [1, -1, *(1 for _ in others[1:])]
    shift = _stored(train, chunks[0]).mean(others)  # near the mean: the squares lose no digits
    total, spread = torch.zeros_like(shift), torch.zeros_like(shift)
    for chunk in chunks:
        values = _stored(train, chunk) - shift.view(shape)
        total += values.sum(others)
        spread += values.square().sum(others)
    count = len(rows) * per_sample // len(shift)
    mean = total / count
    std = (spread / count - mean.square()).clamp(min=0).sqrt() * factor
    mean = (mean + shift) * factor
    stds = [_deviation(m, s) for m, s in zip(mean.tolist(), std.tolist(), strict=True)]
    # To a millionth of the deviation: sums differ in the last digits with the number of threads.
    means = [
        round(m, 5 - math.floor(math.log10(s))) for m, s in zip(mean.tolist(), stds, strict=True)
    ]
    return tuple(means), tuple(stds)


def _deviation(mean: float, std: float) -> float:
    """Return a deviation to six digits, or what stands for one that stored values can't show.

    Values that differ by less than float32 can tell apart at their size are as good as one value:
    they are divided by that difference, and by no less than 1.
    """
    resolution = torch.finfo(torch.float32).eps * abs(mean)
    if std <= max(resolution, torch.finfo(torch.float32).tiny):
        return max(1.0, resolution)
    return float(f"{std:.6g}")


def _stored(train: Split, rows: torch.Tensor) -> torch.Tensor:
    """Return some samples as they are stored, in float64."""
    return train.inputs[rows if train.rows is None else train.rows[rows]].double()
