"""Another network in the place of the dense one, to be taught by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from harness.compression.steps.base import Context, Decision, Step, Work
from harness.compression.steps.options import choice, option, text, whole
from harness.compression.steps.outputs import check_outputs
from harness.errors import ConfigError
from harness.models.asked import asked_as
from harness.models.check import check_network
from harness.models.spec import PRETRAINED, load_network
from harness.tasks.taskfile import beside

if TYPE_CHECKING:
    from harness.models.network import Network


@dataclass(frozen=True, slots=True)
class Student(Step):
    """Replace the network by another one that is built for the task's data."""

    name: ClassVar[str] = "student"
    about: ClassVar[str] = "take another network in the dense one's place"

    model: str = option(text, about="a network as `--model` names it, such as small-cnn")
    seed: int | None = option(whole(0), None, about="of its initial weights; the pipeline's")
    weights: str | None = option(text, None, about="file with its weights; none, so untrained")
    pretrained: str = option(
        choice("no", "yes"), "no", about="yes for published weights, as after --model's name"
    )

    def __post_init__(self) -> None:
        Step.__post_init__(self)  # the class that `super()` means is not the one with slots
        # A comma ends an option: this is how the text of such a step is read again.
        if self.model.endswith(PRETRAINED):
            object.__setattr__(self, "model", self.model.removesuffix(PRETRAINED))
            object.__setattr__(self, "pretrained", "yes")
        if self.pretrained == "yes" and self.weights is not None:
            raise ConfigError(
                f"Step {self.name!r} takes published weights or a file of your own. Received: "
                f"pretrained=yes and weights={self.weights}. Leave one of them out."
            )

    def foresee(self, work: Work, context: Context) -> Work:
        """Return the other network, with its own values."""
        network = self._network(self._settled(context), context)
        return replace(work, module=network.module, sparse=())

    def decide(self, work: Work, context: Context) -> Decision:
        """Return which network is built, and from which seed.

        Raises:
            ConfigError: If it can't be built for the data, doesn't run on them, takes images in
                another order than the task has them, or returns other shapes than the teacher.
        """
        decision = self._settled(context)
        self._network(decision, context)
        return decision

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the other network; nothing of the one given is left in it."""
        network = self._network(decision, context)
        for note in network.notes:
            context.listener.note(f"student: {note}")
        return replace(work, module=network.module, sparse=())

    def rebuild(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network without loading its weights: their file may be gone.

        Published ones are loaded again, since some hubs build another network for them.
        """
        network = self._network({**decision, "weights": None}, context)
        return replace(work, module=network.module, sparse=())

    def _settled(self, context: Context) -> Decision:
        seed = context.seed if self.seed is None else self.seed
        here = Path.cwd()
        weights = None if self.weights is None else str(here / self.weights)
        model = beside(self.model, here) + (PRETRAINED if self.pretrained == "yes" else "")
        return {"model": model, "seed": seed, "weights": weights}

    def _network(self, decision: Decision, context: Context) -> Network:
        data = context.task.data
        stored = replace(data.validation, nhwc=False)  # networks are built for [C, H, W]
        weights = decision["weights"]
        try:
            with asked_as("model"):
                network = load_network(
                    decision["model"], inputs=stored.sample_shape, outputs=data.outputs,
                    weights=None if weights is None else Path(weights), seed=decision["seed"],
                )  # fmt: skip
                if network.nhwc != data.validation.nhwc:
                    raise ConfigError(
                        f"the dense network takes images {_order(data.validation.nhwc)}, and this "
                        f"one {_order(network.nhwc)}. Give a network of the same order."
                    )
                check_network(network.module, context.task.example_input(2), None)
        except ConfigError as exc:
            raise ConfigError(f"Step {self.name!r}, model={self.model}: {exc}") from exc
        check_outputs(self.name, network.module, context)
        return network


def _order(nhwc: bool) -> str:
    return "[N, H, W, C]" if nhwc else "[N, C, H, W]"
