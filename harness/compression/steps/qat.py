"""The step `qat`: training that makes a network bear 8-bit integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from harness.compression.quantisation.fake import fake_quantised, quantisable
from harness.compression.rewriting.norms import fold_norms, refold
from harness.compression.steps.base import Context, Decision, Step, Work
from harness.compression.steps.options import number, option, whole
from harness.errors import ConfigError, TaskError
from harness.manner import find_manner
from harness.tasks.part import breathing, training_part
from harness.training import SoftTargets, fit, predict_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from harness.data.split import Split
    from harness.training import Views

_LR_SHARE = 0.1
"""Of the recipe's rate for candidates: the network is trained already, and has to keep what it
knows while its weights move to where rounding does no harm."""


@dataclass(frozen=True, slots=True)
class QuantisationAware(Step):
    """Trains with rounded weights and activations, so that the network bears them.

    Batch norms are folded into the convolutions before them, since those weights are rounded.
    Rounding is simulated in float32 with straight-through gradients (Jacob et al., 2018,
    "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference"), and the teacher is imitated as in distillation. What comes out is a plain float32
    network; a step `int8` after this one has the file compute in integers.
    """

    name: ClassVar[str] = "qat"
    about: ClassVar[str] = "quantisation-aware training, before int8"

    epochs: int = option(whole(1), 1, about="passes over the training samples")
    lr: float | None = option(
        number(0, with_low=False), None,
        about="peak learning rate; by default a tenth of the recipe's trial_lr",
    )  # fmt: skip
    temperature: float = option(
        number(0, with_low=False), 4.0, about="softens teacher and student alike"
    )
    weight: float = option(number(0, 1), 0.7, about="share of the imitation in the loss")

    def decide(self, work: Work, context: Context) -> Decision:
        """Return the pairs of a layer and a batch norm that are folded.

        Raises:
            ConfigError: If the network has no convolution or linear layer.
            TaskError: If it doesn't run.
        """
        if not quantisable(work.module):
            raise ConfigError(
                "Step 'qat' trains convolution and linear layers to bear 8-bit weights. Received a "
                "network that has none with a weight of its own. Leave the step out."
            )
        try:
            pairs = fold_norms(work.module, context.example)[1]
        except Exception as exc:  # the network's own code raises what it likes
            raise TaskError(f"The network can't be run to fold its batch norms: {exc}") from exc
        return {"folded": [list(pair) for pair in pairs]}

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network folded and trained; zeros of sparse parameters stay zeros.

        Raises:
            ConfigError: If the decision is another network's.
            TaskError: If the network can't be trained.
        """
        found = self.rebuild(work, decision, context)
        context.listener.phase("quantisation-aware training")
        keep_zeros = _zero_keeper(found)
        with context.shared(), fake_quantised(found.module):
            self._train(found.module, context, keep_zeros)
        return replace(found, module=found.module.eval())

    def rebuild(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network folded, its values as they were.

        Raises:
            ConfigError: If the decision is another network's.
        """
        module = refold(work.module, decision["folded"]).eval()
        names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
        return replace(work, module=module, sparse=tuple(n for n in work.sparse if n in names))

    def _train(self, module: nn.Module, context: Context, keep_zeros: Callable[[], None]) -> None:
        """Train in place."""
        task, recipe = context.task, context.task.recipe
        split = training_part(task, context.teacher, context.seed, context.breathe)
        soft = SoftTargets(_teacher(context, split), self.temperature, self.weight)
        lr = _LR_SHARE * recipe.trial_lr if self.lr is None else self.lr
        # Not in bfloat16, whose 8 bits would hide what is to be learnt from rounding to 8 bits.
        exact = replace(task.objective, bfloat16=False)
        manner = find_manner(module, split, exact, recipe)

        def on_batch(done: int, total: int) -> None:
            keep_zeros()
            context.listener.advance(done, total)
            context.breathe()

        fit(
            module, split, task.objective, recipe, epochs=self.epochs, lr=lr,
            seed=context.seed, soft=soft, manner=manner, on_batch=on_batch,
        )  # fmt: skip


def _teacher(context: Context, split: Split) -> Callable[[int], Views]:
    """Return what gives the teacher's outputs on a view; without augmentation all views are one."""
    kept: dict[int, Views] = {}

    def outputs(view: int) -> Views:
        key = view if split.augmentation is not None else 0
        if key not in kept:
            kept.clear()
            kept[key] = predict_tensors(
                context.teacher, breathing(split.chunks(view=view), context.breathe)
            )
        return kept[key]

    return outputs


def _zero_keeper(work: Work) -> Callable[[], None]:
    """Return what sets entries of sparse parameters that are zero now back to zero."""
    # By the parameters themselves: they have other names while their rounding is simulated.
    parameters = dict(work.module.named_parameters(remove_duplicate=False))
    zeros = [(parameters[name], parameters[name] == 0) for name in work.sparse]

    @torch.no_grad()
    def keep() -> None:
        for parameter, gone in zeros:
            parameter[gone] = 0.0

    return keep
