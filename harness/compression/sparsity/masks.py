"""Sparsity: which single weights are set to zero, unstructured or in an N:M pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from harness.compression.sparsity.eligible import Weight

SCOPES = ("global", "layer")
"""One threshold over all layers, or the same share of each; Han et al. (2015) prune by layer."""


def read_pattern(text: str) -> tuple[int, int]:
    """Return N and M of a pattern N:M: of every M consecutive weights, at most N are not zero.

    Raises:
        ValueError: If it isn't one; the message says what was expected.
    """
    keep, colon, block = text.partition(":")
    if colon and keep.strip().isdecimal() and block.strip().isdecimal():
        found = int(keep), int(block)
        if 0 < found[0] < found[1]:
            return found
    raise ValueError("N:M, two whole numbers with N from 1 and below M, such as 2:4")


def unstructured(
    scores: Sequence[torch.Tensor], share: float, scope: str = "global"
) -> list[torch.Tensor]:
    """Return masks that drop the lowest scores, the first of equal ones first.

    Args:
        scores: Of each weight's values, float, of its shape; see `with_zeros_first`.
        share: Which part is dropped, 0 to 1; rounded to whole weights.
        scope: One of `SCOPES`.

    Returns:
        bool, of the weights' shapes: True where a value is kept.
    """
    if scope == "layer":
        return [_lowest_dropped(one.flatten(), share).view(one.shape) for one in scores]
    kept = _lowest_dropped(torch.cat([one.flatten() for one in scores]), share)
    parts = torch.split(kept, [one.numel() for one in scores])
    return [part.view(one.shape) for part, one in zip(parts, scores, strict=True)]


def _lowest_dropped(scores: torch.Tensor, share: float) -> torch.Tensor:
    kept = torch.ones(scores.shape, dtype=torch.bool)
    kept[torch.argsort(scores, stable=True)[: round(share * len(scores))]] = False
    return kept


def patterned(weight: Weight, scores: torch.Tensor, keep: int, block: int) -> torch.Tensor:
    """Return the mask of an N:M pattern, as Mishra et al. (2021) have 2:4.

    Of every M consecutive weights along the reduction dimension (input channels, at each place of a
    kernel) the N of the highest scores are kept; of equal ones the last.

    Args:
        weight: Its input channels are a multiple of `block`.
        scores: Of its values, float, of its shape; see `with_zeros_first`.
        keep: N.
        block: M, above N.

    Returns:
        bool, of the weight's shape: True where a value is kept.
    """
    rows = weight.rows(scores)
    blocks = rows.reshape(*rows.shape[:-1], -1, block)
    lowest = torch.argsort(blocks, dim=-1, stable=True)[..., : block - keep]
    kept = torch.ones(blocks.shape, dtype=torch.bool).scatter(-1, lowest, False)
    return weight.from_rows(kept.flatten(-2))


def with_zeros_first(scores: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return scores from 0 with -1 for values that are zero already.

    They go first whatever the criterion, so that exactly the share asked is zero in the end.

    Args:
        scores: float, from 0.
        values: Of the same shape.
    """
    return scores.masked_fill(values == 0, -1.0)


def nonzeros(model: nn.Module) -> int:
    """Return how many parameters are not zero; those that modules share are counted once."""
    return sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters())
