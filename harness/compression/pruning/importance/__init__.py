"""Importance criteria: which channels of a group matter."""

from __future__ import annotations

from harness.compression.pruning.importance.applicable import (
    applicable_criteria,
    inapplicable_criteria,
    silent_groups,
)
from harness.compression.pruning.importance.samples import scoring_batches
from harness.compression.pruning.importance.scores import CRITERIA, channel_scores

__all__ = [
    "CRITERIA",
    "applicable_criteria",
    "channel_scores",
    "inapplicable_criteria",
    "scoring_batches",
    "silent_groups",
]
