"""How a folder's compression differs from the one asked for, in words."""

from __future__ import annotations

from typing import Any

import pytest

from harness.compression.steps import parse_step
from harness_results.compression_identity import differing


def identity(*steps: str) -> list[dict[str, Any]]:
    found = map(parse_step, steps)
    return [{"name": step.name, **step.options()} for step in found]


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (["prune:params=60%", "int8"], "In step 1, params was 0.5 and is 0.6."),
        (["prune:macs=50%", "int8"],
         "In step 1, params was 0.5 and is not given, macs was not given and is 0.5."),
        (["prune:params=50%"], "Step 2 is missing."),
        (["prune:params=50%", "distil", "int8"], "Step 2 was int8 and is distil."),
        (["prune:params=50%", "int8", "fp16"], "Step 3 is new."),
    ],
)  # fmt: skip
def test_steps_are_shown_as_they_are_written_with_what_differs(now: list[str], words: str) -> None:
    was, received, told = differing("steps", identity("prune:params=50%", "int8"), identity(*now))
    assert was == "--step prune:params=0.5 --step int8"
    assert received.startswith("--step prune:")
    assert told == f" {words}"


def test_steps_of_another_version_are_shown_as_they_are_kept() -> None:
    was, _, told = differing("steps", [{"name": "gone", "x": 1}], identity("int8"))
    assert (was, told) == ('[{"name": "gone", "x": 1}]', "")


def test_of_tables_the_keys_that_differ_are_shown() -> None:
    found = differing("target", {"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})
    assert found == ('{"b": 2}', '{"b": 3, "c": 4}', "")
    assert differing("seed", 0, 1) == ("0", "1", "")
