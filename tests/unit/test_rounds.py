from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.budget import parse_budget
from harness.candidate import OnnxModel
from harness.errors import BackendError
from harness.measurement.rounds import FINAL, PROBE, Plan, Subject, measure
from harness.measurement.types import Block, Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MS = 1_000_000
DENSE_NS = 200_000.0
QUIET = {"governor": "performance", "max_khz": 1, "throttle_count": 0}


@dataclass
class Machine:
    """Times models by formula; remembers what was asked of it."""

    latency_ns: Mapping[str, float]
    block_noise: float = 0.001
    process_noise: float = 0.0
    mood: Callable[[int], float] = lambda _: 1.0
    switch_cost: float = 1.0
    states: Sequence[Mapping[str, Any]] = (QUIET, QUIET)
    refuses: str = ""
    events: list[str] = field(default_factory=list)
    order: list[tuple[str, int]] = field(default_factory=list)
    clock_s: float = 0.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        self.events.append("lock")
        yield
        self.events.append("unlock")

    @contextmanager
    def open(self) -> Iterator[Worker]:
        self.events.append("open")
        try:
            yield Worker(self)
        finally:
            self.events.append("close")

    @property
    def processes(self) -> int:
        return self.events.count("open")


class Worker:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.facts = {"runtime_version": "7"}
        self.own = {
            name: float(np.exp(machine.process_noise * machine.rng.normal()))
            for name in machine.latency_ns
        }
        self.states = iter(machine.states)

    def load(self, model: OnnxModel, inputs: Mapping[str, Any]) -> Any:
        name = model.path.name
        if name == self.machine.refuses:
            raise BackendError(f"{name} is refused")
        return SimpleNamespace(name=name, session_create_s=0.1, first_inference_s=0.2)

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        machine, blocks = self.machine, []
        for session, calls in schedule:
            turn = len(machine.order) // len(machine.latency_ns)
            noise = np.exp(machine.block_noise * machine.rng.normal())
            ns = machine.latency_ns[session.name] * self.own[session.name] * noise
            wall = np.full(calls, round(ns * machine.mood(turn)), np.int64)
            wall[0] = round(wall[0] * machine.switch_cost)
            machine.clock_s += float(wall.sum()) * 1e-9
            machine.order.append((session.name, calls))
            blocks.append(Block(wall, wall, np.zeros(calls, np.int64)))
        return blocks

    def state(self) -> dict[str, Any]:
        return dict(next(self.states))


def timed(
    machine: Machine, budget: str | None = "50%", plan: Plan = PROBE, seed: int = 0
) -> dict[str, Measurement]:
    limit = None if budget is None else parse_budget(budget)
    subjects = {
        name: Subject(OnnxModel(Path(name), "", 1, 17), {}, limit) for name in machine.latency_ns
    }
    reference = "dense" if "dense" in subjects else None
    return measure(machine.open, subjects, reference, plan, machine.exclusive, seed)


def pair(share: float = 0.4, **more: Any) -> Machine:
    return Machine({"dense": DENSE_NS, "small": share * DENSE_NS}, **more)


def test_the_ratio_to_the_dense_model_is_found() -> None:
    measured = timed(pair(0.4))
    ratio = measured["small"].stats.ratio("p50")
    assert ratio.lo <= 0.4 <= ratio.hi
    assert ratio.half_width < 0.01
    assert measured["dense"].stats.ratio("p50").value == 1.0
    assert measured["small"].flags == ()


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
    assert one.order == same.order
    assert one.order != other.order


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
    assert stats.p90_raw_s < 2 * DENSE_NS * 1e-9
    assert stats.n_calls == stats.n_rounds * (calls - 1)


@pytest.mark.parametrize(("latency_ms", "calls"), [(1.0, 11), (0.01, 101), (500.0, 3)])
def test_a_block_lasts_about_ten_milliseconds(latency_ms: float, calls: int) -> None:
    machine = Machine({"dense": latency_ms * MS})
    timed(machine, None)
    assert machine.order[-1] == ("dense", calls)


def test_a_clear_case_stops_at_the_first_look() -> None:
    assert timed(pair(0.4))["small"].stats.n_rounds == PROBE.rounds[0]


def test_an_imprecise_case_goes_on_to_the_last_look() -> None:
    assert timed(pair(0.4, block_noise=0.4))["small"].stats.n_rounds == PROBE.rounds[-1]


def test_an_undecided_case_goes_on_though_it_is_precise() -> None:
    measured = timed(pair(0.5, block_noise=0.004))["small"].stats
    assert measured.n_rounds == PROBE.rounds[-1]
    assert measured.ratio("p50").half_width < PROBE.half_width


def test_a_dense_model_at_the_edge_of_the_budget_does_not_hold_up_a_probe() -> None:
    stats = timed(pair(0.4, block_noise=0.004), "0.2ms")
    assert stats["small"].stats.n_rounds == PROBE.rounds[0]
    dense = stats["dense"].stats.p90
    assert dense is not None
    assert abs(dense.value / 0.2e-3 - 1) < 0.02


def test_a_slow_model_gets_no_more_rounds_than_fit_the_time_limit() -> None:
    machine = Machine({"dense": 2000 * MS, "small": 1000 * MS}, block_noise=0.4)
    assert timed(machine)["small"].stats.n_rounds == PROBE.rounds[0]


def test_a_probe_is_one_process_and_a_final_five_fresh_ones() -> None:
    probe, final = pair(), pair()
    timed(probe)
    measured = timed(final, plan=FINAL)
    assert probe.processes == 1
    assert final.processes == 5
    assert measured["small"].stats.n_processes == 5
    assert len(measured["small"].samples) == 5
    assert measured["small"].flags == ()


def test_a_final_whose_processes_disagree_takes_ten_and_is_flagged() -> None:
    machine = pair(0.4, process_noise=0.2)
    measured = timed(machine, plan=FINAL)
    assert machine.processes == 10
    assert "precision_not_reached" in measured["small"].flags


def test_timing_has_the_machine_alone_and_frees_it_between_processes() -> None:
    machine = pair()
    timed(machine, plan=FINAL)
    assert machine.events == ["lock", "open", "close", "unlock"] * 5


def test_a_refused_model_ends_the_process_and_is_not_swallowed() -> None:
    machine = pair(refuses="small")
    with pytest.raises(BackendError, match="small"):
        timed(machine)
    assert machine.events[:3] == ["lock", "open", "close"]


def test_a_latency_that_never_stops_drifting_is_flagged() -> None:
    machine = pair(mood=lambda turn: 1.01**turn)
    assert "no_steady_state" in timed(machine)["small"].flags


def test_a_latency_that_settles_is_not_flagged() -> None:
    machine = pair(mood=lambda turn: 1.0 + 0.5 * 0.8**turn)
    measured = timed(machine)
    assert measured["small"].flags == ()
    assert abs(measured["dense"].stats.p50.value / (DENSE_NS * 1e-9) - 1) < 0.02


def test_what_happened_to_the_machine_reaches_every_model() -> None:
    machine = pair(states=(QUIET, {**QUIET, "throttle_count": 3}))
    measured = timed(machine)
    assert measured["small"].flags == ("throttled",)
    assert measured["dense"].flags == ("throttled",)
    assert measured["small"].environment["after"]["throttle_count"] == 3
    assert measured["small"].environment["runtime_version"] == "7"


def test_all_looks_together_keep_ninety_five_per_cent() -> None:
    assert PROBE.confidence == FINAL.confidence == 0.9875
    assert Plan(processes=(1,), rounds=(10,), half_width=0.1).confidence == 0.95
