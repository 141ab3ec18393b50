"""Batch norm's statistics, estimated anew after what has changed the network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from harness.compression.steps.base import Context, Decision, Step, Work
from harness.compression.steps.options import option, whole
from harness.tasks.part import breathing
from harness.training.recalibration import batch_norms, recalibrated

if TYPE_CHECKING:
    from collections.abc import Iterator

_BATCH = 128


@dataclass(frozen=True, slots=True)
class Recalibrate(Step):
    """Estimate the statistics of batch norms from training samples; nothing is trained.

    References:
        Li et al. (2020), "EagleEye: fast sub-net evaluation for efficient neural network pruning".
    """

    name: ClassVar[str] = "recalibrate"
    about: ClassVar[str] = "estimate batch norm's statistics anew, without training"

    samples: int = option(whole(2), 2048, about="training samples to estimate them from, at most")

    def foresee(self, work: Work, context: Context) -> Work:
        """Return the network as it is: only its statistics will change."""
        return work

    def decide(self, work: Work, context: Context) -> Decision:
        """Return how many samples are used: none where there is nothing to estimate."""
        if not batch_norms(work.module):
            return {"samples": 0}
        return {"samples": min(self.samples, len(context.task.data.train))}

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return a copy with new statistics; the network itself where it has no batch norm."""
        if not decision["samples"]:
            context.listener.note(
                "recalibrate: the network has no batch norm, so it stays as it is"
            )
            return work
        context.listener.phase("estimating batch norm's statistics")
        with context.shared():
            batches = breathing(_batches(decision["samples"], context), context.breathe)
            return replace(work, module=recalibrated(work.module, batches))

    def rebuild(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network as it is: only its statistics would change."""
        return work


def _batches(count: int, context: Context) -> Iterator[torch.Tensor]:
    """Yield training samples drawn at random, without augmentation, in batches of like sizes."""
    split = context.task.data.train
    # At random: folders of images come class by class.
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(context.seed))
    for rows in torch.tensor_split(order[:count], -(-count // _BATCH)):
        yield split.batch(rows)
