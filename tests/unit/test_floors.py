"""Floors: the smallest network in every precision, and what follows from their times."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.budget import parse_budgets
from harness.candidate import OnnxModel
from harness.compression.pruning.dependency.graph import pruning_graph
from harness.errors import BackendError, CandidateFailed, ExportError
from harness.measurement.types import Estimate, LatencySample, LatencyStats, Measurement
from harness.target import Target
from harness_search.bases import Base
from harness_search.floors import measure_floors, recorded_floors
from harness_search.settings import Settings
from harness_search.space import search_space
from support.tiny import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness_results.record import RunRecord

SAMPLE = LatencySample(*[np.ones((2, 3), dtype=np.int64)] * 3, np.zeros(2, dtype=np.int64))
SIZES = {"fp32": 4000, "int8": 1000, "fp16": 2000}


class Bench:
    """An untrained tiny network, and a clock that says what it is told."""

    def __init__(
        self,
        stats: Callable[..., LatencyStats],
        shares: dict[str, float],
        precisions: tuple[str, ...] = ("fp32", "int8"),
    ) -> None:
        self.stats, self.shares = stats, shares
        self.task = tiny()
        self.network = self.task.model()
        self.example = self.task.example_input(1)
        self.graph = pruning_graph(self.network, self.example)
        target = Target("cpu", "onnxruntime", granule=16)
        self.target = target
        self.settings = Settings(target, parse_budgets("50%"), precisions=precisions)
        self.space = search_space(self.graph, 16, self.settings, ("l2",), uses_temperature=True)
        self.notes: list[str] = []
        self.progress = SimpleNamespace(note=self.notes.append, phase=lambda text: None)
        self.written: list[RunRecord] = []
        self.superseded: list[RunRecord] = []
        self.folder = SimpleNamespace(
            study="s", write=lambda record, samples: self.written.append(record),
            supersede=self.superseded.append,
        )  # fmt: skip
        self.facts = {"runtime_version": "1", "machine": {}}
        self.provenance = {"task": {}, "versions": {}, "git": {}, "fingerprint": "m.s"}
        self.unable: set[str] = set()
        self.failing: str | None = None
        self.calibration: list[int] = []

    def base(self, blocks: Any) -> Base:
        return Base((), self.graph, self.space)

    def model_path(self, name: str) -> Path:
        return SimpleNamespace(name=name)  # type: ignore[return-value]

    def export(self, network: Any, path: Any, precision: Any) -> OnnxModel:
        if precision.name in self.unable:
            raise ExportError(f"no {precision.name}")
        self.calibration.append(precision.calibration)
        return OnnxModel(path, "00", SIZES[precision.name], 17, 1, 1)

    def timed(self, models: dict[str, OnnxModel], budget: Any, plan: Any) -> dict[str, Measurement]:
        shares = {"dense": 1.0, **{name: self.shares[name] for name in models}}
        if self.failing in shares:
            raise CandidateFailed(self.failing, BackendError("killed"))

        def measurement(share: float) -> Measurement:
            one = Estimate(share, share * 0.98, share * 1.02)
            made = self.stats(p50=one, p90=one, ratio_p50=one, ratio_p90=one)
            return Measurement(made, None, (), (SAMPLE,), {})

        return {name: measurement(share) for name, share in shares.items()}

    def elapsed_s(self) -> float:
        return 1.0


Shares = dict[str, float]
HELPS = {"fp32 floor": 0.3, "int8 floor": 0.2, "int8 dense": 0.5}


@pytest.fixture
def bench(stats: Callable[..., LatencyStats]) -> Callable[..., Any]:
    return lambda shares, *rest: Bench(stats, shares, *rest)


def test_every_precision_has_a_floor_and_its_dense_network_timed(
    bench: Callable[..., Any],
) -> None:
    made = bench(HELPS)
    floors = measure_floors(made)
    assert [one.candidate["precision"] for one in floors] == ["fp32", "int8"]
    assert [one.latency["probe"]["ratio_p50"][0] for one in floors] == [0.3, 0.2]
    assert [one.model["size_bytes"] for one in floors] == [4000, 1000]
    assert "whole" not in floors[0].latency
    assert floors[1].latency["whole"]["ratio_p50"][0] == 0.5
    assert {one.kind for one in floors} == {"floor"}
    assert [one.feasible for one in floors] == [True, True]
    assert made.calibration == [32, 32, 32]
    assert made.written == floors


def test_a_precision_that_cannot_be_exported_is_recorded_with_the_reason(
    bench: Callable[..., Any],
) -> None:
    made = bench(HELPS)
    made.unable = {"int8"}
    floors = measure_floors(made)
    assert [one.candidate["precision"] for one in floors] == ["fp32", "int8"]
    assert [one.status for one in floors] == ["complete", "failed"]
    assert floors[1].reason == "ExportError: no int8"
    assert (floors[1].latency, floors[1].feasible) == ({}, None)


def test_a_precision_that_the_runtime_fails_on_is_timed_without(bench: Callable[..., Any]) -> None:
    made = bench(HELPS)
    made.failing = "int8 dense"
    floors = measure_floors(made)
    assert [one.status for one in floors] == ["complete", "failed"]
    assert floors[1].reason == "CandidateFailed: killed"
    assert floors[0].latency["probe"]["ratio_p50"][0] == 0.3


@pytest.mark.parametrize("subject", ["dense", "fp32 floor"])
def test_a_dense_network_that_the_runtime_fails_on_is_an_error(
    bench: Callable[..., Any], subject: str
) -> None:
    made = bench(HELPS)
    made.failing = subject
    with pytest.raises(CandidateFailed):
        measure_floors(made)
    assert made.written == []


@pytest.mark.parametrize("precisions", [("int8",), ("fp16", "int8"), ("fp32", "int8")])
def test_a_network_that_cannot_be_exported_at_all_is_an_error(
    bench: Callable[..., Any], precisions: tuple[str, ...]
) -> None:
    made = bench(HELPS, precisions)
    made.unable = {"fp32", "fp16", "int8"}
    with pytest.raises(ExportError, match="no "):
        measure_floors(made)
    assert made.written == []


def test_recorded_floors_are_not_measured_again_also_where_one_failed(
    bench: Callable[..., Any],
) -> None:
    made = bench(HELPS)
    made.unable = {"int8"}
    floors = measure_floors(made)
    made.written.clear()
    assert recorded_floors(made, floors[::-1]) == floors
    assert made.written == made.superseded == []


def test_floors_that_a_kill_left_incomplete_are_put_aside_and_measured_again(
    bench: Callable[..., Any],
) -> None:
    made = bench(HELPS)
    first = measure_floors(made)[0]
    made.written.clear()
    floors = recorded_floors(made, [first])
    assert made.superseded == [first]
    assert made.written == floors
    assert [one.candidate["precision"] for one in floors] == ["fp32", "int8"]
