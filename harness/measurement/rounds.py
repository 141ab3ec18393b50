"""The engine: rounds in which every model is timed once, in random order, in one process."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.budget import Decision
from harness.measurement import flags as flag
from harness.measurement import statistics
from harness.measurement.summary import Run, judged, judged_series, summarise
from harness.measurement.types import LatencySample, Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from harness.budget import Budget
    from harness.candidate import OnnxModel
    from harness.measurement.types import (
        Block,
        LatencyStats,
        OpenWorker,
        TimedSession,
        TimingWorker,
    )

_BLOCK_S = 0.01
"""Aimed length of a block: long against a call, short against the machine's moods."""
_WARM_UP_S, _WARM_UP_CALLS, _WARM_UP_LIMIT_S = 0.2, 10, 3.0
_REQUEST_S = 20.0
"""Aimed longest time of one request to a worker."""
_LEAST_ROUNDS = 10
_WINDOW = 10
"""Rounds in which warm-up looks for a trend."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    Attributes:
        processes: Numbers of fresh processes after which to look, ascending.
        rounds: Numbers of rounds in each process after which to look, ascending.
        half_width: Stop once the relative half-width of the judged estimate is this small.
        limit_s: A process gets no more rounds than fit in this, seconds, but ten at least.
    """

    processes: tuple[int, ...]
    rounds: tuple[int, ...]
    half_width: float
    limit_s: float = 20.0

    @property
    def confidence(self) -> float:
        """Confidence of each interval, so that all looks together keep 95 %."""
        return statistics.per_look_confidence(len(self.processes) * len(self.rounds))


PROBE = Plan(processes=(1,), rounds=(10, 20, 40, 80), half_width=0.03)
"""One process, interval over rounds: steers the search."""
FINAL = Plan(processes=(5, 6, 8, 10), rounds=(30,), half_width=0.01)
"""Five fresh processes and up to ten, interval over processes: what is reported."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to time, and what to feed it.

    Attributes:
        model: The file.
        inputs: One batch per input name.
        budget: What its latency is held against; None measures to the plan's precision only.
    """

    model: OnnxModel
    inputs: Mapping[str, NDArray[Any]]
    budget: Budget | None = None


def measure(
    open_worker: OpenWorker,
    subjects: Mapping[str, Subject],
    reference: str | None,
    plan: Plan,
    exclusive: Callable[[], AbstractContextManager[None]],
    seed: int = 0,
) -> dict[str, Measurement]:
    """Time models against each other and return what was measured of each.

    Args:
        open_worker: Starts a fresh timing process.
        subjects: By name.
        reference: Name of the dense model, to which ratios are taken; None for none.
        plan: How long to measure.
        exclusive: Gives a context manager that keeps other work off the machine.
        seed: Of the order of models within rounds.

    Raises:
        BackendError: If the runtime fails on a model, or its process dies.
    """
    rng = random.Random(seed)  # noqa: S311 - an order of blocks, no secret
    runs: dict[str, list[Run]] = {name: [] for name in subjects}
    suffered: set[str] = set()
    environment: dict[str, Any] = {}
    for n_processes in plan.processes:
        while min(len(done) for done in runs.values()) < n_processes:
            with exclusive(), open_worker() as worker:
                flags, environment = _one_process(worker, subjects, reference, plan, rng, runs)
                suffered |= flags
        if _all_settled(subjects, runs, reference, plan):
            break
    base = runs[reference] if reference is not None else None
    stats = {name: summarise(own, base, plan.confidence) for name, own in runs.items()}
    return {
        name: Measurement(
            stats[name],
            tuple(sorted(suffered | _own_flags(subject, stats[name], runs[name], base, plan))),
            tuple(run.sample for run in runs[name]),
            environment,
        )
        for name, subject in subjects.items()
    }


def _one_process(
    worker: TimingWorker,
    subjects: Mapping[str, Subject],
    reference: str | None,
    plan: Plan,
    rng: random.Random,
    runs: dict[str, list[Run]],
) -> tuple[set[str], dict[str, Any]]:
    """Run one process's rounds and add them to `runs`."""
    sessions = {name: worker.load(s.model, s.inputs) for name, s in subjects.items()}
    calls, steady, round_s = _warm_up(worker, sessions, rng)
    affordable = max(_LEAST_ROUNDS, int(plan.limit_s / round_s))
    before = worker.state()
    blocks: dict[str, list[Block]] = {name: [] for name in sessions}
    done = 0
    for upto in plan.rounds:
        rounds = min(upto, affordable) - done
        if rounds <= 0:
            break
        _run_rounds(worker, sessions, rounds, calls, rng, blocks)
        done += rounds
        if len(plan.processes) == 1:
            sampled = {name: [_run(sessions[name], taken)] for name, taken in blocks.items()}
            if _all_settled(subjects, sampled, reference, plan):
                break
    after = worker.state()
    for name, taken in blocks.items():
        runs[name].append(_run(sessions[name], taken))
    flags = flag.of_states(before, after) | (set() if steady else {"no_steady_state"})
    version = worker.facts["runtime_version"]
    return flags, {"runtime_version": version, "before": before, "after": after}


