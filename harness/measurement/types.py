"""What a measurement is made of: samples, estimates, statistics, flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.errors import MeasurementError
from harness.quantity import TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from harness.budget import Budget
    from harness.candidate import OnnxModel
    from harness.quantity import Quantity


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive calls of one model.

    Attributes:
        wall_ns: Wall time per call, int64 `[calls]`, nanoseconds; from an emulated target the
            instructions that the guest executed, as is `cpu_ns`.
        cpu_ns: CPU time per call of the timing thread (of the process where the runtime has
            several threads), int64 `[calls]`, nanoseconds.
        nivcsw: Involuntary context switches during each call, int64 `[calls]`.
    """

    wall_ns: NDArray[np.int64]
    cpu_ns: NDArray[np.int64]
    nivcsw: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LatencySample:
    """All calls of one model in one process, in rounds; nothing is ever deleted from it.

    Attributes:
        wall_ns: int64 `[rounds, calls]`; likewise `cpu_ns` and `nivcsw`, as in `Block`.
        sitting: int64 `[rounds]`: which sitting each round is of; each began with fresh sessions.
        quantity: What calls were measured in.
    """

    wall_ns: NDArray[np.int64]
    cpu_ns: NDArray[np.int64]
    nivcsw: NDArray[np.int64]
    sitting: NDArray[np.int64]
    quantity: Quantity = TIME

    @classmethod
    def from_blocks(
        cls, blocks: Sequence[Block], per_sitting: int, quantity: Quantity = TIME
    ) -> LatencySample:
        """Stack blocks of equal length, one a round, `per_sitting` rounds a sitting."""
        return cls(
            np.stack([b.wall_ns for b in blocks]),
            np.stack([b.cpu_ns for b in blocks]),
            np.stack([b.nivcsw for b in blocks]),
            np.arange(len(blocks), dtype=np.int64) // per_sitting,
            quantity,
        )

    def sittings(self) -> list[NDArray[np.int64]]:
        """Return the rounds of each sitting, in order of time."""
        return [np.flatnonzero(self.sitting == one) for one in np.unique(self.sitting)]

    def arrays(self) -> dict[str, NDArray[np.int64]]:
        """Return what of it is kept, under names that say what it is."""
        if self.quantity is not TIME:
            return {self.quantity.name: self.wall_ns, "sitting": self.sitting}
        return {
            "wall_ns": self.wall_ns, "cpu_ns": self.cpu_ns, "nivcsw": self.nivcsw,
            "sitting": self.sitting,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """What one node of a model took, by the runtime's own profiler.

    Attributes:
        name: The node's name, as the runtime calls it after its optimisations.
        op: Its operator.
        runs_s: Seconds per run, in order; the first runs are a warm-up.
    """

    name: str
    op: str
    runs_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval, of the confidence that the measurement states."""

    value: float
    lo: float
    hi: float

    @property
    def half_width(self) -> float:
        """Half the interval's width, relative to the value."""
        return (self.hi - self.lo) / (2 * self.value)


@dataclass(frozen=True, slots=True)
class LatencyStats:
    """One model's figures in its quantity's unit; ratios to the interleaved dense model.

    The unit is seconds, or instructions where a CPU is emulated.

    Attributes:
        p50: Clean median, per call; None where it can't be had, as everywhere below.
        p90: Clean 90th percentile.
        p99: Clean 99th percentile; needs 662 calls. `p999`, the 99.9th, needs 6636.
        p50_raw: Percentiles over all calls, preempted ones too; likewise the others.
        least: The call that took least.
        ratio_p50: This model's p50 over the reference's, paired; likewise `ratio_p90`.
        n_calls: Calls timed; `n_clean` of them were not preempted.
        n_rounds: Rounds over all processes; `n_sittings` likewise.
        n_processes: Fresh processes.
        contended: Fraction of calls that were preempted.
        quantity: What calls were measured in.
    """

    p50: Estimate
    p90: Estimate | None
    p99: Estimate | None
    p999: Estimate | None
    p50_raw: float
    p90_raw: float | None
    p99_raw: float | None
    p999_raw: float | None
    least: float
    ratio_p50: Estimate | None
    ratio_p90: Estimate | None
    n_calls: int
    n_clean: int
    n_rounds: int
    n_sittings: int
    n_processes: int
    contended: float
    quantity: Quantity = TIME

    def figure(self, statistic: str) -> Estimate:
        """Return `"p50"` or `"p90"`, seconds or instructions."""
        return _present(self.p50 if statistic == "p50" else self.p90, statistic)

    def ratio(self, statistic: str) -> Estimate:
        """Return the ratio of `"p50"` or `"p90"` to the reference's."""
        estimate = self.ratio_p50 if statistic == "p50" else self.ratio_p90
        return _present(estimate, f"ratio of {statistic}")

    def judged(self, budget: Budget) -> Estimate:
        """Return the estimate that `budget` bounds.

        Raises:
            MeasurementError: If it wasn't measured, above all if a time is asked for and
                instructions were counted.
        """
        if budget.kind == "share":
            return self.ratio(budget.statistic)
        if budget.kind != self.quantity.name:
            raise MeasurementError(
                f"A budget of {budget.kind} can't be held against {self.quantity.name}."
            )
        return self.figure(budget.statistic)


def _present(estimate: Estimate | None, name: str) -> Estimate:
    if estimate is None:
        raise MeasurementError(f"The measurement holds no {name}: too few calls were timed.")
    return estimate


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of a few values, and the lowest and highest of them."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Startup:
    """What a model costs before its first answer, each time in a process of its own.

    Attributes:
        session_create_s: Time to create the runtime's session.
        first_inference_s: Time of the first call after that.
        peak_memory_bytes: Peak of the process's resident memory, the runtime's own included; None
            where the system doesn't tell.
        n_processes: Fresh processes.
    """

    session_create_s: Spread
    first_inference_s: Spread
    peak_memory_bytes: Spread | None
    n_processes: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of one model.

    Attributes:
        stats: The figures.
        startup: Session creation, first inference and memory; None where it wasn't asked.
        flags: Blocking flags and notes, as in `flags`.
        samples: Raw calls, one entry per process.
        environment: Facts about the machine and runtime, before and after.
    """

    stats: LatencyStats
    startup: Startup | None
    flags: tuple[str, ...]
    samples: tuple[LatencySample, ...] = field(repr=False)
    environment: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to time, and what to feed it.

    Attributes:
        model: The file.
        inputs: One batch per input name.
        budget: What its latency is held against; None measures to the plan's precision only.
        repeat: Inferences that make one timed call; above 1 a known slow-down is planted.
    """

    model: OnnxModel
    inputs: Mapping[str, NDArray[Any]]
    budget: Budget | None = None
    repeat: int = 1


class TimedSession(Protocol):
    """A model loaded in a worker; what the engine needs of it."""

    @property
    def session_create_s(self) -> float:
        """Seconds to create the runtime's session."""

    @property
    def first_inference_s(self) -> float:
        """Seconds of the first call."""


class TimingWorker(Protocol):
    """A process that loads models and owns the clock; what the engine needs of it."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """`runtime_version`, and more that the process says of itself.

        `quantity` is what the figures of `time` are: `"time"`, also where it is absent, or
        `"instructions"`.
        """

    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> TimedSession:
        """Load a model and run it once on `inputs`, which timing will use."""

    def reload(self, session: TimedSession) -> None:
        """Make a session anew, elsewhere in memory, and run it once; its times are the new ones."""

    def time(self, schedule: Sequence[tuple[TimedSession, int]]) -> list[Block]:
        """Time `n` calls of each session in turn; one block per entry."""

    def arrive(self, session: TimedSession, due_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Serve requests that arrive when due; return int64 `[3, n]`: due, begun, done."""

    def peak_memory_bytes(self) -> int | None:
        """Return the peak of the process's resident memory since the last load."""

    def state(self) -> dict[str, Any]:
        """Return the machine's state: governor, frequency limits, throttle and steal counts."""


class OpenWorker(Protocol):
    """Start a fresh timing process."""

    def __call__(self) -> AbstractContextManager[TimingWorker]:
        """Return the process, as a context manager that ends it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A machine to measure on.

    Attributes:
        open: Starts a fresh timing process there.
        exclusive: Gives a context manager that keeps other work off it.
        name: For people.
    """

    open: OpenWorker
    exclusive: Callable[[], AbstractContextManager[None]]
    name: str = ""
