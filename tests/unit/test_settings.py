from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.budget import parse_budgets
from harness.errors import ConfigError
from harness.target import Target
from harness_search.settings import Settings, check_study_name

SETTINGS = Settings(Target("cpu", "onnxruntime"), parse_budgets("50%"))


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        ("50%", "digits-cpu-50pct-p50-s0"),
        ("10 ms", "digits-cpu-10ms-p90-s0"),
        ("50%,30%", "digits-cpu-30pct+50pct-p50-s0"),
        ("0.5ms", "digits-cpu-0.5ms-p90-s0"),
    ],
)
def test_a_study_is_named_for_what_it_searches(budget: str, name: str) -> None:
    assert replace(SETTINGS, budgets=parse_budgets(budget)).study_name("digits") == name


def test_a_study_named_by_the_user_has_that_name() -> None:
    assert replace(SETTINGS, study="mine").study_name("digits") == "mine"


def test_a_name_made_up_is_fit_for_a_folder() -> None:
    odd = replace(SETTINGS, target=Target("my/cpu ../x", "onnxruntime"))
    check_study_name(odd.study_name("a task/of mine"))


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/a", "a\0b"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--study"):
        check_study_name(name)


@pytest.mark.parametrize(
    "change",
    [
        {"target": Target("cpu", "onnxruntime", threads=2)},
        {"target": Target("cpu", "onnxruntime", granule=4)},
        {"budgets": parse_budgets("40%")},
        {"budgets": parse_budgets("50%", "p90")},
        {"seed": 1},
        {"max_drop": 0.01},
        {"max_size_bytes": 1000},
        {"layers": ("a",)},
        {"exclude": ("a",)},
    ],
)
def test_what_makes_another_study_changes_its_identity(change: dict[str, Any]) -> None:
    assert replace(SETTINGS, **change).identity() != SETTINGS.identity()


@pytest.mark.parametrize("change", [{"trials": 9}, {"time_s": 9.0}, {"study": "mine"}])
def test_how_long_to_search_is_no_identity(change: dict[str, Any]) -> None:
    assert replace(SETTINGS, **change).identity() == SETTINGS.identity()
