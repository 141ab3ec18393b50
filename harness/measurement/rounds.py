"""The engine: sittings of rounds in which every model is timed once, in random order.

A process warms every model up until it is steady. Then sitting follows sitting: fresh sessions,
made in random order, and a few rounds; in a round each model runs a block of calls. What the calls
mean is computed in `intervals`.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.budget import Decision
from harness.errors import (
    BackendError,
    CandidateFailed,
    ConnectionLost,
    DeviceLost,
    MeasurementError,
)
from harness.measurement import flags as flag
from harness.measurement import intervals, series
from harness.measurement.persevering import persevere
from harness.measurement.startup import few_calls, measure_startup
from harness.measurement.types import LatencySample, Measurement, Place, Subject
from harness.quantity import TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from harness.measurement.types import (
        Block,
        LatencyStats,
        OpenWorker,
        Startup,
        TimedSession,
        TimingWorker,
    )
    from harness.quantity import Quantity

    Exclusive = Callable[[], AbstractContextManager[None]]

_BLOCK_S = 0.01
"""Aimed length of a block: long against a call, short against the machine's moods."""
_ROUNDS, _LEAST_SITTINGS = 3, 6
_RELOADING = 1 / 3
"""Aimed upper share of a sitting that making fresh sessions takes."""
_WARM_UP_S, _WARM_UP_LIMIT_S = 0.2, 3.0
_WINDOW = 10
"""Rounds in which warm-up looks for a trend; half as many of a model that takes long."""
_REQUEST_S = 20.0
"""Aimed longest time of one request to a worker."""
_COUNTED, _COUNTED_SITTINGS = 2, 3
"""The fewest calls of a block that are counted, and the fewest sittings, where instructions are:
three sittings give an interval, and counts that repeat to 0.1 % are then known to 0.4 %."""


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
        return _COUNTED_SITTINGS if self.counts else _LEAST_SITTINGS

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
        if _all_settled(subjects, taken.samples, reference, plan):
            break
    return taken


def _run_process(
    open_worker: OpenWorker,
    subjects: Mapping[str, Subject],
    reference: str | None,
    plan: Plan,
    rng: random.Random,
    exclusive: Exclusive,
) -> _Process:
    """Run one fresh process from start to end, with the machine to itself."""

    def run() -> _Process:
        with exclusive():
            began_s = time.monotonic()
            with open_worker() as worker:
                process = _Process(worker, subjects, reference, plan, rng, began_s)
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
                _Process(worker, {name: subject}, None, plan, rng, time.monotonic()).run()
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
) -> list[_Process]:
    """Run one fresh process on each of some machines, at the same time."""

    def run(place: Place, own: random.Random) -> _Process:
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
        self._kept: list[tuple[Place, _Process]] = []

    def add(self, place: Place, process: _Process) -> None:
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


