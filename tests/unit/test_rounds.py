from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.budget import parse_budget
from harness.candidate import OnnxModel
from harness.errors import (
    BackendError,
    CandidateFailed,
    ConnectionLost,
    DeviceLost,
    DeviceUnreachable,
)
from harness.measurement.rounds import FINAL, PROBE, Plan, measure, quick
from harness.measurement.types import Block, Measurement, Place, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MS = 1_000_000
DENSE_NS = 200_000.0
QUIET = {"governor": "performance", "max_khz": 1, "throttle_count": 0}
TIMED = replace(FINAL, startups=0)
"""A final without start-up times."""
LONG = Plan(processes=(1,), sittings=(48,), half_width=0.0)
"""48 sittings, whatever comes."""


def no_fault(op: str, names: set[str], loaded: set[str]) -> None:
    """Let everything work."""


@dataclass
class Machine:
    """Times models by formula; remembers what was asked of it.

    `fault` is called before each load, reload and time, with the names of the models that it is
    about and of those that are loaded; it may raise.
    """

    latency_ns: Mapping[str, float]
    block_noise: float = 0.001
    session_noise: float = 0.0
    process_noise: float = 0.0
    fresh_luck: bool = True
    mood: Callable[[int], float] = lambda _: 1.0
    switch_cost: float = 1.0
    create_s: float = 0.001
    states: Sequence[Mapping[str, Any]] = (QUIET, QUIET)
    fault: Callable[[str, set[str], set[str]], None] = no_fault
    seed: int = 1
    events: list[str] = field(default_factory=list)
    order: list[tuple[str, int]] = field(default_factory=list)
    clock_s: float = 0.0
    boot_id: str | None = None
    place: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        self.events.append("lock")
        try:
            yield
        finally:
            self.events.append("unlock")

    @contextmanager
    def open(self) -> Iterator[Worker]:
        self.fault("open", set(), set())
        self.events.append("open")
        try:
            yield Worker(self)
        finally:
            self.events.append("close")

    @property
    def processes(self) -> int:
        return self.events.count("open")

    @property
    def reloads(self) -> list[str]:
        return [event.split()[1] for event in self.events if event.startswith("reload")]

    def luck(self, spread: float) -> float:
        return float(np.exp(spread * self.rng.normal()))


class Worker:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.facts = {
            "runtime_version": "7", "machine": {"boot_id": machine.boot_id},
            **machine.place,
        }  # fmt: skip
        self.own = {name: machine.luck(machine.process_noise) for name in machine.latency_ns}
        self.states = iter(machine.states)
        self.loaded: set[str] = set()

    def load(self, model: OnnxModel, inputs: Mapping[str, Any], repeat: int = 1) -> Any:
        name = model.path.name
        self.machine.fault("load", {name}, self.loaded)
        self.loaded.add(name)
        self.machine.events.append(f"load {name}")
        return SimpleNamespace(
            name=name, luck=self.machine.luck(self.machine.session_noise), repeat=repeat,
            session_create_s=self.machine.create_s, first_inference_s=0.002,
        )  # fmt: skip

    def reload(self, session: Any) -> None:
        self.machine.fault("reload", {session.name}, self.loaded)
        self.machine.events.append(f"reload {session.name}")
        self.machine.clock_s += session.session_create_s
        if self.machine.fresh_luck:
            session.luck = self.machine.luck(self.machine.session_noise)

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        machine, blocks = self.machine, []
        machine.fault("time", {session.name for session, _ in schedule}, self.loaded)
        for session, calls in schedule:
            turn = len(machine.order) // len(machine.latency_ns)
            ns = machine.latency_ns[session.name] * self.own[session.name] * session.repeat
            ns *= session.luck * machine.luck(machine.block_noise) * machine.mood(turn)
            wall = np.full(calls, round(ns), np.int64)
            wall[0] = round(wall[0] * machine.switch_cost)
            machine.clock_s += float(wall.sum()) * 1e-9
            machine.order.append((session.name, calls))
            blocks.append(Block(wall, wall, np.zeros(calls, np.int64)))
        return blocks

    def arrive(self, session: Any, due_ns: Any) -> Any:
        raise AssertionError("nothing arrives while models are timed against each other")

    def peak_memory_bytes(self) -> int | None:
        return 2**20

    def state(self) -> dict[str, Any]:
        return dict(next(self.states))


