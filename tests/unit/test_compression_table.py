"""What a compression's report says to people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from harness_results.compression_picture import draw_compression
from harness_results.compression_report import SCHEMA, Report, read_report
from harness_results.compression_table import distrust, markdown
from harness_results.compression_training import training_words

RECIPE = {
    "teacher_epochs": 0, "trial_epochs": 1, "batch": 32, "teacher_lr": 0.1, "trial_lr": 0.05,
    "weight_decay": 1e-4, "optimizer": "sgd",
}  # fmt: skip


def side(p50: float) -> dict[str, Any]:
    score = {"value": 0.9, "lo": 0.8, "hi": 0.95, "loss": 0.3, "n": 90}
    return {
        "params": 100, "nonzeros": 100, "macs": 1000, "size_bytes": 4000, "precision": "fp32",
        "scores": {"validation": score, "test": score}, "parity": {"passed": True},
        "latency": {
            "p50_s": [p50, p50, p50], "ratio_p50": [0.5, 0.4, 0.6], "n_calls": 300,
            "n_processes": 5, "peak_mem_bytes": None,
        },
    }  # fmt: skip


def report(**given: Any) -> Report:
    change = {"value": 0.0, "lo": -0.01, "hi": 0.01}
    values: dict[str, Any] = {
        "schema": SCHEMA, "run": "r", "date_utc": "2026-01-01T00:00:00Z",
        "task": {"name": "t", "metric": "accuracy"},
        "target": {"name": "cpu", "backend": "x", "backend_version": "1", "threads": 1, "batch": 1},
        "steps": [], "before": side(2e-3), "after": side(1e-3),
        "training": {"recipe": RECIPE, "reduction": {"fraction": 1.0, "method": "random"}},
        "files": {}, "change": {"validation": change, "test": change}, "flags": [],
        "test_reads": 1, "seed": 0, "versions": {},
        "environment": {"machine": {"cpu_model": "c", "cpu_count": 2}}, "git": {},
    }  # fmt: skip
    return Report(**{**values, **given})


def told(**given: Any) -> str:
    return " ".join(markdown(report(**given)).split())


def test_a_disturbed_timing_is_told_with_the_way_to_repeat_it() -> None:
    blocked = told(flags=["precision_not_reached", "pressure"])
    assert "**Not to be trusted: precision_not_reached. Give `--remeasure`" in blocked
    assert "Not to be trusted" not in told(flags=["pressure"])


def test_a_file_that_computes_something_else_is_not_to_be_timed_again() -> None:
    text = distrust(report(flags=["parity_failed"]))
    assert "other steps may" in text
    assert "--remeasure" not in text
    assert "--remeasure" in distrust(report(flags=["parity_failed", "throttled"]))


def test_the_picture_says_that_it_can_not_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **given: titles.append(text))
    for flags in (["throttled"], ["pressure"]):
        draw_compression(tmp_path / "p.png", report(flags=flags))
    assert "not to be trusted: throttled" in titles[0]
    assert "not to be trusted" not in titles[1]


def test_training_is_told_step_by_step() -> None:
    qat = {"name": "qat", "options": {"epochs": 1, "lr": None, "temperature": 4.0}, "decision": {}}
    assert training_words(report()) == "Nothing was trained."
    words = training_words(report(steps=[qat]))
    assert words.startswith("Training: step 1, qat: 1 epoch; batch 32, optimiser sgd")
    assert "the dense network" not in words
    part = {"recipe": RECIPE, "reduction": {"fraction": 0.3, "method": "k-center"}}
    assert "30% of the samples, chosen by k-center" in training_words(
        report(steps=[qat], training=part)
    )


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(report(flags=["pressure"]).to_json())
    assert read_report(path) == report(flags=["pressure"])
