"""What `harness sensitivity` prints: no figure is lost in a narrow terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from harness.cli import app
from harness.cli.sensitivity_text import print_sensitivity
from harness.compression.pruning.importance import CRITERIA
from harness.target import Target
from harness_results.sensitivity_table import SensitivityRow
from harness_search.analysis import Analysis, SensitivityResult
from harness_search.settings import Settings

ROW = SensitivityRow(
    "group", "stages.0.blocks.1.conv1", 128, 64, 0.5, "l2", "accuracy", 500, 0.75, -0.1234,
    -0.2345, -0.0123, 0.9, 0.4321, 0.002, 0.000567, 0.000456, 0.000678,
    params_saved=17088, macs_saved=11119808,
)  # fmt: skip
FIGURES = ("-12.34", "-23.45 to -1.23", "+0.432", "0.567", "0.456 to 0.678", "17.1 k", "11.1 M")


def printed(*rows: SensitivityRow, width: int = 220, by_cost: bool = True) -> str:
    values: dict[str, Any] = dict.fromkeys(SensitivityResult.__annotations__)
    values |= {"rows": rows, "metric": "accuracy", "analysis": Analysis(), "elapsed_s": 1.0,
               "settings": Settings(Target("cpu", "onnxruntime"), ()), "notes": (),
               "table": Path("sensitivity.csv")}  # fmt: skip
    console = Console(width=width, record=True, highlight=False)
    with console.capture() as capture:
        print_sensitivity(console, SensitivityResult(**values), by_cost)
    return capture.get()


@pytest.mark.parametrize("width", [80, 100, 220])
def test_a_narrow_terminal_loses_no_figure(width: int) -> None:
    text = printed(ROW, width=width)
    for figure in FIGURES:
        assert figure in text, figure
    assert "…" not in text
    tables = text.count("group or block")
    assert tables == (1 if width == 220 else 2)


def order(*rows: SensitivityRow) -> list[str]:
    text = printed(*rows)
    return sorted((row.name for row in rows), key=text.index)


def test_a_loss_that_falls_costs_nothing_so_what_saves_most_comes_first() -> None:
    lucky = replace(ROW, name="lucky", val_loss_change=-0.01, saved_s=1e-6)
    best = replace(ROW, name="best", val_loss_change=-0.01, saved_s=1e-3)
    dear, slower = replace(ROW, name="dear"), replace(ROW, name="slower", saved_s=-1e-5)
    assert order(slower, dear, lucky, best) == ["best", "lucky", "dear", "slower"]


def test_a_disturbed_timing_is_said_to_be_made_again() -> None:
    text = printed(replace(ROW, flags=("throttled",)), ROW)
    assert "throttled (1 of 2 rows)" in text
    assert "the same command times them again" in text
    assert "the same command" not in printed(replace(ROW, flags=("steal",)))


def test_rows_without_a_time_say_how_to_get_one() -> None:
    untimed = replace(ROW, dense_s=None, saved_s=None, saved_lo_s=None, saved_hi_s=None)
    text = " ".join(printed(ROW, untimed).split())
    assert "1 of 2 rows have no time." in text
    assert "`--ratios 25%`" in text


def test_the_help_names_every_criterion() -> None:
    text = CliRunner().invoke(app, ["sensitivity", "--help"]).output
    for criterion in CRITERIA:
        assert criterion == "random" or criterion in text, criterion