def timed(
    machine: Machine,
    budget: str | None = "50%",
    plan: Plan = PROBE,
    seed: int = 0,
    repeat: Mapping[str, int] | None = None,
    more: Sequence[Machine] = (),
) -> dict[str, Measurement]:
    limit = None if budget is None else parse_budget(budget)
    subjects = {
        name: Subject(OnnxModel(Path(name), "", 1, 17), {}, limit, (repeat or {}).get(name, 1))
        for name in machine.latency_ns
    }
    reference = "dense" if "dense" in subjects else None
    places = [Place(one.open, one.exclusive, f"board {i}") for i, one in enumerate(more, 2)]
    return measure(machine.open, subjects, reference, plan, machine.exclusive, seed, places)


def pair(share: float = 0.4, **more: Any) -> Machine:
    return Machine({"dense": DENSE_NS, "small": share * DENSE_NS}, **more)


def test_the_ratio_to_the_dense_model_is_found() -> None:
    measured = timed(pair(0.4))
    ratio = measured["small"].stats.ratio("p50")
    assert ratio.lo <= 0.4 <= ratio.hi
    assert ratio.half_width < 0.01
    assert measured["dense"].stats.ratio("p50").value == 1.0
    assert measured["small"].flags == ()
    assert measured["small"].startup is None


def test_a_planted_slow_down_is_found() -> None:
    ratio = timed(pair(0.1), repeat={"small": 3})["small"].stats.ratio("p50")
    assert ratio.lo <= 0.3 <= ratio.hi


def test_every_round_times_every_model_once_in_changing_order() -> None:
    machine = Machine({"dense": DENSE_NS, "a": DENSE_NS, "b": DENSE_NS})
    timed(machine, None)
    names = [name for name, _ in machine.order]
    taken = [tuple(names[i : i + 3]) for i in range(0, len(names), 3)]
    assert all(sorted(one) == ["a", "b", "dense"] for one in taken)
    assert len(set(taken)) > 1


def test_a_seed_fixes_the_order() -> None:
    one, same, other = pair(), pair(), pair()
    timed(one, seed=1)
    timed(same, seed=1)
    timed(other, seed=2)
    assert (one.order, one.events) == (same.order, same.events)
    assert one.order != other.order
    assert one.events != other.events


def test_moods_of_the_machine_cancel_in_the_ratio() -> None:
    rng = np.random.default_rng(5)
    moods = np.exp(rng.normal(0.0, 0.2, 5000))
    stats = timed(pair(0.4, mood=lambda turn: float(moods[turn])))["small"].stats
    assert stats.ratio("p50").half_width < 0.01 < stats.p50.half_width
    assert abs(stats.ratio("p50").value - 0.4) < 0.004


def test_the_call_that_pays_for_switching_models_is_left_out() -> None:
    machine = pair(switch_cost=5.0)
    stats = timed(machine)["dense"].stats
    calls = machine.order[-1][1]
    assert stats.p90_raw is not None
    assert stats.p90_raw < 2 * DENSE_NS * 1e-9
    assert stats.n_calls == stats.n_rounds * (calls - 1)


@pytest.mark.parametrize(("latency_ms", "calls"), [(1.0, 11), (0.01, 101), (500.0, 3)])
def test_a_block_lasts_about_ten_milliseconds(latency_ms: float, calls: int) -> None:
    machine = Machine({"dense": latency_ms * MS})
    timed(machine, None)
    assert machine.order[-1] == ("dense", calls)


# Sittings.


def test_every_sitting_begins_with_fresh_sessions_in_changing_order() -> None:
    machine = Machine({"dense": DENSE_NS, "a": DENSE_NS, "b": DENSE_NS})
    stats = timed(machine, None, LONG)["a"].stats
    assert stats.n_sittings == 48
    taken = [tuple(machine.reloads[i : i + 3]) for i in range(0, 3 * 48, 3)]
    assert len(machine.reloads) == 3 * 48
    assert all(sorted(one) == ["a", "b", "dense"] for one in taken)
    assert len(set(taken)) == 6


