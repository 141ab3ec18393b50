"""Cells: unknown is empty, and none starts a spreadsheet formula."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import ConfigError
from harness_results.csvfile import cell, read_csv, to_csv

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (12345678901, "12345678901"),
        (0.0, "0"),
        (1 / 3, "0.333333"),
        (1234567.0, "1.23457e+06"),
        (2e-7, "2e-07"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_a_value_as_a_cell(value: Any, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_that_would_start_a_formula_is_quoted(start: str) -> None:
    assert cell(start + "1+1") == f"'{start}1+1"


@pytest.mark.parametrize("value", [-1, -0.5])
def test_a_negative_number_stays_a_number(value: float) -> None:
    assert float(cell(value)) == value


@pytest.mark.parametrize("text", ["a,b", 'say "x"', "two\nlines", "µ", "a;b", " padded "])
def test_any_text_comes_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(to_csv(("a", "b"), [{"a": text, "b": 1}]))
    assert read_csv(path, ("a", "b")) == [{"a": text, "b": "1"}]


def test_columns_rule_the_order_and_what_is_written() -> None:
    made = to_csv(("b", "a"), [{"a": 1, "b": 2, "c": 3}, {"a": 4}])
    assert made == b"b,a\n2,1\n,4\n"


def test_a_table_without_rows_comes_back(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(to_csv(("a",), []))
    assert read_csv(tmp_path / "t.csv", ("a",)) == []


GOOD = to_csv(("a", "b"), [{"a": 1, "b": 2}, {"a": 3, "b": 4}])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"a\n1\n", "it lacks the columns b"),
        (b"a,b,c\n1,2,3\n", "it has the columns c"),
        (b"x,y\n1,2\n", "must be a, b. Received a file of another kind, which begins with x, y"),
        (b"b,a\n1,2\n", "its columns must be in the order a, b"),
        (GOOD[:-3], "line 3: expected 2 cells, received 1"),
        (GOOD + b"5,6,7\n", "line 4: expected 2 cells, received 3"),
        (GOOD + b'5,"6\n', "not a readable CSV"),
        (b"\xff\xfe\x00", "not a readable CSV"),
        (b"\x00" * len(GOOD), "a file of another kind"),
    ],
    ids=["empty", "lacking", "more", "columns", "order", "cut", "long", "quote", "binary", "zeros"],
)
def test_a_corrupt_table_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=message) as got:
        read_csv(path, ("a", "b"))
    assert str(path) in str(got.value)
    assert "rebuild" in str(got.value)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    with pytest.raises(ConfigError, match=re.escape(f"No such file: {path}")):
        read_csv(path, ("a",))


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a readable CSV"):
        read_csv(tmp_path, ("a",))
