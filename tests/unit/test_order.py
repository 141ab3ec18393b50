"""Which steps can follow each other, and what is said of those that can."""

from __future__ import annotations

import pytest

from harness.compression.steps import parse_step
from harness.errors import ConfigError
from harness_search.pipeline import check_order, notes_on


@pytest.mark.parametrize(
    "names",
    ["distil qat int8", "qat int8", "qat int8-dynamic", "distil int8", "qat distil qat int8"],
)
def test_what_ends_in_int8_has_no_notes(names: str) -> None:
    steps = [parse_step(name) for name in names.split()]
    check_order(steps)
    assert notes_on(steps) == ()


@pytest.mark.parametrize("names", ["qat", "qat recalibrate", "distil qat", "qat fp16"])
def test_training_for_int8_without_int8_is_told(names: str) -> None:
    steps = [parse_step(name) for name in names.split()]
    check_order(steps)
    (note,) = notes_on(steps)
    assert "Add `--step int8`" in note


@pytest.mark.parametrize("names", ["qat distil", "qat distil int8", "qat qat recalibrate distil"])
def test_training_that_undoes_what_qat_did_is_refused(names: str) -> None:
    with pytest.raises(ConfigError, match="Put 'distil' before 'qat'"):
        check_order([parse_step(name) for name in names.split()])