def test_a_fresh_session_settles_before_it_counts() -> None:
    machine = pair()
    measured = timed(machine, None, Plan((1,), (6,), 0.0))
    settling = [calls for _, calls in machine.order if calls == 4]
    assert len(settling) == 2 * 6
    for measurement in measured.values():
        (sample,) = measurement.samples
        assert sample.wall_ns.shape == (measurement.stats.n_rounds, machine.order[-1][1])
        assert [len(rounds) for rounds in sample.sittings()] == [3] * 6


def test_a_sitting_grows_where_fresh_sessions_cost_much() -> None:
    def rounds_per_sitting(create_s: float) -> float:
        stats = timed(pair(create_s=create_s), None, LONG)["small"].stats
        return stats.n_rounds / stats.n_sittings

    cheap, dear, dearest = (rounds_per_sitting(create_s) for create_s in (1e-4, 0.1, 30.0))
    assert cheap == 3
    assert dear > 3
    assert dearest == 1  # six sittings don't fit the limit at all


def test_fresh_sessions_take_no_more_than_a_third_of_the_time() -> None:
    machine = pair(create_s=0.1)
    timed(machine, None, replace(LONG, limit_s=60.0))
    assert len(machine.reloads) * 0.1 < 0.4 * machine.clock_s


def test_identical_models_are_not_called_different_by_their_sessions_luck() -> None:
    def called_different(fresh_luck: bool) -> float:
        wrong = 0
        for seed in range(60):
            # Slow models have few calls, and so no p90 that would take long to compute.
            slow = {"dense": 40.0 * MS, "small": 40.0 * MS}
            machine = Machine(slow, session_noise=0.01, fresh_luck=fresh_luck, seed=5000 + seed)
            ratio = timed(machine, None, Plan((1,), (8,), 0.0), seed)["small"].stats.ratio("p50")
            wrong += not ratio.lo <= 1.0 <= ratio.hi
        return wrong / 60

    assert called_different(fresh_luck=True) < 0.12
    assert called_different(fresh_luck=False) > 0.5


# How long.


def test_a_clear_case_stops_at_the_first_look() -> None:
    stats = timed(pair(0.4))["small"].stats
    assert stats.n_sittings == PROBE.sittings[0]
    assert stats.n_rounds == 3 * stats.n_sittings


def test_an_imprecise_case_goes_on_to_the_last_look() -> None:
    assert timed(pair(0.4, block_noise=0.4))["small"].stats.n_sittings == PROBE.sittings[-1]


def test_an_undecided_case_goes_on_though_it_is_precise() -> None:
    stats = timed(pair(0.5, block_noise=0.004))["small"].stats
    assert stats.n_sittings == PROBE.sittings[-1]
    assert stats.ratio("p50").half_width < PROBE.half_width


def test_a_dense_model_at_the_edge_of_the_budget_does_not_hold_up_a_probe() -> None:
    stats = timed(pair(0.4, block_noise=0.004), "0.2ms")
    assert stats["small"].stats.n_sittings == PROBE.sittings[0]
    dense = stats["dense"].stats.p90
    assert dense is not None
    assert abs(dense.value / 0.2e-3 - 1) < 0.02


def test_a_slow_model_gets_no_more_than_six_sittings_of_one_round() -> None:
    machine = Machine({"dense": 2000 * MS, "small": 1000 * MS}, block_noise=0.4)
    stats = timed(machine)["small"].stats
    assert (stats.n_sittings, stats.n_rounds) == (6, 6)


@pytest.mark.parametrize("plan", [PROBE, TIMED], ids=["probe", "final"])
@pytest.mark.parametrize("latency_ms", [50.0, 100.0, 2000.0])
def test_a_slow_model_gets_the_calls_that_its_budgets_statistic_needs(
    latency_ms: float, plan: Plan
) -> None:
    machine = Machine({"dense": latency_ms * MS, "small": 0.5 * latency_ms * MS})
    stats = timed(machine, f"{0.8 * latency_ms}ms", plan)["small"].stats
    assert stats.p90 is not None
    assert stats.n_calls >= 64


