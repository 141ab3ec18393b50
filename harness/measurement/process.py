"""One process of a measurement: it warms every model up, and then holds sittings.

Sitting follows sitting: fresh sessions, made in random order, and a few rounds; in a round each
model runs a block of calls.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
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
from harness.measurement.startup import few_calls
from harness.measurement.types import LatencySample
from harness.quantity import TIME

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping, Sequence

    from harness.measurement.rounds import Plan
    from harness.measurement.types import Block, Subject, TimedSession, TimingWorker

_BLOCK_S = 0.01
"""Aimed length of a block: long against a call, short against the machine's moods."""
_ROUNDS, LEAST_SITTINGS = 3, 6
_RELOADING = 1 / 3
"""Aimed upper share of a sitting that making fresh sessions takes."""
_WARM_UP_S, _WARM_UP_LIMIT_S = 0.2, 3.0
_WINDOW = 10
"""Rounds in which warm-up looks for a trend; half as many of a model that takes long."""
_REQUEST_S = 20.0
"""Aimed longest time of one request to a worker."""
_COUNTED, COUNTED_SITTINGS = 2, 3
"""The fewest calls of a block that are counted, and the fewest sittings, where instructions are:
three sittings give an interval, and counts that repeat to 0.1 % are then known to 0.4 %."""


class Process:
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
                        reload_s, round_s, (self._plan.limit_s - began_s) / LEAST_SITTINGS
                    )
                self._run_rounds(self._rounds, self._calls, self._blocks)
                done += 1
            # Several processes are looked at together, when all of them have run.
            one = {name: [sample] for name, sample in self.samples().items()}
            if len(self._plan.processes) == 1 and all_settled(
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


def all_settled(
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
