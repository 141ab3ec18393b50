"""Fine-tuning, from labels and from the teacher."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.steps.base import Context, Decision, Step, Work
from harness.compression.steps.kept import TeacherViews, network_identity, training_rows
from harness.compression.steps.options import choice, number, option, text, whole
from harness.compression.steps.outputs import check_outputs
from harness.data.augment import parse_augmentation
from harness.errors import ConfigError
from harness.manner import Manner, find_manner
from harness.training import SoftTargets, fit
from harness.training.features import Features, attention_pairs

if TYPE_CHECKING:
    from torch import nn

    from harness.data.split import Split


def _augment(given: Any) -> str:
    """Read what augmentation is asked for."""
    found = text(given)
    try:
        parse_augmentation(found, "augment")
    except ConfigError as exc:
        raise ValueError("none, or some of flip, shift, cutout joined by '+'") from exc
    return found


@dataclass(frozen=True, slots=True)
class Distil(Step):
    """Train the network from the labels and from its teacher's outputs and attention.

    References:
        Hinton, Vinyals & Dean (2015), "Distilling the knowledge in a neural network".
        Zagoruyko & Komodakis (2017), "Paying more attention to attention".
        Shen & Xing (2022), "A fast knowledge distillation framework": outputs kept per view.
    """

    name: ClassVar[str] = "distil"
    about: ClassVar[str] = "fine-tune from labels and from the dense network's outputs"

    epochs: int | None = option(
        whole(1), None, about="passes over the training samples; the recipe's trial_epochs"
    )
    lr: float | None = option(
        number(0, with_low=False), None, about="peak learning rate; the recipe's trial_lr"
    )
    temperature: float = option(
        number(0, with_low=False), 4.0, about="softens the logits of teacher and student"
    )
    weight: float = option(
        number(0, 1), 0.7, about="of the teacher's outputs in the loss; 0 for labels alone"
    )
    teacher: str = option(
        choice("cached", "live"), "cached",
        about="compute its outputs once per view, or on every batch",
    )  # fmt: skip
    views: int | None = option(
        whole(1), None, about="augmented views, shown in turn; a new one every epoch"
    )
    features: str = option(
        choice("none", "attention"), "none", about="what is imitated of the teacher's inside"
    )
    feature_weight: float = option(
        number(0), 500.0, about="of the attention's mean squared difference in the loss"
    )
    augment: str | None = option(
        _augment, None, about="none, or flip, shift, cutout joined by '+'; the task's own"
    )
    seed: int | None = option(whole(0), None, about="of the order of samples; the pipeline's")

    def foresee(self, work: Work, context: Context) -> Work:
        """Return the network as it is; check that there is attention to compare."""
        self._pairs(work.module, context)
        return work

    def decide(self, work: Work, context: Context) -> Decision:
        """Return epochs, learning rate, seed, samples, manner and the layers compared.

        Raises:
            ConfigError: If the teacher returns something else than the network, if there is no
                attention to compare, or if samples that are no images are to be augmented.
            TaskError: If a network doesn't run.
        """
        task, recipe = context.task, context.task.recipe
        if self.weight > 0:
            check_outputs(self.name, work.module, context)
        with context.shared():
            pairs = self._pairs(work.module, context)
            split = self._split(context)
            manner = find_manner(work.module, split, task.objective, recipe)
        return {
            "epochs": self.epochs or recipe.trial_epochs, "lr": self.lr or recipe.trial_lr,
            "seed": context.seed if self.seed is None else self.seed,
            "samples": len(split), "of": len(task.data.train), **asdict(manner),
            "layers": [[pair.teacher.layer, pair.student.layer] for pair in pairs],
        }  # fmt: skip

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return a trained copy; in `context.folder`, an interrupted training goes on."""
        task, student = context.task, copy.deepcopy(work.module)
        context.listener.phase("distilling" if self._learns_from_teacher() else "fine-tuning")

        def on_batch(done: int, total: int) -> None:
            context.breathe()
            context.listener.advance(done, total)

        with context.shared():
            split, teacher = self._split(context), network_identity(context.teacher)
            fit(
                student, split, task.objective, task.recipe,
                epochs=decision["epochs"], lr=decision["lr"], seed=decision["seed"],
                soft=self._soft(split, teacher, context),
                features=self._features(student, teacher, context),
                sparse=work.sparse, views=self.views,
                manner=Manner(decision["channels_last"], decision["bfloat16"]),
                checkpoint=None if context.folder is None else context.folder / "checkpoint.pt",
                on_batch=on_batch,
            )  # fmt: skip
        return replace(work, module=student)

    def rebuild(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network as it is: only its weights would change."""
        return work

    def _learns_from_teacher(self) -> bool:
        return self.weight > 0 or self._compares_attention()

    def _compares_attention(self) -> bool:
        return self.features != "none" and self.feature_weight > 0

    def _pairs(self, module: nn.Module, context: Context) -> tuple[Any, ...]:
        if not self._compares_attention():
            return ()
        return attention_pairs(context.teacher, module, context.task.example_input(2))

    def _features(self, module: nn.Module, identity: str, context: Context) -> Features | None:
        pairs = self._pairs(module, context)
        return Features(context.teacher, pairs, self.feature_weight, identity) if pairs else None

    def _soft(self, split: Split, identity: str, context: Context) -> SoftTargets | None:
        if self.weight == 0:
            return None
        # Where attention is compared the teacher runs on every batch in any case.
        if self.teacher == "live" or self._compares_attention():
            return SoftTargets(context.teacher, self.temperature, self.weight, identity)
        outputs = TeacherViews(context, split, again=self.views is not None)
        return SoftTargets(outputs, self.temperature, self.weight, identity)

    def _split(self, context: Context) -> Split:
        """Return what is trained on: the task's part of the training split, augmented as asked."""
        split = training_rows(context)
        augmentation = None if self.augment is None else parse_augmentation(self.augment, "augment")
        if augmentation is not None and split.inputs.ndim != 4:
            raise ConfigError(
                f"Step {self.name!r}: augment needs images. Received: samples of shape "
                f"{list(split.sample_shape)}. Leave it out."
            )
        return split if self.augment is None else replace(split, augmentation=augmentation)