class _Process:
    """One worker's life: load, warm up, sit."""

    def __init__(
        self,
        worker: TimingWorker,
        subjects: Mapping[str, Subject],
        reference: str | None,
        plan: Plan,
        rng: random.Random,
        began_s: float,
    ) -> None:
        told = worker.facts.get("quantity", TIME.name)
        if told != plan.quantity.name:  # neither is ever taken for the other
            raise MeasurementError(
                f"The worker's figures must be {plan.quantity.name}, by the target. It says that "
                f"they are {told}: its backend can't measure on this target."
            )
        self._worker, self._subjects, self._reference = worker, subjects, reference
        self._plan, self._rng = plan, rng
        self._began_s, self._own_s = began_s, 0.0
        self._sessions: dict[str, TimedSession] = {}
        self._blocks: dict[str, list[Block]] = {name: [] for name in subjects}
        self._calls = self._rounds = _ROUNDS
        self.states: dict[str, Any] = {}
        self.flags: set[str] = set()
        self.runtime_version: str = worker.facts["runtime_version"]
        self.boot_id: str | None = worker.facts.get("machine", {}).get("boot_id")

    def run(self) -> None:
        """Load, warm up and run sittings; keep what the machine's state says of it."""
        for name in self._shuffled():
            subject = self._subjects[name]
            with _blamed_on(name):
                self._sessions[name] = self._worker.load(
                    subject.model, subject.inputs, subject.repeat
                )
        steady, round_s = self._warm_up()
        before = self._worker.state()
        self._sit(round_s)
        self.states = {"before": before, "after": self._worker.state()}
        if "where" in self._worker.facts:
            self.states["where"] = self._worker.facts["where"]
        # Counts don't depend on the state of the machine that emulates.
        seen = set() if self._plan.counts else flag.of_states(before, self.states["after"])
        self.flags = seen | (set() if steady else {"no_steady_state"})

    def samples(self) -> dict[str, LatencySample]:
        """Return what was timed after the warm-up."""
        return {
            name: LatencySample.from_blocks(blocks, self._rounds, self._plan.quantity)
            for name, blocks in self._blocks.items()
        }

    def _sit(self, round_s: float) -> None:
        done = 0
        for upto in self._plan.sittings:
            while done < upto:
                began_s = self._spent_s()
                if began_s >= self._plan.limit_s and self._suffices(done):
                    return
                reload_s = self._fresh_sessions()
                if done == 0 and not self._plan.counts:
                    self._rounds = _rounds_per_sitting(
                        reload_s, round_s, (self._plan.limit_s - began_s) / _LEAST_SITTINGS
                    )
                self._run_rounds(self._rounds, self._calls, self._blocks)
                done += 1
            # Several processes are looked at together, when all of them have run.
            one = {name: [sample] for name, sample in self.samples().items()}
            if len(self._plan.processes) == 1 and _all_settled(
                self._subjects, one, self._reference, self._plan
            ):
                return

    def _suffices(self, sittings: int) -> bool:
        """Whether an interval can be made: enough sittings, and calls for what the budgets ask."""
        taken = sittings * self._rounds * (self._calls - 1) * self._plan.processes[0]
        return sittings >= self._plan.least_sittings and taken >= self._calls_asked()

    def _calls_asked(self) -> int:
        """Return how many calls of a model its p50 and the budgets' statistics need."""
        asked = {s.budget.statistic for s in self._subjects.values() if s.budget is not None}
        return max(intervals.least_calls(intervals.QUANTILES[name]) for name in asked | {"p50"})

    def _fresh_sessions(self) -> float:
        """Make every session anew and let it settle; return how long that took, seconds.

        Where a session lies in memory makes it faster or slower than its twin by up to a per cent:
        fresh ones in random order turn that from a bias into noise that the interval covers.
        """
        began = self._spent_s()
        for name in self._shuffled():
            with _blamed_on(name):
                self._worker.reload(self._sessions[name])
            self._own_s += self._sessions[name].session_create_s
        if not self._plan.counts:  # there a block's first call, not counted, is enough
            for name in self._shuffled():
                self._time([(name, few_calls(self._sessions[name]))])
        return self._spent_s() - began

    def _warm_up(self) -> tuple[bool, float]:
        """Run until steady; set calls per block; return whether steady, and seconds per round."""
        if self._plan.counts:
            self._rounds, self._calls = 1, 1 + self._calls_to_count()
            return True, 0.0
        taken: dict[str, list[Block]] = {name: [] for name in self._sessions}
        self._run_rounds(2, 3, taken)
        typical_s = {n: float(np.median(b[-1].wall_ns[1:])) * 1e-9 for n, b in taken.items()}
        self._calls = 1 + int(np.clip(round(_BLOCK_S / max(typical_s.values())), 2, 100))
        for name, call_s in typical_s.items():
            # Beside a slow model, a fast one hardly runs in these rounds: it is run alone as well.
            missing_s = _WARM_UP_S - _WINDOW * self._calls * call_s
            if missing_s > 0:
                self._time([(name, int(np.ceil(missing_s / call_s)))])
        taken = {name: [] for name in self._sessions}
        while True:
            self._run_rounds(_WINDOW // 2, self._calls, taken)
            # The models' own time, not the clock's: what warms a model up is running it.
            own_s = [sum(float(b.wall_ns.sum()) for b in bs) * 1e-9 for bs in taken.values()]
            steady = not any(_drifts(blocks) for blocks in taken.values())
            seen = len(next(iter(taken.values()))) >= _WINDOW
            if (steady and seen) or max(own_s) > _WARM_UP_LIMIT_S:
                return steady, sum(typical_s.values()) * self._calls

    def _calls_to_count(self) -> int:
        """Return how many calls of a block to count, so that all blocks have as many as asked."""
        blocks = self._plan.processes[0] * min(self._plan.sittings[0], self._plan.least_sittings)
        return max(_COUNTED, -(-self._calls_asked() // blocks))

    def _run_rounds(self, rounds: int, calls: int, into: dict[str, list[Block]]) -> None:
        # Slow models get a request per few rounds: a worker that is silent for long looks dead.
        slowest_s = max(session.first_inference_s for session in self._sessions.values())
        step = max(1, int(_REQUEST_S / (slowest_s * calls * len(self._sessions))))
        for done in range(0, rounds, step):
            order = [n for _ in range(min(step, rounds - done)) for n in self._shuffled()]
            timed = self._time([(name, calls) for name in order])
            for name, block in zip(order, timed, strict=True):
                into[name].append(block)

    def _time(self, schedule: Sequence[tuple[str, int]]) -> list[Block]:
        blocks = self._worker.time([(self._sessions[name], calls) for name, calls in schedule])
        if not self._plan.counts:
            self._own_s += sum(float(block.wall_ns.sum()) for block in blocks) * 1e-9
        return blocks

    def _shuffled(self) -> list[str]:
        return self._rng.sample(list(self._subjects), len(self._subjects))

    def _spent_s(self) -> float:
        # A made-up clock runs ahead of the real one.
        return max(self._own_s, time.monotonic() - self._began_s)


@contextmanager
def _blamed_on(name: str) -> Iterator[None]:
    """Say which model a runtime refused; a lost process may have other causes."""
    try:
        yield
    except (DeviceLost, ConnectionLost):
        raise
    except BackendError as exc:
        raise CandidateFailed(name, exc) from exc


def _rounds_per_sitting(reload_s: float, round_s: float, limit_s: float) -> int:
    """Return how many rounds make a sitting: enough to be worth the fresh sessions."""
    worth = max(_ROUNDS, int(np.ceil(reload_s * (1 / _RELOADING - 1) / round_s)))
    return max(1, min(worth, int((limit_s - reload_s) / round_s)))


def _drifts(blocks: Sequence[Block]) -> bool:
    sample = LatencySample.from_blocks(blocks[-_WINDOW:], 1)
    return series.has_trend(intervals.round_log_medians(intervals.per_call(sample)))


def _all_settled(
    subjects: Mapping[str, Subject],
    samples: Mapping[str, Sequence[LatencySample]],
    reference: str | None,
    plan: Plan,
) -> bool:
    """Whether no subject needs more: each is precise, and on one side of its budget.

    The reference is what the others are held against: a probe asks nothing of it, a final only
    that it isn't flagged.
    """
    base = samples[reference] if reference is not None else None
    probing = len(plan.processes) == 1
    for name, subject in subjects.items():
        is_reference = name == reference and len(subjects) > 1
        if probing and is_reference:
            continue
        limit = flag.FINAL_HALF_WIDTH if is_reference else plan.half_width
        estimate = intervals.judged(samples[name], base, subject.budget, plan.per_look)
        if estimate is None or estimate.half_width > limit:
            return False
        undecided = subject.budget and subject.budget.place(estimate) is Decision.UNDECIDED
        if undecided and not is_reference:
            return False
    return True


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
