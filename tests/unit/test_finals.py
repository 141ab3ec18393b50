"""The final measurement where the runtime fails on one of its models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from harness.budget import parse_budget
from harness.candidate import OnnxModel
from harness.errors import BackendError, CandidateFailed, DeviceLost
from harness.measurement.types import Estimate, LatencyStats, Measurement
from harness.target import Target
from harness.tasks.base import Reduction
from harness_results.store import StudyFolder
from harness_search import finals
from harness_search.finals import Finalist, run_finals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness_results.record import RunRecord

BUDGET = parse_budget("50%")


class Bench:
    """Times trials by a table of ratios; fails on those of which it holds a reason."""

    def __init__(self, stats: Callable[..., LatencyStats]) -> None:
        self.stats = stats
        self.ratios: dict[str, float] = {}
        self.reasons: dict[str, str] = {}
        self.timings: list[set[str]] = []
        self.notes: list[str] = []
        self.dense = OnnxModel(Path("dense"), "", 1, 17)
        self.settings = SimpleNamespace(max_size_bytes=None)
        self.target = Target("fake", "fake")
        self.task = SimpleNamespace(reduction=Reduction())
        self.folder = SimpleNamespace(test_reads=lambda: 0)
        self.progress = SimpleNamespace(phase=lambda text: None, note=self.notes.append)

    def timed(self, models: Mapping[str, Any], budget: Any, plan: Any) -> dict[str, Measurement]:
        names = {"dense", *models}
        for name in sorted(names & self.reasons.keys()):
            raise CandidateFailed(name, BackendError(self.reasons[name]))
        self.timings.append(names)
        return {name: self.measurement(self.ratios.get(name, 0.4)) for name in names}

    def measurement(self, ratio: float) -> Measurement:
        stats = self.stats(ratio_p50=Estimate(ratio, ratio - 0.01, ratio + 0.01))
        return Measurement(stats, None, (), (), {})


@pytest.fixture
def bench(stats: Callable[..., LatencyStats]) -> Bench:
    return Bench(stats)


@pytest.fixture
def written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None, Any]]:
    """Return what is recorded: role, trial, and the reason of a failure."""
    found: list[tuple[str, int | None, Any]] = []

    def write(final: Any, finalist: Finalist) -> None:
        index = None if finalist.trial is None else finalist.trial.index
        found.append((finalist.role, index, final.failures.get(finals._name(finalist))))

    monkeypatch.setattr(finals._Final, "write", write)
    monkeypatch.setattr(finals._Final, "score_on_test", lambda self, finalists: None)
    monkeypatch.setattr(finals, "trained_model", lambda bench, trial: bench.dense)
    monkeypatch.setattr(
        finals, "ranked_candidates",
        lambda bench, budget, records: [r for r in records if r.role == "searched"],
    )  # fmt: skip
    return found


@pytest.fixture
def records(trial_record: Callable[..., RunRecord]) -> list[RunRecord]:
    roles = ("uniform", "global", "searched", "searched")
    return [trial_record(index, role=role) for index, role in enumerate(roles)]


def test_dense_controls_and_winner_are_recorded_and_dense_comes_last(
    bench: Any, written: list[Any], records: list[RunRecord]
) -> None:
    run_finals(bench, BUDGET, records, dense_wins=False)
    assert [role for role, _, _ in written] == ["winner", "global", "uniform", "dense"]
    assert bench.timings == [{"dense", "trial-0000", "trial-0001", "trial-0002"}]


def test_a_candidate_that_fails_is_recorded_with_the_reason_and_the_next_is_taken(
    bench: Any, written: list[Any], records: list[RunRecord]
) -> None:
    bench.reasons["trial-0002"] = "SIGSEGV: the runtime crashed"
    run_finals(bench, BUDGET, records, dense_wins=False)
    assert written[0] == ("rejected", 2, "SIGSEGV: the runtime crashed")
    assert written[1] == ("winner", 3, None)
    assert [role for role, _, _ in written[2:]] == ["global", "uniform", "dense"]
    assert any("SIGSEGV" in note for note in bench.notes)
    assert all("trial-0002" not in names for names in bench.timings)


def test_a_candidate_that_misses_the_budget_is_no_failure(
    bench: Any, written: list[Any], records: list[RunRecord]
) -> None:
    bench.ratios["trial-0002"] = 0.6
    run_finals(bench, BUDGET, records, dense_wins=False)
    assert written[:2] == [("rejected", 2, None), ("winner", 3, None)]


def test_a_control_that_fails_is_recorded_and_does_not_cost_the_final(
    bench: Any, written: list[Any], records: list[RunRecord]
) -> None:
    bench.reasons["trial-0000"] = "no kernel"
    run_finals(bench, BUDGET, records, dense_wins=False)
    assert bench.timings == [{"dense", "trial-0001", "trial-0002"}]
    assert written[0] == ("rejected", 0, "no kernel")
    assert [role for role, _, _ in written[1:]] == ["winner", "global", "dense"]
    assert any("no kernel" in note for note in bench.notes)


def test_where_all_but_dense_fail_dense_is_still_measured(
    bench: Any, written: list[Any], records: list[RunRecord]
) -> None:
    bench.reasons |= {f"trial-{index:04d}": "no kernel" for index in range(4)}
    run_finals(bench, BUDGET, records, dense_wins=False)
    assert bench.timings[-1] == {"dense"}
    rejected = [one for one in written if one[0] == "rejected"]
    assert rejected == [("rejected", index, "no kernel") for index in range(4)]
    assert written[-1] == ("dense", None, None)


def test_the_dense_model_can_not_be_left_out(
    bench: Any, written: list[Any], records: list[RunRecord]
) -> None:
    bench.reasons["dense"] = "no kernel"
    with pytest.raises(CandidateFailed, match="no kernel"):
        run_finals(bench, BUDGET, records, dense_wins=False)
    assert written == []


def test_a_lost_device_ends_the_final(
    bench: Any, written: list[Any], records: list[RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> None:
        raise DeviceLost("gone")

    monkeypatch.setattr(bench, "timed", lost)
    with pytest.raises(DeviceLost, match="gone"):
        run_finals(bench, BUDGET, records, dense_wins=False)
    assert written == []


def test_a_kill_while_the_test_split_is_scored_leaves_the_reading_counted(
    bench: Any, tmp_path: Path
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    bench.folder = StudyFolder(tmp_path, "s")
    bench.folder.create()
    bench.task.data = SimpleNamespace(test=None)
    bench.outputs = killed
    with pytest.raises(KeyboardInterrupt):
        finals._Final(bench, BUDGET, 0).score_on_test([Finalist("dense", None, bench.dense)])
    assert bench.folder.test_reads() == 1
