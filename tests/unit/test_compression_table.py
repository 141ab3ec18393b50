"""What a compression's report says to people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from harness_results.compression_picture import draw_compression
from harness_results.compression_report import read_report
from harness_results.compression_table import distrust, markdown
from harness_results.compression_training import training_words
from support.compression import RECIPE, report, side


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
    assert "30.0 % of the samples, chosen by k-center" in training_words(
        report(steps=[qat], training=part)
    )


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(report(flags=["pressure"]).to_json())
    assert read_report(path) == report(flags=["pressure"])


def test_an_interval_has_its_unit_once() -> None:
    latency = {**side(1e-3)["latency"], "p50_s": [9.7e-5, 9.4e-5, 1.01e-4],
               "p90_s": [1e-3, 0.9e-3, 1.1e-3], "peak_mem_bytes": [7e7, 6.9e7, 7.1e7]}  # fmt: skip
    text = told(before={**side(1e-3), "latency": latency})
    assert "97.0 µs (94.0 µs to 0.101 ms)" in text
    assert "1.00 ms (0.900 to 1.10 ms)" in text


def test_shares_are_in_per_cent_with_a_space() -> None:
    text = told(after={**side(1e-3), "params": 49, "nonzeros": 30})
    assert "100 % -> 49.0 % of the parameters, 30.0 % of the non-zero ones: accuracy" in text
