"""The seam: what a compression step is given, what it returns, what it has to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from harness.compression.quantisation.precision import FP32, Precision
from harness.compression.steps.options import check_options, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from torch import nn

    from harness.tasks.base import Task

Decision = dict[str, Any]
"""What a step settled, as JSON takes it: enough to build the same structure again."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A network between two steps.

    Attributes:
        module: The network, float32, in evaluation mode.
        sparse: Names of parameters whose zeros must stay zero, whatever trains them.
        simplified: Whether dead, doubled and idle nodes are taken out of its exported file.
        precision: What its exported file computes in.
    """

    module: nn.Module
    sparse: tuple[str, ...] = ()
    simplified: bool = False
    precision: Precision = FP32


class Listener(Protocol):
    """Is told what is going on."""

    def phase(self, text: str, /) -> None:
        """Take what is being done now."""

    def advance(self, done: int, total: int, /) -> None:
        """Take how far the phase has come."""

    def note(self, text: str, /) -> None:
        """Take a line that stays."""


class Silent:
    """A listener that says nothing."""

    def phase(self, text: str) -> None:
        """Say nothing."""

    def advance(self, done: int, total: int) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What steps may use beside the network itself.

    Attributes:
        task: Data, objective and recipe.
        teacher: The trained dense network, in evaluation mode, which students imitate; left as it
            is.
        seed: Of everything random in a step.
        part_seed: Of which part of the training split is drawn where the task trains on a part: the
            same for all steps of a pipeline.
        listener: Is told what is going on.
        granule: Returns the step of channel counts that the target rewards; 1 where nobody knows.
            Asked only where it is needed, since it may have to be probed.
        shared: Held while cores are kept busy, so that no timing is disturbed.
        breathe: Called now and then while it is held, so that a waiting timing gets its turn.
        folder: Where a step may keep what it would take long to do again; None for nowhere. The
            step's own: no other step writes there.
    """

    task: Task
    teacher: nn.Module
    seed: int = 0
    part_seed: int = 0
    listener: Listener = field(default_factory=Silent)
    granule: Callable[[], int] = lambda: 1
    shared: Callable[[], AbstractContextManager[Any]] = nullcontext
    breathe: Callable[[], None] = lambda: None
    folder: Path | None = None

    @property
    def example(self) -> torch.Tensor:
        """One real sample, `[1, ...]`."""
        return self.task.example_input(1)


@dataclass(frozen=True, slots=True)
class Step(ABC):
    """One compression step: a frozen set of options, and a pure function of a network.

    Structure and values are told apart: `decide` settles what is to be done, `apply` does it, and
    `rebuild` makes the same structure from the same decision without the values, which are loaded
    afterwards. An interrupted pipeline goes on from decisions and weights; so does whoever rebuilds
    a compressed network.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    """One line for people."""
    is_precision: ClassVar[bool] = False
    """Whether it fixes what the exported file computes in, so that no step can follow."""

    def __post_init__(self) -> None:
        check_options(self)

    def options(self) -> dict[str, Any]:
        """Return all options with their values, as JSON takes them."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}

    def text(self) -> str:
        """Return the step as a user would write it: what isn't at its default."""
        given = {
            one.name: value
            for one in fields(self)
            if (value := getattr(self, one.name)) != one.default
        }
        options = ",".join(f"{key}={written(value)}" for key, value in given.items())
        return f"{self.name}:{options}" if options else self.name

    def foresee(self, work: Work, context: Context) -> Work | None:
        """Check what can be said of a network's structure alone, before it is trained for long.

        The cores are taken, so `context.granule` isn't asked for; nothing is told to the listener.

        Args:
            work: The network as the steps before it leave its structure, with any values.
            context: As for `decide`, but for the values of the teacher.

        Returns:
            What the next step gets, with any values; None where only this step's work will show.

        Raises:
            ConfigError: If the options don't fit the structure: as `decide` would.
        """
        return None

    def decide(self, work: Work, context: Context) -> Decision:
        """Return what is to be done with this network; nothing is changed.

        Raises:
            ConfigError: If the options don't fit the network.
        """
        return {}

    @abstractmethod
    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return a new network; the one given stays as it is.

        Raises:
            TaskError: If the result doesn't run or train.
        """

    def rebuild(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return a network of the same structure as `apply` does, with any values."""
        return self.apply(work, decision, context)