def _run(session: TimedSession, blocks: Sequence[Block]) -> Run:
    return Run(session, LatencySample.from_blocks(blocks))


def _warm_up(
    worker: TimingWorker, sessions: Mapping[str, TimedSession], rng: random.Random
) -> tuple[int, bool, float]:
    """Run until steady; return calls per block, whether it got steady, and seconds per round."""
    taken: dict[str, list[Block]] = {name: [] for name in sessions}
    calls = 3
    _run_rounds(worker, sessions, 2, calls, rng, taken)
    slowest_s = max(float(np.median(b[-1].wall_ns[1:])) * 1e-9 for b in taken.values())
    calls = 1 + int(np.clip(round(_BLOCK_S / slowest_s), 2, 100))
    taken = {name: [] for name in sessions}
    while True:
        _run_rounds(worker, sessions, _WINDOW // 2, calls, rng, taken)
        rounds = len(next(iter(taken.values())))
        # The models' own time, not the clock's: what warms a model up is running it.
        busiest_s = max(sum(float(b.wall_ns.sum()) for b in bs) * 1e-9 for bs in taken.values())
        least_s = min(sum(float(b.wall_ns.sum()) for b in bs) * 1e-9 for bs in taken.values())
        warm = least_s >= _WARM_UP_S and rounds * calls >= _WARM_UP_CALLS
        steady = rounds >= _WINDOW and not any(_drifts(blocks) for blocks in taken.values())
        if (warm and steady) or busiest_s > _WARM_UP_LIMIT_S:
            typical_s = sum(float(np.median(b[-1].wall_ns)) * 1e-9 for b in taken.values())
            return calls, steady, typical_s * calls


def _drifts(blocks: Sequence[Block]) -> bool:
    sample = LatencySample.from_blocks(blocks[-_WINDOW:])
    return statistics.has_trend(statistics.round_log_medians(sample.raw_s()))


def _run_rounds(
    worker: TimingWorker,
    sessions: Mapping[str, TimedSession],
    rounds: int,
    calls: int,
    rng: random.Random,
    into: dict[str, list[Block]],
) -> None:
    # Slow models get a request per few rounds: a worker that is silent for long looks dead.
    slowest_s = max(session.first_inference_s for session in sessions.values())
    step = max(1, int(_REQUEST_S / (slowest_s * calls * len(sessions))))
    for done in range(0, rounds, step):
        order: list[str] = []
        for _ in range(min(step, rounds - done)):
            order += rng.sample(list(sessions), len(sessions))
        timed = worker.time([(sessions[name], calls) for name in order])
        for name, block in zip(order, timed, strict=True):
            into[name].append(block)


def _all_settled(
    subjects: Mapping[str, Subject],
    runs: Mapping[str, Sequence[Run]],
    reference: str | None,
    plan: Plan,
) -> bool:
    """Whether no subject needs more: each is precise, and on one side of its budget.

    The reference is what the others are held against: a probe asks nothing of it, a final only
    that it isn't flagged.
    """
    base = runs[reference] if reference is not None else None
    probing = len(plan.processes) == 1
    for name, subject in subjects.items():
        is_reference = name == reference and len(subjects) > 1
        if probing and is_reference:
            continue
        limit = flag.FINAL_HALF_WIDTH if is_reference else plan.half_width
        estimate = judged(runs[name], base, subject.budget, plan.confidence)
        if estimate is None or estimate.half_width > limit:
            return False
        if subject.budget is not None and subject.budget.place(estimate) is Decision.UNDECIDED:
            return False
    return True


def _own_flags(
    subject: Subject,
    stats: LatencyStats,
    runs: Sequence[Run],
    base: Sequence[Run] | None,
    plan: Plan,
) -> set[str]:
    flags = flag.of_samples([run.sample for run in runs])
    if base is not None:  # a ratio is as clean as the worse of its two sides
        flags |= flag.of_samples([run.sample for run in base]) & {"clean_unavailable"}
    if statistics.is_autocorrelated(judged_series(runs, base, subject.budget)):
        flags.add("autocorrelated")
    if len(plan.processes) > 1:
        held = stats.p50 if subject.budget is None else stats.judged(subject.budget)
        flags |= flag.of_precision(held)
    return flags
