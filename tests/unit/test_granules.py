"""Steps whose channel counts follow the target's granule."""

from __future__ import annotations

from typing import Any

import pytest

from harness.compression.steps import parse_step
from harness.compression.steps.base import Work
from harness.errors import ConfigError
from support.steps import Heard, context
from support.tiny import tiny

TASK = tiny()
"""Its groups have 32 and 48 channels."""


def decided(text: str, granule: int) -> tuple[dict[str, Any], Heard, list[bool]]:
    """Return a decision, what was told, and whether cores were held when the granule was asked."""
    heard, asked = Heard(), []

    def target() -> int:
        asked.append(heard.holding)
        return granule

    work = Work(TASK.model())
    given = context(TASK, work.module, heard, granule=target)
    return parse_step(text).decide(work, given), heard, asked


@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_widths_go_in_steps_of_the_targets_granule(scope: str) -> None:
    decision, heard, asked = decided(f"prune:params=70%,scope={scope}", 16)
    assert decision["granule"] == 16
    assert all(width % 16 == 0 for width in decision["widths"].values())
    assert asked == [False]  # a probe needs the machine to itself
    assert any("steps of 16, which the target rewards" in note for note in heard.notes)


def test_finer_steps_are_the_last_resort_and_told() -> None:
    decision, heard, _ = decided("prune:params=5%", 16)
    assert decision["granule"] < 16
    assert any("in those of 16" in note and "out of reach" in note for note in heard.notes)


@pytest.mark.parametrize("text", ["prune:params=70%,granule=3", "low-rank:params=90%,granule=3"])
def test_a_users_granule_stands(text: str) -> None:
    decision, _, asked = decided(text, 16)
    assert (decision["granule"], asked) == (3, [])


def test_named_layers_are_taken_at_their_word() -> None:
    decision, _, asked = decided("prune:scope=layers,layers=conv1=7+conv2=50%", 16)
    assert decision["widths"] == {"conv1": 7, "conv2": 24}
    assert asked == []


def test_ranks_follow_the_granule_too() -> None:
    decision, _, asked = decided("low-rank:params=60%", 4)
    assert decision["ranks"]
    assert all(rank % decision["granule"] == 0 for rank in decision["ranks"].values())
    assert asked == [False]


def test_a_goal_out_of_reach_is_refused_whatever_the_granule() -> None:
    with pytest.raises(ConfigError, match="can't reach the goal"):
        decided("prune:params=0.1%", 16)
