"""Which training samples criteria see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.data.split import Split, Targets

_SAMPLES, _BATCH = 512, 128
"""Training samples that criteria of gradients and activations see, and how many at a time."""


def scoring_batches(split: Split, seed: int = 0) -> Iterator[tuple[torch.Tensor, Targets]]:
    """Yield a few batches of a split's samples, prepared but not augmented, and their targets.

    Args:
        split: What to take from; all of it where it has no more than 512 samples.
        seed: Of which samples are taken.
    """
    # At random: folders of images come class by class.
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    for rows in torch.split(order[:_SAMPLES], _BATCH):
        yield split.batch(rows), split.targets_of(rows)
