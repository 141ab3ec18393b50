"""The step `qat`: training that makes a network bear 8-bit integers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from harness.compression.quantisation.fake import fake_quantised, quantisable
from harness.compression.rewriting.norms import fold_norms, refold
from harness.compression.steps.base import Context, Decision, Step, Work
from harness.compression.steps.kept import TeacherViews, network_identity, training_rows
from harness.compression.steps.options import number, option, whole
from harness.compression.steps.outputs import check_outputs
from harness.errors import ConfigError, TaskError
from harness.manner import Manner, find_manner
from harness.training import SoftTargets, fit

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn

    from harness.data.split import Split

_LR_PART = 10
"""The part, one over this, of the recipe's rate for candidates: the network is trained already, and
has to keep what it knows while its weights move to where rounding does no harm."""


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
        """Return epochs, learning rate, seed, samples, manner, and the layers and norms folded.

        Raises:
            ConfigError: If the network has no convolution or linear layer, or returns something
                else than its teacher.
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
        if self.weight > 0:
            check_outputs(self.name, work.module, context)
        task, recipe = context.task, context.task.recipe
        # Not in bfloat16, whose 8 bits would hide what is to be learnt from rounding to 8 bits.
        exact, module = replace(task.objective, bfloat16=False), refold(work.module, pairs)
        with context.shared(), fake_quantised(module):
            split = training_rows(context)
            manner = find_manner(module, split, exact, recipe)
        return {
            "epochs": self.epochs, "lr": self.lr or recipe.trial_lr / _LR_PART,
            "seed": context.seed, "samples": len(split), "of": len(task.data.train),
            **asdict(manner), "folded": [list(pair) for pair in pairs],
        }  # fmt: skip

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network folded and trained; zeros of sparse parameters stay zeros.

        In `context.folder`, an interrupted training goes on.

        Raises:
            ConfigError: If the decision is another network's.
            TaskError: If the network can't be trained.
        """
        found = self.rebuild(work, decision, context)
        context.listener.phase("quantisation-aware training")
        sparse = [found.module.get_parameter(name) for name in found.sparse]
        with context.shared(), fake_quantised(found.module):
            names = _now_named(sparse, found.module)
            self._train(replace(found, sparse=names), decision, context)
        return replace(found, module=found.module.eval())

    def rebuild(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network folded, its values as they were.

        Raises:
            ConfigError: If the decision is another network's.
        """
        module = refold(work.module, decision["folded"]).eval()
        names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
        return replace(work, module=module, sparse=tuple(n for n in work.sparse if n in names))

    def _train(self, work: Work, decision: Decision, context: Context) -> None:
        """Train in place a network whose rounding is simulated."""
        task, split = context.task, training_rows(context)

        def on_batch(done: int, total: int) -> None:
            context.listener.advance(done, total)
            context.breathe()

        fit(
            work.module, split, task.objective, task.recipe,
            epochs=decision["epochs"], lr=decision["lr"], seed=decision["seed"],
            soft=self._soft(split, context), sparse=work.sparse,
            manner=Manner(decision["channels_last"], decision["bfloat16"]),
            checkpoint=None if context.folder is None else context.folder / "checkpoint.pt",
            on_batch=on_batch,
        )  # fmt: skip

    def _soft(self, split: Split, context: Context) -> SoftTargets | None:
        if self.weight == 0:
            return None
        identity = network_identity(context.teacher)
        outputs = TeacherViews(context, split, again=False)
        return SoftTargets(outputs, self.temperature, self.weight, identity)


def _now_named(sparse: Collection[nn.Parameter], module: nn.Module) -> tuple[str, ...]:
    """Return the names that parameters have while their rounding is simulated."""
    wanted = {id(parameter) for parameter in sparse}
    named = module.named_parameters(remove_duplicate=False)
    return tuple(name for name, parameter in named if id(parameter) in wanted)
