"""Instructions in place of time: what is measured, how long, and what it is called."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.budget import Decision, parse_budget
from harness.candidate import OnnxModel
from harness.errors import MeasurementError
from harness.measurement.flags import faults, is_blocked
from harness.measurement.plans import COUNT_FINAL, COUNT_PROBE, final_plan, probe_plan
from harness.measurement.rounds import FINAL, PROBE, Plan, measure, quick
from harness.measurement.types import Measurement, Subject
from harness.quantity import INSTRUCTIONS, TIME
from harness.target import Target
from harness_backends.testing.fake import FakeBackend, fake_instructions
from harness_results.record import latency_figures
from support.onnx_files import node, save_graph

if TYPE_CHECKING:
    from pathlib import Path

EMULATED = Target("board", "fake", emulated_cpu="cortex-a76")
REAL = Target("cpu", "fake")


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    path = tmp_path / "m.onnx"
    save_graph(path, [node("Relu", "x", "y")], (4,))
    return OnnxModel(path, "", path.stat().st_size, 17)


def measured(
    model: OnnxModel, plan: Plan, budget: str | None = "50%", statistic: str | None = None
) -> Measurement:
    inputs = {"x": np.zeros((1, 4), np.float32)}
    held = None if budget is None else parse_budget(budget, statistic)
    subjects = {name: Subject(model, inputs, held) for name in ("dense", "twin")}
    return measure(FakeBackend(EMULATED).open, subjects, "dense", plan, nullcontext)["twin"]


def test_a_target_says_what_its_calls_are_measured_in() -> None:
    assert EMULATED.quantity is INSTRUCTIONS
    assert REAL.quantity is TIME
    assert (probe_plan(EMULATED), final_plan(EMULATED)) == (COUNT_PROBE, COUNT_FINAL)
    assert (probe_plan(REAL), final_plan(REAL)) == (PROBE, FINAL)


def test_figures_are_instructions_flagged_and_without_starts(model: OnnxModel) -> None:
    found = measured(model, COUNT_FINAL, "1Ginstr")
    expected = fake_instructions(model.size_bytes)
    assert found.stats.quantity is INSTRUCTIONS
    assert found.stats.p50.value == pytest.approx(expected, rel=1e-3)
    assert found.startup is None
    assert found.flags == ("emulated",)
    assert parse_budget("1Ginstr").decide(found.stats) is Decision.FEASIBLE


def test_few_calls_are_made(model: OnnxModel) -> None:
    probe, final = (measured(model, plan).stats for plan in (COUNT_PROBE, COUNT_FINAL))
    assert (probe.n_processes, probe.n_sittings, probe.n_rounds) == (1, 3, 3)
    assert probe.n_calls == 3 * 4  # a median needs 11
    assert (final.n_processes, final.n_sittings) == (3, 6)
    assert final.n_calls == 12


@pytest.mark.parametrize("plan", [COUNT_PROBE, COUNT_FINAL, quick(0.05, quantity=INSTRUCTIONS)])
def test_a_p90_gets_the_calls_that_it_needs(model: OnnxModel, plan: Plan) -> None:
    found = measured(model, plan, "50%", "p90")
    assert found.stats.ratio("p90").value == pytest.approx(1.0)


def test_one_file_alone_needs_no_budget(model: OnnxModel) -> None:
    for plan in (COUNT_PROBE, COUNT_FINAL, quick(0.05, quantity=INSTRUCTIONS)):
        assert measured(model, plan, None).stats.n_sittings >= 3


@pytest.mark.parametrize(("target", "plan"), [(EMULATED, PROBE), (REAL, COUNT_PROBE)])
def test_a_worker_that_measures_in_another_quantity_is_refused(
    model: OnnxModel, target: Target, plan: Plan
) -> None:
    subjects = {"a": Subject(model, {"x": np.zeros((1, 4), np.float32)})}
    with pytest.raises(MeasurementError, match=f"must be {plan.quantity.name}"):
        measure(FakeBackend(target).open, subjects, None, plan, nullcontext)


def test_no_key_of_a_record_and_no_array_says_that_a_count_is_a_time(model: OnnxModel) -> None:
    found = measured(model, COUNT_FINAL)
    figures: dict[str, Any] = latency_figures(found, 1e9)
    assert figures["p50_instructions"][0] == found.stats.p50.value
    assert figures["raw_within_budget"] == 1.0
    assert not [key for key, value in figures.items() if key.endswith("_s") and value is not None]
    assert figures["contended"] is figures["n_clean"] is figures["peak_mem_bytes"] is None
    assert found.samples[0].arrays().keys() == {"instructions", "sitting"}
    timed = replace(found.samples[0], quantity=TIME)
    assert timed.arrays().keys() == {"wall_ns", "cpu_ns", "nivcsw", "sitting"}


def test_a_count_is_not_ranked_but_can_be_trusted() -> None:
    assert is_blocked(["emulated"])
    assert faults(["emulated", "steal"]) == []
    assert faults(["emulated", "parity_failed"]) == ["parity_failed"]


def test_figures_are_shown_with_their_units() -> None:
    assert INSTRUCTIONS.interval([81.2e6, 81e6, 82e6]) == "81.2 Minstr (81.0 Minstr to 82.0 Minstr)"
    assert INSTRUCTIONS.span([81.2e6, 81e6, 82e6]) == "81.0 to 82.0"
    assert INSTRUCTIONS.scaled(81.2e6) == pytest.approx(81.2)
    assert TIME.interval([2e-3, 1e-3, 3e-3]) == "2.00 ms (1.00 ms to 3.00 ms)"
    assert TIME.span([99e-6, 98e-6, 101e-6]) == "98.0 to 101"
    assert TIME.scaled(2e-3) == pytest.approx(2.0)