@pytest.mark.parametrize("seconds", [2.0, 10.0])
@pytest.mark.parametrize("latency_ms", [0.2, 20.0])
def test_a_quick_measurement_ends_near_its_limit(seconds: float, latency_ms: float) -> None:
    machine = Machine({"dense": latency_ms * MS, "small": 0.5 * latency_ms * MS})
    stats = timed(machine, None, quick(seconds))["small"].stats
    assert stats.n_sittings >= 6
    assert 0.9 * seconds < machine.clock_s < 1.3 * seconds
    assert stats.n_processes == 1


def test_a_quick_measurement_of_a_slow_model_has_six_sittings_though_it_is_late() -> None:
    machine = Machine({"dense": 1000 * MS})
    stats = timed(machine, None, quick(1.0))["dense"].stats
    assert (stats.n_sittings, stats.n_rounds) == (6, 6)


def test_a_quick_measurement_keeps_its_confidence() -> None:
    assert quick(1.0).per_look == 0.95
    assert quick(1.0, 0.99).per_look == 0.99
    half = [timed(pair(), None, quick(1.0, c))["small"].stats.p50.half_width for c in (0.8, 0.99)]
    assert half[0] < half[1]


def test_a_probe_is_one_process_and_a_final_five_fresh_ones() -> None:
    probe, final = pair(), pair()
    timed(probe)
    measured = timed(final, plan=TIMED)
    assert probe.processes == 1
    assert final.processes == 5
    assert measured["small"].stats.n_processes == 5
    assert len(measured["small"].samples) == 5
    assert measured["small"].stats.n_sittings == 50
    assert measured["small"].flags == ()


def test_a_final_whose_processes_disagree_takes_ten_and_is_flagged() -> None:
    machine = pair(0.4, process_noise=0.2)
    measured = timed(machine, plan=TIMED)
    assert machine.processes == 10
    assert "precision_not_reached" in measured["small"].flags


def test_all_looks_together_keep_ninety_five_per_cent() -> None:
    assert PROBE.per_look == FINAL.per_look == 0.9875
    assert Plan(processes=(1,), sittings=(10,), half_width=0.1).per_look == 0.95
    assert Plan((2, 3), (6, 9), half_width=0.1, confidence=0.8).per_look == pytest.approx(0.95)


def test_timing_has_the_machine_alone_and_frees_it_between_processes() -> None:
    machine = pair()
    timed(machine, plan=TIMED)
    held = [event for event in machine.events if event in ("lock", "open", "close", "unlock")]
    assert held == ["lock", "open", "close", "unlock"] * 5


# Start-up.


def test_a_final_starts_every_model_alone_three_times_before_it_times() -> None:
    machine = pair()
    measured = timed(machine, plan=FINAL)
    held = ["lock", "open", "close", "unlock"]
    assert [e for e in machine.events if e in held] == held * (3 * 2 + 5)
    loads = [event for event in machine.events if event.startswith("load")]
    assert loads[:6] == ["load dense"] * 3 + ["load small"] * 3
    for measurement in measured.values():
        assert measurement.startup is not None
        assert measurement.startup.n_processes == 3
        assert measurement.startup.session_create_s.median == 0.001
        assert measurement.stats.n_processes == 5


# What fails.


def dies_of(name: str, at: str) -> Callable[[str, set[str], set[str]], None]:
    def fault(op: str, names: set[str], loaded: set[str]) -> None:
        if op == at and name in names:
            raise DeviceLost(f"killed by {name}")

    return fault


def lost_together(times: int, at: str = "time") -> Callable[[str, set[str], set[str]], None]:
    """Lose a process that holds several models, the first times."""
    left = itertools.count(times, -1)

    def fault(op: str, names: set[str], loaded: set[str]) -> None:
        if op == at and len(loaded) > 1 and next(left) > 0:
            raise DeviceLost("the neighbour took all memory")

    return fault


