"""The engine: sittings of rounds in which every model is timed once, in random order.

Processes are run, on one machine or several, until the result is as precise as the plan asks. What
a process does is in `process`, what its calls mean is computed in `intervals`.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import (
    BackendError,
    CandidateFailed,
    ConnectionLost,
)
from harness.measurement import flags as flag
from harness.measurement import intervals
from harness.measurement.persevering import persevere
from harness.measurement.process import COUNTED_SITTINGS, LEAST_SITTINGS, Process, all_settled
from harness.measurement.startup import measure_startup
from harness.measurement.types import Measurement, Place
from harness.quantity import TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from harness.measurement.types import (
        LatencySample,
        LatencyStats,
        OpenWorker,
        Startup,
        Subject,
    )
    from harness.quantity import Quantity

    Exclusive = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    Attributes:
        processes: Numbers of fresh processes after which to look, ascending.
        sittings: Numbers of sittings in each process after which to look, ascending.
        half_width: Stop once the relative half-width of the estimate that decides is this small.
        limit_s: A process gets no more sittings than fit in this, seconds from its start, but
            `least_sittings` at least, and the calls that the budgets' statistic needs.
        confidence: Of the reported intervals, all looks together.
        startups: Processes in which each model is started alone; 0 for none.
        quantity: What calls are measured in. Instructions need no warm-up: once a session has run,
            its counts depend on no clock and no cache.
    """

    processes: tuple[int, ...]
    sittings: tuple[int, ...]
    half_width: float
    limit_s: float = 20.0
    confidence: float = 0.95
    startups: int = 0
    quantity: Quantity = TIME

    @property
    def counts(self) -> bool:
        """Whether instructions are counted, which no clock, cache or neighbour changes."""
        return self.quantity is not TIME

    @property
    def least_sittings(self) -> int:
        """The fewest sittings of a process that was stopped by its time."""
        return COUNTED_SITTINGS if self.counts else LEAST_SITTINGS

    @property
    def per_look(self) -> float:
        """Confidence of each interval, so that all looks together keep `confidence`."""
        looks = len(self.processes) * len(self.sittings)
        return intervals.per_look_confidence(self.confidence, looks)


PROBE = Plan(processes=(1,), sittings=(6, 12, 24, 48), half_width=0.03)
"""One process, interval over sittings: steers the search."""
FINAL = Plan(processes=(5, 6, 8, 10), sittings=(10,), half_width=0.01, startups=3)
"""Five fresh processes and up to ten, interval over processes: what is reported."""


def quick(seconds: float, confidence: float = 0.95, quantity: Quantity = TIME) -> Plan:
    """Return a plan of one process and one look that takes about `seconds`, from start to end.

    Its interval holds for that process. Two different models' ratio scatters from process to
    process (by 0.45 % in `results/reference/trust-spread.csv`), which no time in one process shows.
    """
    return Plan(
        (1,), (1_000_000,), half_width=0.0, limit_s=seconds, confidence=confidence,
        quantity=quantity,
    )  # fmt: skip


def measure(
    open_worker: OpenWorker,
    subjects: Mapping[str, Subject],
    reference: str | None,
    plan: Plan,
    exclusive: Exclusive,
    seed: int = 0,
    more: Sequence[Place] = (),
) -> dict[str, Measurement]:
    """Time models against each other and return what was measured of each.

    Args:
        open_worker: Starts a fresh timing process.
        subjects: By name.
        reference: Name of the model to which ratios are taken; None for none.
        plan: How long to measure.
        exclusive: Gives a context manager that keeps other work off the machine.
        seed: Of the order of models within rounds and sittings.
        more: Other machines of the same kind: processes are shared out among all, in parallel.

    Raises:
        CandidateFailed: If the runtime refuses one model, or dies of it; it says which.
        BackendError: If it failed twice, and no model alone explains it; DeviceLost if its process
            was lost, or could not be started.
        MeasurementError: If the process measures in another quantity than the plan's.
    """
    rng = random.Random(seed)  # noqa: S311 - an order of blocks, no secret
    places = (Place(open_worker, exclusive), *more)
    startups: dict[str, Startup | None] = dict.fromkeys(subjects)
    if plan.startups:
        startups = {
            name: measure_startup(open_worker, name, subject, plan.startups, exclusive)
            for name, subject in subjects.items()
        }
    taken = _take(places, subjects, reference, plan, rng)
    samples = taken.samples
    base = samples[reference] if reference is not None else None
    environment = {"runtime_version": taken.runtime_version, "processes": taken.states}
    found = {}
    for name, subject in subjects.items():
        stats = intervals.summarise(samples[name], base, plan.per_look)
        disagreeing = flag.of_places(
            intervals.decisive_logs(samples[name], base, subject.budget),
            intervals.decisive_logs(samples[name], None, None),
            taken.places,
        )
        flags = taken.flags | disagreeing | _own_flags(subject, stats, samples[name], base, plan)
        found[name] = Measurement(
            stats, startups[name], tuple(sorted(flags)), tuple(samples[name]), environment
        )
    return found


