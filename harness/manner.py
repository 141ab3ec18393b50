"""How a network can be trained fastest on this CPU: memory layout and precision."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.bfloat16 import bfloat16_is_faster
from harness.tasks.objective import as_tuple, one_or_all

if TYPE_CHECKING:
    from torch import nn

    from harness.data.split import Split, Targets
    from harness.tasks.objective import Objective, Tensors
    from harness.tasks.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Manner:
    """How a network is trained.

    Attributes:
        channels_last: Whether weights and images lie in memory channels last, which convolutions
            are fastest in.
        bfloat16: Whether layers compute in bfloat16 under autocast; else all in float32.
    """

    channels_last: bool
    bfloat16: bool

    def prepare(self, model: nn.Module) -> None:
        """Lay out a network's weights, in place."""
        last = self.channels_last
        set_memory_format(model, torch.channels_last if last else torch.contiguous_format)

    def outputs(self, model: nn.Module, inputs: torch.Tensor) -> Tensors:
        """Return a network's outputs, float32, on inputs `[N, ...]`."""
        if self.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            return fp32(model(inputs))


PLAIN = Manner(channels_last=False, bfloat16=False)
"""As in a user's own code: slower, and nothing can stand in its way."""


def find_manner(model: nn.Module, split: Split, objective: Objective, recipe: Recipe) -> Manner:
    """Return the fastest manner in which a network can be trained.

    Code that is right in plain float32 may fail otherwise: `view` on what lies channels last,
    operations in place of float32 with bfloat16, tensors of five dimensions. So one batch goes
    forward and backward in a copy. What comes of it depends on the network's code and the shapes
    alone, hence pruned networks train as the dense one does.

    Args:
        model: The network; left as it is.
        split: What it is to be trained on.
        objective: The loss.
        recipe: Batch.
    """
    rows = torch.arange(min(recipe.batch, len(split)))
    inputs, targets = split.batch(rows, 0), split.targets_of(rows)
    layouts = (True, False)
    precisions = (True, False) if bfloat16_is_faster() and objective.bfloat16 else (False,)
    for bfloat16, channels_last in itertools.product(precisions, layouts):
        manner = Manner(channels_last, bfloat16)
        if manner == PLAIN or _works(manner, model, inputs, targets, objective):
            return manner
    return PLAIN


def _works(
    manner: Manner, model: nn.Module, inputs: torch.Tensor, targets: Targets, objective: Objective
) -> bool:
    try:
        with torch.random.fork_rng(devices=[]):
            tried = copy.deepcopy(model).requires_grad_(True).train()
            manner.prepare(tried)
            loss = objective.anew().loss(manner.outputs(tried, inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
    except Exception:  # a network's own code raises what it likes
        return False
    return True


def fp32(outputs: Any) -> Tensors:
    """Return a network's outputs in float32: a tensor, or several as a tuple."""
    return one_or_all(tuple(part.float() for part in as_tuple(outputs)))


def set_memory_format(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Lay out a network's weights in memory, in place."""
    model.to(memory_format=memory_format)  # type: ignore[call-overload]  # missing in torch's stubs
