"""A ladder from a sensitivity analysis."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from harness.errors import ConfigError
from harness_results.sensitivity_table import SensitivityRow, write_sensitivity
from harness_search.sensitivity_ladder import (
    check_fits,
    read_analysis,
    seed_notes,
    sensitivity_ladder,
    timed_here,
)
from harness_search.space import SearchSpace

if TYPE_CHECKING:
    from pathlib import Path

SPACE = SearchSpace(
    {"a": 40, "b": 40, "fixed": 8},
    {"a": (10, 20, 30, 40), "b": (10, 20, 30, 40), "fixed": (8,)}, ("l2",),
    uses_temperature=True, precisions=("fp32",),
)  # fmt: skip


def row(name: str, kept: int, rise: float | None, saved: float | None = None) -> SensitivityRow:
    return SensitivityRow(
        "group", name, 40, kept, 1 - kept / 40, "l2", "accuracy", 100,
        val_loss_change=rise, saved_s=saved,
        target="board", fingerprint="m1.s1", macs_saved=(40 - kept) * (1 if name == "a" else 4),
    )  # fmt: skip


def path(rows: list[SensitivityRow]) -> list[str]:
    """Return the groups in the order in which they lose a granule, from dense to floor."""
    ladder = sensitivity_ladder(SPACE, rows)[::-1]
    return [next(n for n in SPACE.dense if x[n] != y[n]) for x, y in pairwise(ladder)]


ROWS = [row("a", 30, 0.1, 1e-3), row("a", 20, 0.35, 2e-3), row("a", 10, 1.0, 3e-3),
        row("b", 30, 0.2, 1e-3), row("b", 20, 0.3, 2e-3), row("b", 10, 0.6, 3e-3)]  # fmt: skip


def test_it_goes_from_the_floor_to_the_dense_network_by_one_granule() -> None:
    ladder = sensitivity_ladder(SPACE, ROWS)
    assert ladder[0] == SPACE.floor()
    assert ladder[-1] == dict(SPACE.dense)
    assert len(ladder) == 7
    for lower, upper in pairwise(ladder):
        assert sum(lower[name] != upper[name] for name in SPACE.dense) == 1
        assert all(lower[name] <= upper[name] for name in SPACE.dense)
        assert all(lower[name] in SPACE.allowed[name] for name in SPACE.dense)


def test_the_step_that_costs_least_per_time_saved_comes_first() -> None:
    # By hand, rise per millisecond of each step: a 0.1, 0.25, 0.65; b 0.2, 0.1, 0.3.
    assert path(ROWS) == ["a", "b", "b", "a", "b", "a"]


def test_time_that_counts_double_halves_the_cost() -> None:
    faster = [replace(one, saved_s=one.saved_s * 4) if one.name == "b" else one  # type: ignore[operator]
              for one in ROWS]  # fmt: skip
    assert path(faster) == ["b", "b", "b", "a", "a", "a"]


def test_between_and_beyond_what_was_measured_it_is_linear() -> None:
    # One point each: a costs 0.2 per ms at any width, b 0.1.
    assert path([row("a", 20, 0.4, 2e-3), row("b", 20, 0.2, 2e-3)]) == ["b"] * 3 + ["a"] * 3
    # Beyond 50 % the slope of the last part counts: 0.9 per ms against b's 0.5.
    bent = [row("a", 30, 0.1, 1e-3), row("a", 20, 1.0, 2e-3), row("b", 20, 1.0, 2e-3)]
    assert path(bent) == ["a", "b", "b", "b", "a", "a"]


def test_a_loss_that_falls_by_chance_costs_nothing_and_saves_first() -> None:
    lucky = [row("a", 30, -0.05, 1e-3), row("a", 20, 0.5, 2e-3), row("b", 20, 0.2, 2e-3)]
    assert path(lucky)[0] == "a"
    assert path(lucky)[1] == "b"


def test_steps_that_save_nothing_come_last() -> None:
    slower = [row("a", 20, 0.0, -1e-4), row("b", 20, 5.0, 1e-3)]
    assert path(slower) == ["b"] * 3 + ["a"] * 3


def test_without_times_multiply_accumulates_count() -> None:
    # b saves four times as many per channel, so it goes first at twice the loss.
    untimed = [row("a", 20, 0.1), row("b", 20, 0.2)]
    assert path(untimed) == ["b"] * 3 + ["a"] * 3
    # One group with times is not enough: seconds and products don't compare.
    assert path([row("a", 20, 0.1, 1.0), row("b", 20, 0.2)]) == ["b"] * 3 + ["a"] * 3


def test_a_disturbed_time_does_not_count_and_is_told_of() -> None:
    disturbed = [replace(one, flags=("throttled",)) if one.name == "a" else one for one in ROWS]
    assert path(disturbed) == path([replace(one, saved_s=None) for one in ROWS])
    assert path(disturbed) != path(ROWS)
    (note,) = seed_notes(disturbed, SPACE, "m1.s1")
    assert "no undisturbed time for a, so multiply-accumulates stand in" in note
    # One ratio of a group that was timed undisturbed is enough.
    assert seed_notes([*disturbed[1:], ROWS[0]], SPACE, "m1.s1") == ()
    assert seed_notes(ROWS, SPACE, "m1.s1") == ()
    assert seed_notes([replace(one, saved_s=None) for one in ROWS], SPACE, "m1.s1") == ()
    assert seed_notes((), SPACE, "m1.s1") == ()


def test_times_of_another_machine_do_not_count_and_are_told_of() -> None:
    assert timed_here(ROWS, "m1.s1") == tuple(ROWS)
    here = timed_here(ROWS, "m2.s1")
    assert path(list(here)) == path([replace(one, saved_s=None) for one in ROWS]) != path(ROWS)
    assert [one.val_loss_change for one in here] == [one.val_loss_change for one in ROWS]
    (note,) = seed_notes(ROWS, SPACE, "m2.s1")
    assert "was timed on board (m1.s1); this target's fingerprint is m2.s1" in note
    mixed = [replace(one, fingerprint="m2.s1") if one.name == "a" else one for one in ROWS]
    (note,) = seed_notes(mixed, SPACE, "m2.s1")
    assert "was timed on board (m1.s1); " in note


def test_blocks_and_failed_rows_say_nothing_of_widths() -> None:
    block = replace(row("a", 20, 9.0), kind="block", name="layer1", width=None, kept=None)
    failed = row("a", 10, None)
    assert path([*ROWS, block, failed]) == path(ROWS)
    check_fits([*ROWS, block, failed], SPACE)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([*ROWS, row("c", 20, 0.1)], "group 'c' has 40 channels; in this network: none of this"),
        ([replace(one, width=48) for one in ROWS], "'a' has 48 channels; in this network: 40"),
        ([*ROWS[:5], replace(ROWS[5], criterion="l1")], "Received rows of l1, l2."),
        (ROWS[:3], "says nothing of the group b. Run `harness sensitivity`"),
        ([row("a", 20, None), row("b", 20, None)], "says nothing of the groups a, b."),
    ],
)
def test_an_analysis_of_another_network_is_refused(rows: list[SensitivityRow], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_fits(rows, SPACE)
    assert words in str(caught.value)


def test_an_empty_table_is_refused_and_none_is_fine(tmp_path: Path) -> None:
    write_sensitivity(tmp_path / "a.csv", [])
    with pytest.raises(ConfigError, match="must hold rows"):
        read_analysis(tmp_path / "a.csv")
    assert read_analysis(None) == ()
    whole = [replace(one, val_acc=0.9, val_acc_change=-0.1, val_acc_change_lo=-0.2,
                     val_acc_change_hi=0.0, val_loss=1.0, params_saved=10, saved_s=None,
                     target=None, fingerprint=None)
             for one in ROWS]  # fmt: skip
    write_sensitivity(tmp_path / "a.csv", whole)
    assert len(read_analysis(str(tmp_path / "a.csv"))) == 6