def is_tidy(machine: Machine) -> bool:
    return all(
        machine.events.count(begin) == machine.events.count(end)
        for begin, end in (("lock", "unlock"), ("open", "close"))
    )


@pytest.mark.parametrize("plan", [PROBE, TIMED, FINAL], ids=["probe", "timed", "final"])
@pytest.mark.parametrize("name", ["dense", "small"])
def test_a_model_that_the_runtime_refuses_is_named(name: str, plan: Plan) -> None:
    def fault(op: str, names: set[str], loaded: set[str]) -> None:
        if op == "load" and name in names:
            raise BackendError(f"no kernel for {name}")

    machine = pair(fault=fault)
    with pytest.raises(CandidateFailed, match=f"no kernel for {name}") as caught:
        timed(machine, plan=plan)
    assert caught.value.subject == name
    assert machine.order == [] or plan.startups  # nothing is timed together
    assert is_tidy(machine)


@pytest.mark.parametrize("plan", [PROBE, TIMED, FINAL], ids=["probe", "timed", "final"])
@pytest.mark.parametrize("at", ["load", "time"])
@pytest.mark.parametrize("name", ["dense", "small"])
def test_a_model_that_kills_the_process_is_found_alone_and_named(
    name: str, at: str, plan: Plan
) -> None:
    machine = pair(fault=dies_of(name, at))
    with pytest.raises(CandidateFailed, match=f"killed by {name}") as caught:
        timed(machine, plan=plan)
    assert caught.value.subject == name
    assert isinstance(caught.value.__cause__, DeviceLost)
    assert machine.processes <= 3 + 3
    assert is_tidy(machine)


@pytest.mark.parametrize("plan", [PROBE, TIMED], ids=["probe", "final"])
@pytest.mark.parametrize("at", ["time", "reload"])
def test_a_process_that_is_lost_once_without_a_culprit_is_repeated(at: str, plan: Plan) -> None:
    machine = pair(fault=lost_together(1, at))
    measured = timed(machine, plan=plan)
    stats = measured["small"].stats
    wanted = plan.processes[0]
    assert stats.n_processes == wanted
    assert len(measured["small"].samples) == wanted
    assert len(measured["small"].environment["processes"]) == wanted
    assert machine.processes == wanted + 1 + 2  # the lost one, and each model alone
    assert abs(stats.ratio("p50").value - 0.4) < 0.01
    assert measured["small"].flags == ()
    assert measured["small"].startup is None  # it was started alone only to find the culprit
    assert is_tidy(machine)


def test_what_was_timed_before_a_process_was_lost_is_kept() -> None:
    def fault(op: str, names: set[str], loaded: set[str]) -> None:
        if op == "time" and len(loaded) > 1 and machine.processes == 4:
            raise DeviceLost("gone")

    machine = pair(fault=fault)
    measured = timed(machine, plan=TIMED)
    assert measured["small"].stats.n_processes == 5
    assert machine.processes == 5 + 1 + 2


@pytest.mark.parametrize("plan", [PROBE, TIMED, FINAL], ids=["probe", "timed", "final"])
def test_a_process_that_is_lost_twice_without_a_culprit_is_a_lost_device(plan: Plan) -> None:
    machine = pair(fault=lost_together(2))
    with pytest.raises(DeviceLost, match="the neighbour took all memory"):
        timed(machine, plan=plan)
    assert is_tidy(machine)


def test_a_model_that_fails_when_it_is_made_anew_is_named() -> None:
    def fault(op: str, names: set[str], loaded: set[str]) -> None:
        if op == "reload" and "small" in names:
            raise BackendError("MemoryError: std::bad_alloc")

    machine = pair(fault=fault)
    with pytest.raises(CandidateFailed, match="bad_alloc") as caught:
        timed(machine)
    assert caught.value.subject == "small"
    assert is_tidy(machine)


def test_a_model_that_dies_of_being_made_anew_is_found_alone() -> None:
    machine = pair(fault=dies_of("small", "reload"))
    with pytest.raises(CandidateFailed, match="killed by small") as caught:
        timed(machine)
    assert caught.value.subject == "small"