def _take(
    places: Sequence[Place],
    subjects: Mapping[str, Subject],
    reference: str | None,
    plan: Plan,
    rng: random.Random,
) -> _Taken:
    """Run processes until the plan is content."""
    taken, losses = _Taken(subjects), 0
    for n_processes in plan.processes:
        while (missing := n_processes - len(taken.states)) > 0:
            chosen = taken.least_used(places, missing)
            try:
                processes = _run_at_once(chosen, subjects, reference, plan, rng)
            except CandidateFailed:
                raise
            except BackendError:
                for place in chosen:
                    for name, subject in subjects.items():
                        _run_alone(place.open, name, subject, plan.quantity, rng, place.exclusive)
                losses += 1
                if losses > 1:
                    raise
                continue
            for place, process in zip(chosen, processes, strict=True):
                taken.add(place, process)
        if all_settled(subjects, taken.samples, reference, plan):
            break
    return taken


def _run_process(
    open_worker: OpenWorker,
    subjects: Mapping[str, Subject],
    reference: str | None,
    plan: Plan,
    rng: random.Random,
    exclusive: Exclusive,
) -> Process:
    """Run one fresh process from start to end, with the machine to itself."""

    def run() -> Process:
        with exclusive():
            began_s = time.monotonic()
            with open_worker() as worker:
                process = Process(worker, subjects, reference, plan, rng, began_s)
                process.run()
        return process

    return persevere(run)


def _run_alone(
    open_worker: OpenWorker,
    name: str,
    subject: Subject,
    quantity: Quantity,
    rng: random.Random,
    exclusive: Exclusive,
) -> None:
    """Time a model alone for a second, so that a failure can be laid at its door."""
    plan = quick(1.0, quantity=quantity)

    def run() -> None:
        with exclusive(), open_worker() as worker:
            try:
                Process(worker, {name: subject}, None, plan, rng, time.monotonic()).run()
            except (CandidateFailed, ConnectionLost):
                raise
            except BackendError as exc:
                raise CandidateFailed(name, exc) from exc

    persevere(run)


def _run_at_once(
    places: Sequence[Place],
    subjects: Mapping[str, Subject],
    reference: str | None,
    plan: Plan,
    rng: random.Random,
) -> list[Process]:
    """Run one fresh process on each of some machines, at the same time."""

    def run(place: Place, own: random.Random) -> Process:
        return _run_process(place.open, subjects, reference, plan, own, place.exclusive)

    if len(places) == 1:
        return [run(places[0], rng)]
    seeds = [random.Random(rng.random()) for _ in places]  # noqa: S311 - as above
    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(run, places, seeds))


class _Taken:
    """What the processes of a measurement gave; on each machine, all of one start of it."""

    def __init__(self, subjects: Iterable[str]) -> None:
        self._subjects = tuple(subjects)
        self._kept: list[tuple[Place, Process]] = []

    def add(self, place: Place, process: Process) -> None:
        """Take a process; after another start a machine may have other clocks, and begins anew."""
        self._kept = [
            (other, one)
            for other, one in self._kept
            if other is not place or one.boot_id == process.boot_id
        ]
        self._kept.append((place, process))

    def least_used(self, places: Sequence[Place], most: int) -> list[Place]:
        """Return at most so many machines, those with the fewest processes first."""
        used = [place for place, _ in self._kept]
        counts = {id(place): sum(one is place for one in used) for place in places}
        return sorted(places, key=lambda place: counts[id(place)])[:most]

    @property
    def samples(self) -> dict[str, list[LatencySample]]:
        """By subject, one sample per process."""
        taken = [one.samples() for _, one in self._kept]
        return {name: [samples[name] for samples in taken] for name in self._subjects}

    @property
    def places(self) -> list[str]:
        """The machine of each process."""
        return [place.name for place, _ in self._kept]

    @property
    def flags(self) -> set[str]:
        """What any process suffered."""
        return set().union(*(one.flags for _, one in self._kept))

    @property
    def states(self) -> list[dict[str, Any]]:
        """Each process's machine before and after, and which it was where that is known."""
        return [one.states for _, one in self._kept]

    @property
    def runtime_version(self) -> str:
        """As the last process said it."""
        return self._kept[-1][1].runtime_version


def _own_flags(
    subject: Subject,
    stats: LatencyStats,
    samples: Sequence[LatencySample],
    base: Sequence[LatencySample] | None,
    plan: Plan,
) -> set[str]:
    flags = flag.of_samples(samples) | ({"emulated"} if plan.counts else set())
    if base is not None:  # a ratio is as clean as the worse of its two sides
        flags |= flag.of_samples(base) & {"clean_unavailable"}
    flags |= flag.of_series(intervals.decisive_logs(samples, base, subject.budget))
    if len(plan.processes) > 1:
        held = stats.p50 if subject.budget is None else stats.judged(subject.budget)
        flags |= flag.of_precision(held)
    return flags
