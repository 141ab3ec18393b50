"""Sparsity as a step: single weights become zero, and stay zero in training."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from harness.compression.pruning.importance import scoring_batches
from harness.compression.sparsity.eligible import eligible
from harness.compression.sparsity.masks import (
    SCOPES,
    patterned,
    read_pattern,
    unstructured,
    with_zeros_first,
)
from harness.compression.steps.base import Step
from harness.compression.steps.options import choice, names, option, share
from harness.errors import ConfigError, HarnessError, TaskError
from harness.units import format_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from harness.compression.sparsity.eligible import Eligible, Weight
    from harness.compression.steps.base import Context, Decision, Work

CRITERIA = ("magnitude", "taylor", "random")
"""|w| (Han et al., 2015); |w dL/dw|, the first-order Taylor expansion of the loss, its mean over
batches (Molchanov et al., 2019); by chance."""


def _pattern(given: Any) -> str:
    keep, block = read_pattern(str(given))
    return f"{keep}:{block}"


@dataclass(frozen=True, slots=True)
class Sparsify(Step):
    """Set weights of convolution and linear layers to zero.

    Which weights may become zero, and which layers stay dense, is told in `eligible`.
    """

    name: ClassVar[str] = "sparsify"
    about: ClassVar[str] = "sets single weights to zero, unstructured or N:M"

    zeros: float | None = option(
        share, None, about="which share of the weights of convolution and linear layers becomes 0"
    )
    pattern: str | None = option(
        _pattern, None, about="N:M, such as 2:4: of M input channels in a row, N are kept"
    )
    criterion: str = option(choice(*CRITERIA), "magnitude", about="by what weights are chosen")
    scope: str = option(
        choice(*SCOPES), "global", about="one threshold for all layers, or the share of each layer"
    )
    exclude: tuple[str, ...] = option(names, (), about="layers, or modules of them, to leave dense")

    def __post_init__(self) -> None:
        Step.__post_init__(self)  # a slotted dataclass has no super() without arguments
        if (self.zeros is None) == (self.pattern is None):
            received = "neither" if self.zeros is None else "both"
            raise ConfigError(
                f"Step 'sparsify' needs either zeros or pattern. Received: {received}. Give it as "
                "'sparsify:zeros=50%' or as 'sparsify:pattern=2:4'."
            )
        if self.pattern is not None and self.scope != "global":
            raise ConfigError(
                "Step 'sparsify': scope says where a share of zeros is taken, and a pattern takes "
                f"the same of every layer. Received: pattern {self.pattern} with scope "
                f"{self.scope!r}. Leave scope out, or give zeros."
            )

    def decide(self, work: Work, context: Context) -> Decision:
        """Return the layers, how many of their weights will be zero, and what stays dense.

        Which weights become zero is left to `apply`: how many doesn't depend on the criterion.

        Raises:
            ConfigError: If an excluded name has no layer, or no weight may become sparse.
        """
        found = self._eligible(work.module)
        kept = self._masks(found.weights, [w.values.detach().abs() for w in found.weights])
        zeros = sum(mask.numel() - int(mask.sum()) for mask in kept)
        return {
            "layers": [weight.layer for weight in found.weights],
            "left": dict(found.left),
            "zeros": zeros,
            "of": sum(weight.values.numel() for weight in found.weights),
            "parameters": sum(parameter.numel() for parameter in work.module.parameters()),
        }

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return a copy with the weights set to zero, and their names in `sparse`.

        Weights that are zero already go first, whatever the criterion; where there are more of
        them than asked, all of them stay.

        Raises:
            TaskError: If gradients are needed and can't be computed.
        """
        module = copy.deepcopy(work.module).eval()
        weights = self._eligible(module).weights
        with context.shared():
            scores = self._scores(module, weights, context)
            with torch.no_grad():
                for weight, kept in zip(weights, self._masks(weights, scores), strict=True):
                    weight.values.masked_fill_(~kept, 0.0)
        _report(weights, decision, context)
        return _marked(work, module, weights)

    def rebuild(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return a copy with the same names in `sparse`; its zeros come with its weights."""
        module = copy.deepcopy(work.module).eval()
        return _marked(work, module, self._eligible(module).weights)

    def _eligible(self, module: nn.Module) -> Eligible:
        block = 1 if self.pattern is None else read_pattern(self.pattern)[1]
        return eligible(module, self.exclude, block)

    def _masks(
        self, weights: Sequence[Weight], scores: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return which values stay, bool of each weight's shape; none that is zero does."""
        values = [weight.values.detach() for weight in weights]
        ordered = [with_zeros_first(s, v) for s, v in zip(scores, values, strict=True)]
        if self.pattern is None:
            assert self.zeros is not None
            kept = unstructured(ordered, self.zeros, self.scope)
        else:
            n, m = read_pattern(self.pattern)
            kept = [patterned(w, s, n, m) for w, s in zip(weights, ordered, strict=True)]
        return [mask & (value != 0) for mask, value in zip(kept, values, strict=True)]

    def _scores(
        self, module: nn.Module, weights: Sequence[Weight], context: Context
    ) -> list[torch.Tensor]:
        if self.criterion == "random":
            rng = torch.Generator().manual_seed(context.seed)
            return [torch.rand(weight.values.shape, generator=rng) for weight in weights]
        values = [weight.values.detach() for weight in weights]
        if self.criterion == "magnitude":
            return [value.abs() for value in values]
        context.listener.phase("computing the gradients of the weights")
        found = _gradient_sizes(module, [weight.name for weight in weights], context)
        return [value.abs() * gradient for value, gradient in zip(values, found, strict=True)]


def _gradient_sizes(
    module: nn.Module, names: Sequence[str], context: Context
) -> list[torch.Tensor]:
    """Return the size of the loss's gradient by parameters, summed over batches, of their shapes.

    Sizes are summed, not gradients: near an optimum those of several batches cancel each other,
    and a weight that every batch depends on would count for nothing.

    Raises:
        TaskError: If the network can't be trained, or a gradient is not finite.
    """
    # A copy: running a network may change its buffers.
    model = copy.deepcopy(module).eval().requires_grad_(False)
    weights = [model.get_parameter(name).requires_grad_() for name in names]
    loss = context.task.objective.anew().loss
    totals = [torch.zeros_like(weight) for weight in weights]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(context.seed)  # some networks draw numbers in evaluation mode too
        for inputs, targets in scoring_batches(context.task.data.train, context.seed):
            try:
                value = loss(model(inputs), targets)
                parts = torch.autograd.grad(value, weights, allow_unused=True)
            except HarnessError:
                raise
            except Exception as exc:  # the network's own code raises what it likes
                raise TaskError(
                    f"The network's gradients can't be computed: {type(exc).__name__}: {exc}. "
                    "Choose the weights by another criterion, such as magnitude."
                ) from exc
            totals = [t if p is None else t + p.abs() for t, p in zip(totals, parts, strict=True)]
            context.breathe()
    if not all(torch.isfinite(total).all() for total in totals):
        raise TaskError(
            "Expected finite gradients of the network's loss. Received some that are not. Choose "
            "the weights by another criterion, such as magnitude."
        )
    return totals


def _marked(work: Work, module: nn.Module, weights: Sequence[Weight]) -> Work:
    own = [weight.name for weight in weights]
    return replace(work, module=module, sparse=tuple(dict.fromkeys([*work.sparse, *own])))


def _report(weights: Sequence[Weight], decision: Decision, context: Context) -> None:
    zeros, of, parameters = (decision[key] for key in ("zeros", "of", "parameters"))
    context.listener.note(
        f"{zeros:,} of {of:,} weights of convolution and linear layers are zero "
        f"({format_share(zeros / of)}), that is {format_share(zeros / parameters)} of all "
        "parameters"
    )
    for name, reason in decision["left"].items():
        context.listener.note(f"{name!r} stays dense: {reason}")
    for weight in weights:
        if not weight.values.count_nonzero():
            context.listener.note(f"{weight.layer!r} has no weight left: its output is constant")