def test_a_refusal_while_timing_is_laid_at_the_door_of_the_model_that_refuses_alone() -> None:
    def fault(op: str, names: set[str], loaded: set[str]) -> None:
        if op == "time" and "small" in names:
            raise BackendError("no memory")

    with pytest.raises(CandidateFailed, match="no memory") as caught:
        timed(pair(fault=fault))
    assert caught.value.subject == "small"


@pytest.mark.parametrize("plan", [PROBE, FINAL], ids=["probe", "final"])
def test_a_process_that_can_not_be_started_is_no_models_fault(plan: Plan) -> None:
    def fault(op: str, names: set[str], loaded: set[str]) -> None:
        if op == "open":
            raise DeviceLost("no python there")

    with pytest.raises(DeviceLost, match="no python there"):
        timed(pair(fault=fault), plan=plan)


def test_a_failure_while_timing_is_not_swallowed() -> None:
    def fault(op: str, names: set[str], loaded: set[str]) -> None:
        if op == "time" and len(machine.order) > 20:
            raise BackendError("MemoryError: std::bad_alloc")

    machine = pair(fault=fault)
    with pytest.raises(BackendError, match="bad_alloc"):
        timed(machine)
    assert is_tidy(machine)


# Flags.


def test_a_latency_that_never_stops_drifting_is_flagged() -> None:
    machine = pair(mood=lambda turn: 1.01**turn)
    assert "no_steady_state" in timed(machine)["small"].flags


@pytest.mark.parametrize("latency_ms", [100.0, 250.0, 2000.0])
def test_a_slow_model_that_is_steady_is_not_flagged(latency_ms: float) -> None:
    machine = Machine({"dense": latency_ms * MS, "small": 0.4 * latency_ms * MS})
    assert timed(machine)["small"].flags == ()


def test_a_fast_model_beside_a_slow_one_is_warmed_up_as_long_as_alone() -> None:
    machine = Machine({"dense": 1000.0 * MS, "small": 0.1 * MS})
    timed(machine, None, Plan((1,), (6,), 0.0))
    before = machine.order[: machine.order.index(("small", 4))]  # settling begins the sittings
    assert sum(calls for name, calls in before if name == "small") * 0.1e-3 > 0.19


def test_a_latency_that_settles_is_not_flagged() -> None:
    machine = pair(mood=lambda turn: 1.0 + 0.5 * 0.8**turn)
    measured = timed(machine)
    assert measured["small"].flags == ()
    assert abs(measured["dense"].stats.p50.value / (DENSE_NS * 1e-9) - 1) < 0.02


def test_a_latency_that_changes_after_the_warm_up_drifts_unless_the_ratio_does_not() -> None:
    def slower(turn: int) -> float:
        return 1.0 if turn < 160 else 1.1

    assert "drift" in timed(pair(mood=slower), "1ms", LONG)["small"].flags
    assert "drift" not in timed(pair(mood=slower), "50%", LONG)["small"].flags


def test_sittings_that_follow_each_other_are_said() -> None:
    def waves(turn: int) -> float:
        return 1 + 0.02 * float(np.sin(2 * np.pi * turn / 60))

    assert "autocorrelated" in timed(pair(mood=waves), "1ms", LONG)["small"].flags
    assert timed(pair(mood=waves), "50%", LONG)["small"].flags == ()


def test_what_happened_to_the_machine_reaches_every_model() -> None:
    machine = pair(states=(QUIET, {**QUIET, "throttle_count": 3}))
    measured = timed(machine)
    assert measured["small"].flags == ("throttled",)
    assert measured["dense"].flags == ("throttled",)
    (states,) = measured["small"].environment["processes"]
    assert states == {"before": QUIET, "after": {**QUIET, "throttle_count": 3}}
    assert measured["small"].environment["runtime_version"] == "7"


def test_the_machines_state_is_kept_of_every_process() -> None:
    measured = timed(pair(), plan=TIMED)
    assert measured["dense"].environment["processes"] == [{"before": QUIET, "after": QUIET}] * 5


