"""Which residual blocks go, so that a network is within a share of its cost."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import torch

from harness.compression.depth.blocks import leave_out
from harness.compression.pruning.dependency.cutting import copied
from harness.errors import ConfigError, HarnessError, TaskError
from harness.export import count_macs
from harness.tasks.objective import one_or_all
from harness.training import predict_tensors
from harness.training.recalibration import recalibrate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from harness.compression.depth.blocks import Block
    from harness.compression.steps.base import Context

_SAMPLES, _BYTES = 2048, 2**28
"""The most samples that a network is judged by, and the most memory that they take."""
_CHUNK, _CALIBRATING = 256, 2
"""Samples of a batch, and batches from which batch norms take their statistics."""


class Judge:
    """Says what a network costs, and how well it does, without some of its blocks.

    Batch norms take their statistics anew first: what follows a block that has gone sees other
    activations, and as long as its norms don't know them, the loss says more of them than of the
    block. (Of ResNet-20 on CIFAR-10, to 70 % of multiply-accumulates, blocks chosen in this way
    leave 79 % accuracy after three epochs on 1,024 samples, those chosen without it 69 %.)

    Args:
        model: The network; left as it is.
        context: Has the task, and the seed by which samples are drawn.
        by: What it costs: `"params"` or `"macs"`.
        samples: The most that it is judged by.
    """

    def __init__(
        self, model: nn.Module, context: Context, by: str, samples: int = _SAMPLES
    ) -> None:
        self.by = by
        self._model = model
        self._objective = context.task.objective
        self._example = context.example
        split = context.task.data.train
        rng = torch.Generator().manual_seed(context.seed)
        size = self._example.numel() * self._example.element_size()
        count = max(1, min(samples, _BYTES // size))
        rows = torch.randperm(len(split), generator=rng)[:count].sort().values
        self._batches = [split.batch(part, 0) for part in torch.split(rows, _CHUNK)]
        self._targets = split.targets_of(rows)
        self._whole = self._cost(model)

    def kept(self, gone: Sequence[str]) -> float:
        """Return the share of the cost that is left."""
        return self._cost(self._without(gone)) / self._whole

    def loss(self, gone: Sequence[str]) -> float:
        """Return the objective's loss on the samples; infinite where it isn't a number.

        Raises:
            TaskError: If the network or its loss can't be computed.
        """
        return self.loss_of(self._without(gone), gone)

    def loss_of(self, smaller: nn.Module, gone: Sequence[str]) -> float:
        """Return the loss of a network made from this one.

        Args:
            smaller: Its batch norms are calibrated anew.
            gone: Names of the blocks that it lacks, for messages.

        Raises:
            TaskError: If the network or its loss can't be computed.
        """
        try:
            recalibrate(smaller, self._batches[:_CALIBRATING])
            outputs = one_or_all(predict_tensors(smaller, self._batches))
            with torch.inference_mode():
                found = float(self._objective.anew().loss(outputs, self._targets))
        except HarnessError:
            raise
        except Exception as exc:  # the user's own code raises what it likes
            raise TaskError(
                f"The loss without the blocks {', '.join(gone)} can't be computed: "
                f"{type(exc).__name__}: {exc}"
            ) from exc
        return found if math.isfinite(found) else math.inf

    def _without(self, gone: Sequence[str]) -> nn.Module:
        shared = [name for name, _ in self._model.named_parameters()]
        return leave_out(copied(self._model, shared), gone)

    def _cost(self, model: nn.Module) -> int:
        if self.by == "macs":
            return count_macs(model, self._example)
        return sum(parameter.numel() for parameter in model.parameters())


def choose_blocks(
    judge: Judge, blocks: Sequence[Block], keep: float, context: Context
) -> list[str]:
    """Return the blocks that go, so that at most a share of the cost is left.

    They go one after the other: always that for which the loss rises least per parameter (or
    multiply-accumulate) saved. Since a block mostly matters more the more others are gone, its rise
    is computed anew only while its last one is still the least: the lazy greedy algorithm of Minoux
    (1978), which finds the same blocks where that holds. In the end, blocks that needn't have gone
    come back.

    Args:
        judge: Of the network.
        blocks: All that can go.
        keep: The share, above 0 and below 1.
        context: Is told how far it has come.

    Raises:
        ConfigError: If more is left even without all of them.
    """
    least = judge.kept([block.name for block in blocks])
    if least > keep:
        raise ConfigError(
            f"Step 'depth' can't get to {judge.by}={keep:.1%}: without all {len(blocks)} blocks "
            f"that can be left out, {least:.1%} are left. Give a larger share, or leave out what "
            "there is and prune the rest: 'prune' after 'depth'."
        )
    context.listener.phase("choosing the blocks that go")
    with context.shared():
        gone = _greedy(judge, blocks, keep, context)
    for name in reversed(gone):
        fewer = [other for other in gone if other != name]
        if judge.kept(fewer) <= keep:
            gone = fewer
    return gone


def order_blocks(judge: Judge, blocks: Sequence[Block], context: Context) -> list[str]:
    """Return all blocks in the order in which `choose_blocks` would leave them out."""
    return _greedy(judge, blocks, 0.0, context)


def _greedy(judge: Judge, blocks: Sequence[Block], keep: float, context: Context) -> list[str]:
    gone: list[str] = []
    loss = judge.loss(gone)
    # Rise of the loss per unit saved, the block's number, how many were gone then, the loss itself.
    queue = [(-math.inf, i, -1, loss) for i in range(len(blocks))]
    while queue:
        _, i, at, found = heapq.heappop(queue)
        block = blocks[i]
        if at == len(gone):
            gone.append(block.name)
            loss = found
            context.listener.advance(len(gone), len(blocks))
            if judge.kept(gone) <= keep:
                break
            continue
        context.breathe()
        found = judge.loss([*gone, block.name])
        saved = max(1, block.macs if judge.by == "macs" else block.params)
        rise = found - loss if math.isfinite(loss) else 0.0
        heapq.heappush(queue, (rise / saved, i, len(gone), found))
    return gone
