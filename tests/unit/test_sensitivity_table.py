"""sensitivity.csv: what is written is what is read."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from harness.compression.pruning.importance import CRITERIA
from harness.errors import ConfigError
from harness.quantity import INSTRUCTIONS
from harness_results.sensitivity_table import (
    COLUMNS,
    SensitivityFolder,
    SensitivityRow,
    has_time,
    measured_fields,
    read_sensitivity,
    untimed,
    write_sensitivity,
)

WHOLE = SensitivityRow(
    "group", "conv1", 32, 16, 0.5, "l2", "accuracy", 50, 0.75, -0.125, -0.25, 0.0625, 0.5, 0.25,
    0.002, 0.0005, 0.00025, 0.00075, None, None, None, None, "cpu", "m1.s1", 7088, 119808, None,
    ("contended", "steal"),
)  # fmt: skip
FAILED = SensitivityRow("block", "-layer1", None, None, 1.0, None, "accuracy", 50, reason="=no")
README = Path(__file__).resolve().parents[2] / "results" / "README.md"


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    write_sensitivity(tmp_path / "a.csv", [WHOLE, FAILED])
    assert read_sensitivity(tmp_path / "a.csv") == [WHOLE, FAILED]


def test_unknown_cells_are_empty_and_no_cell_is_a_formula(tmp_path: Path) -> None:
    write_sensitivity(tmp_path / "a.csv", [FAILED])
    with (tmp_path / "a.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["val_acc"] == row["saved_s"] == row["flags"] == row["width"] == ""
    assert row["name"] == "'-layer1"
    assert row["reason"] == "'=no"


def test_the_cost_is_the_rise_of_the_loss_per_second_saved() -> None:
    assert WHOLE.cost == pytest.approx(500)
    assert FAILED.cost is None


def damaged(path: Path, old: str, new: str) -> str:
    write_sensitivity(path, [WHOLE])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_sensitivity(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",16,", ",many,", "line 2: kept must be a whole number. Received: 'many'"),
        (",0.75,", ",high,", "line 2: val_acc must be a finite number. Received: 'high'"),
        (",0.75,", ",nan,", "line 2: val_acc must be a finite number. Received: 'nan'"),
        (",0.0005,", ",inf,", "line 2: saved_s must be a finite number. Received: 'inf'"),
        (",0.00025,", ",,", "must be all given or all empty. Empty: saved_lo_s"),
        (",-0.25,", ",,", "must be all given or all empty. Empty: val_acc_change_lo"),
        (",0.0625,", ",-0.5,", "interval of val_acc_change must not end below its start"),
        (",0.002,", ",0,", "dense_s must be above 0. Received: 0.0"),
        ("16,0.5,", "16,0,", "ratio must be 0.5, 1 - kept / width. Received: 0"),
        ("32,16,", "32,32,", "kept must be from 1 to below width. Received: 32 of 32"),
        ("32,16,", "32,,", "kept must be from 1 to below width. Received: None of 32"),
        ("group", "layer", "kind must be 'group' or 'block'. Received: 'layer'"),
        ("group", "block", "a block must have no width"),
        (",50,", ",0,", "n must be at least 1. Received: 0"),
        ("conv1", "", "line 2: name must be given. Received: ''"),
        ("kind,", "", "is not the table of a sensitivity analysis: it lacks the columns kind."),
        (",contended steal", "", "expected 28 cells, received 27"),
    ],
)
def test_a_damaged_table_is_refused_with_the_place(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    said = damaged(tmp_path / "a.csv", old, new)
    assert words in said
    assert said.endswith("made anew once it is deleted.")


def test_a_spreadsheets_mark_at_the_start_is_no_part_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_sensitivity(path, [WHOLE])
    path.write_text(path.read_text(), encoding="utf-8-sig", newline="\r\n")
    assert read_sensitivity(path) == [WHOLE]


def test_a_row_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    write_sensitivity(tmp_path / "a.csv", [WHOLE, WHOLE])
    with pytest.raises(ConfigError, match="line 3: 'conv1' must be there once with 16 kept"):
        read_sensitivity(tmp_path / "a.csv")


def test_a_time_counts_unless_it_was_disturbed() -> None:
    assert has_time(WHOLE)
    assert not has_time(FAILED)
    assert not has_time(replace(WHOLE, flags=("no_steady_state",)))


def test_every_criterion_is_named_where_it_is_explained() -> None:
    section = README.read_text().split("## sensitivity.csv")[1].split("\n## ")[0]
    for criterion in CRITERIA:
        assert criterion == "random" or f"`{criterion}`" in section, criterion


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no file. Expected a sensitivity.csv"):
        read_sensitivity(tmp_path / "none.csv")


def test_an_analysis_has_a_folder_beside_the_studies(tmp_path: Path) -> None:
    folder = SensitivityFolder(tmp_path, "a")
    folder.create()
    assert folder.table.parent == tmp_path / "sensitivity" / "a"
    assert [path.name for path in folder.path.iterdir()] == ["models"]
    assert not (tmp_path / "studies").exists()


def test_every_column_is_explained() -> None:
    section = README.read_text().split("## sensitivity.csv")[1].split("\n## ")[0]
    for column in COLUMNS:
        assert f"`{column}`" in section, column


def test_instructions_have_columns_of_their_own(tmp_path: Path) -> None:
    counted = replace(
        untimed(WHOLE), target="board", fingerprint="m1.s1", flags=("emulated",),
        **measured_fields(INSTRUCTIONS, 2e6, (0.75, 0.5, 0.875)),  # type: ignore[arg-type]
    )  # fmt: skip
    assert counted.saved == (5e5, 2.5e5, 1e6)
    assert counted.quantity is INSTRUCTIONS
    assert has_time(counted)
    assert counted.cost == pytest.approx(0.25 / 5e5)
    write_sensitivity(tmp_path / "a.csv", [counted])
    assert read_sensitivity(tmp_path / "a.csv") == [counted]
    assert untimed(counted).saved is None


def test_a_row_has_a_time_or_instructions_never_both(tmp_path: Path) -> None:
    write_sensitivity(tmp_path / "a.csv", [replace(WHOLE, saved_instructions=1.0)])
    with pytest.raises(ConfigError, match="not both"):
        read_sensitivity(tmp_path / "a.csv")