# A way to the machine that can be lost.


@dataclass
class Flaky:
    """Loses the connection at the given calls of an operation."""

    op: str
    at: Sequence[int]
    calls: int = 0

    def __call__(self, op: str, names: set[str], loaded: set[str]) -> None:
        if op == self.op:
            self.calls += 1
            if self.calls in self.at:
                raise ConnectionLost("The connection to pi was lost.")


@pytest.mark.parametrize("op", ["open", "load", "reload", "time"])
def test_a_lost_connection_costs_the_process_in_flight_and_blames_nobody(op: str) -> None:
    machine = pair(fault=Flaky(op, [2, 9]), process_noise=0.001)
    measured = timed(machine, plan=TIMED)["small"]
    assert measured.stats.n_processes == 5
    assert measured.stats.ratio("p50").value == pytest.approx(0.4, rel=0.01)


@pytest.mark.parametrize("plan", [TIMED, FINAL], ids=["timing", "start-up"])
def test_a_connection_that_is_lost_every_time_ends_the_measurement(plan: Plan) -> None:
    machine = pair(fault=Flaky("load", range(1, 100)))
    with pytest.raises(DeviceUnreachable, match="3 times in a row"):
        timed(machine, plan=plan)


def test_what_was_measured_before_a_restart_of_the_machine_is_left_out() -> None:
    machine = pair(boot_id="first")

    def restart(op: str, names: set[str], loaded: set[str]) -> None:
        if op == "open" and machine.processes == 3:
            machine.boot_id, machine.latency_ns = "second", {"dense": 300_000, "small": 120_000}

    machine.fault = restart
    measured = timed(machine, plan=TIMED)["small"]
    assert machine.processes == 8
    assert measured.stats.n_processes == 5
    assert measured.stats.p50.value == pytest.approx(120e-6, rel=0.01)


# Several machines of one kind.


def test_processes_are_shared_out_among_machines() -> None:
    first, second, third = (pair(seed=n, place={"where": str(n)}) for n in (1, 2, 3))
    measured = timed(first, plan=TIMED, more=[second, third])["small"]
    assert [machine.processes for machine in (first, second, third)] == [2, 2, 1]
    assert measured.stats.n_processes == 5
    assert "boards_disagree" not in measured.flags
    where = [states["where"] for states in measured.environment["processes"]]
    assert sorted(where) == ["1", "1", "2", "2", "3"]


def test_machines_measure_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=30)

    def meet(op: str, names: set[str], loaded: set[str]) -> None:
        if op == "open":
            meeting.wait()

    machines = [pair(fault=meet), pair(fault=meet)]
    timed(machines[0], plan=replace(TIMED, processes=(4,)), more=machines[1:])


def test_machines_that_differ_are_flagged() -> None:
    alike, other = pair(0.4), pair(0.42)
    measured = timed(alike, plan=TIMED, more=[other])
    assert "boards_disagree" in measured["small"].flags
    assert "boards_disagree" not in measured["dense"].flags


def test_machines_whose_latencies_differ_are_flagged_though_their_ratios_agree() -> None:
    slow = Machine({"dense": 1.1 * DENSE_NS, "small": 1.1 * 0.4 * DENSE_NS})
    measured = timed(pair(0.4), plan=TIMED, more=[slow])
    assert "boards_disagree" in measured["small"].flags


def test_a_probe_takes_one_machine() -> None:
    first, second = pair(), pair()
    timed(first, more=[second])
    assert (first.processes, second.processes) == (1, 0)


def test_a_machine_that_starts_anew_costs_only_what_it_gave() -> None:
    first, second = pair(boot_id="a"), pair(boot_id="b")

    def restart(op: str, names: set[str], loaded: set[str]) -> None:
        if op == "open" and second.processes == 1:
            second.boot_id = "c"

    second.fault = restart
    measured = timed(first, plan=replace(TIMED, processes=(4,)), more=[second])
    assert measured["small"].stats.n_processes == 4
    assert first.processes + second.processes == 5
