"""Augmentation of training images: fixed views, drawn by number, made while a batch is gathered.

A view is a function of the seed, the view's number and the sample's: every candidate that trains on
view 3 sees the very same images, so that the teacher's outputs on a view are computed once and
shared (Shen & Xing, 2022, "A fast knowledge distillation framework", store soft labels per crop for
the same reason). Draws come from a hash of those three numbers, so that a batch costs what its own
samples cost, and a sample looks the same in whatever batch it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from harness.errors import ConfigError

KINDS = ("flip", "shift", "cutout")
_SHIFT = 8
"""An image is moved by up to this part of its side: 4 pixels of 32, as is usual for CIFAR."""
_CUTOUT = 4
"""A side of the square that is blanked, as a part of the image's."""
_DRAWS = 5
"""Per sample: down, right, flip, and where the square is."""
_GOLDEN = -0x61C8864680B583EB
_MIX_1, _MIX_2 = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""SplitMix64's step and multipliers, as signed numbers: Steele, Lea & Flood (2014), "Fast
splittable pseudorandom number generators"; tensors multiply modulo 2^64, as it asks."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random views of images.

    Attributes:
        flip: Whether half of the images are mirrored left to right.
        shift: Whether images are moved by up to an eighth of each side; edges are repeated.
        cutout: Whether a square of a quarter of the shorter side is set to the image's mean;
            DeVries & Taylor (2017), "Improved regularization of CNNs with cutout".
        seed: Of all draws.
    """

    flip: bool = False
    shift: bool = False
    cutout: bool = False
    seed: int = 0

    def __call__(self, images: torch.Tensor, rows: torch.Tensor, view: int) -> torch.Tensor:
        """Return view number `view` of some images.

        Args:
            images: All stored images, `[M, C, H, W]`, of any dtype.
            rows: int64 `[B]`, which of them.
            view: From 0.

        Returns:
            `[B, C, H, W]`, of the same dtype; a copy.
        """
        draws = self._draws(rows, view)
        found = images[rows]
        if self.shift or self.flip:
            found = self._moved(found, draws)
        return self._blanked(found, draws) if self.cutout else found

    def _draws(self, rows: torch.Tensor, view: int) -> torch.Tensor:
        """Return five numbers in [0, 1) for each of the rows `[B]`: `[B, 5]`."""
        key = _mixed(_mixed(torch.tensor(self.seed)) + view)
        counters = rows[:, None] * _DRAWS + torch.arange(_DRAWS)
        bits = _mixed(_mixed(counters) ^ key)
        return _shifted(bits, 40).double() / 2**24

    def _moved(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Return images `[B, C, H, W]`, each moved and mirrored by its draws.

        Whole lines of pixels are gathered for the way down, then pixels for the way across.
        """
        count, channels, height, width = images.shape
        xs = torch.arange(width).expand(count, -1)
        if self.shift:
            down = _scaled(draws[:, 0], height // _SHIFT)
            ys = (torch.arange(height) + down).clamp(0, height - 1)
            planes = torch.arange(count * channels).view(count, channels, 1)
            lines = planes * height + ys[:, None]
            images = images.reshape(-1, width).index_select(0, lines.flatten())
            xs = (xs + _scaled(draws[:, 1], width // _SHIFT)).clamp(0, width - 1)
        if self.flip:
            xs = torch.where(draws[:, 2:3] < 0.5, xs.flip(1), xs)
        index = xs[:, None].expand(-1, channels * height, -1)
        across = images.reshape(count, channels * height, width).gather(2, index)
        return across.view(count, channels, height, width)

    def _blanked(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        side = max(1, min(height, width) // _CUTOUT)
        top = (draws[:, 3] * (height - side + 1)).long()[:, None]
        left = (draws[:, 4] * (width - side + 1)).long()[:, None]
        y, x = torch.arange(height), torch.arange(width)
        inside = ((y >= top) & (y < top + side))[:, None, :, None] & (
            (x >= left) & (x < left + side)
        )[:, None, None, :]
        mean = images.float().mean((1, 2, 3), keepdim=True).to(images.dtype)
        return torch.where(inside, mean, images)


def _mixed(values: torch.Tensor) -> torch.Tensor:
    """Return SplitMix64's hash of int64 values, of the same shape."""
    bits = values + _GOLDEN
    bits = (bits ^ _shifted(bits, 30)) * _MIX_1
    bits = (bits ^ _shifted(bits, 27)) * _MIX_2
    return bits ^ _shifted(bits, 31)


def _shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    """Shift int64 right as if it had no sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _scaled(draw: torch.Tensor, reach: int) -> torch.Tensor:
    """Map [0, 1) to whole numbers from -reach to reach, `[B, 1]`."""
    return (draw * (2 * reach + 1)).floor().long()[:, None] - reach


def parse_augmentation(text: str, option: str) -> Augmentation | None:
    """Return the augmentation that `"flip+shift"` names; None for `"none"`.

    Raises:
        ConfigError: If a part is unknown.
    """
    parts = [part.strip() for part in text.split("+")]
    if parts == ["none"]:
        return None
    for part in parts:
        if part not in KINDS:
            raise ConfigError(
                f"{option} must be 'none' or some of {', '.join(KINDS)} joined by '+'. "
                f"Received: {text!r}."
            )
    return Augmentation(**dict.fromkeys(parts, True))
