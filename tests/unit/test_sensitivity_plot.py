"""The picture of a sensitivity analysis: what is drawn, read back from the figure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from harness_results import sensitivity_plot
from harness_results.sensitivity_plot import draw_sensitivity
from harness_results.sensitivity_table import SensitivityRow
from support.figures import keep_figures

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are made."""
    return keep_figures(monkeypatch, sensitivity_plot)


def row(name: str, kept: int, change: float | None, saved_s: float | None = None) -> SensitivityRow:
    if change is None:
        return SensitivityRow("group", name, 40, kept, 1 - kept / 40, "l2", "accuracy", 100,
                              reason="no")  # fmt: skip
    made = SensitivityRow(
        "group", name, 40, kept, 1 - kept / 40, "l2", "accuracy", 100, 0.9 + change, change,
        change - 0.05, change + 0.02,
    )  # fmt: skip
    if saved_s is None:
        return made
    return replace(made, saved_s=saved_s, saved_lo_s=saved_s - 1e-4, saved_hi_s=saved_s + 1e-4)


ROWS = [row("a", 30, -0.01, 1e-3), row("a", 20, -0.1), row("b", 20, -0.3, 2e-3), row("c", 20, None)]


def points(axes: Any) -> list[list[list[float]]]:
    return [np.asarray(one.lines[0].get_xydata()).tolist() for one in axes.containers]


def test_lines_start_at_the_dense_network(tmp_path: Path, drawn: list[Figure]) -> None:
    assert draw_sensitivity(tmp_path / "a.png", ROWS, "net on board")
    left, right = drawn[0].axes
    assert points(left) == [[[0, 0], [0.25, -0.01], [0.5, -0.1]], [[0, 0], [0.5, -0.3]]]
    assert points(right) == [[[0, 0], [1, -0.01]], [[0, 0], [2, -0.3]]]
    assert [text.get_text() for text in left.texts] == ["a", "b"]  # from top to bottom
    assert "ms" in right.get_xlabel()
    assert drawn[0].get_suptitle() == "net on board"
    pixels = matplotlib.image.imread(tmp_path / "a.png")
    assert min(pixels.shape[:2]) >= 600


def test_a_block_is_dashed(tmp_path: Path, drawn: list[Figure]) -> None:
    block = replace(row("d", 0, -0.2), kind="block", width=None, kept=None)
    draw_sensitivity(tmp_path / "a.png", [ROWS[1], block], "")
    assert [line.lines[0].get_linestyle() for line in drawn[0].axes[0].containers] == ["-", "--"]  # type: ignore[attr-defined]


def test_whiskers_are_the_intervals(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_sensitivity(tmp_path / "a.png", ROWS, "")
    left, right = drawn[0].axes
    (up,) = left.containers[1].lines[2]  # type: ignore[attr-defined]
    np.testing.assert_allclose(up.get_segments()[1], [[0.5, -0.35], [0.5, -0.28]])
    (across,) = right.containers[1].lines[2]  # type: ignore[attr-defined]
    np.testing.assert_allclose(across.get_segments()[1], [[1.9, -0.3], [2.1, -0.3]])


def test_without_times_there_is_one_panel(tmp_path: Path, drawn: list[Figure]) -> None:
    untimed = [replace(one, saved_s=None) for one in ROWS]
    assert draw_sensitivity(tmp_path / "a.png", untimed, "")
    assert len(drawn[0].axes) == 1


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path: Path) -> None:
    assert draw_sensitivity(tmp_path / "a.png", [row(r"$\frac$", 20, -0.1)], r"$\frac$ on cpu")


def test_where_nothing_was_measured_nothing_is_drawn(tmp_path: Path) -> None:
    assert not draw_sensitivity(tmp_path / "a.png", [row("c", 20, None)], "")
    assert not list(tmp_path.iterdir())


def test_labels_of_many_groups_stay_apart_and_beside_the_panel(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    many = [row(f"layer{i}", 20, -0.2 if i else -0.9) for i in range(26)]
    assert draw_sensitivity(tmp_path / "a.png", many, "")
    heights = sorted(text.xyann[1] for text in drawn[0].axes[0].texts)  # type: ignore[attr-defined]
    assert len(heights) == 26
    assert min(np.diff(heights)) > 1 / 31
    assert heights[0] >= -1e-9
    assert heights[-1] <= 1


def test_it_says_what_whiskers_and_squares_are(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_sensitivity(tmp_path / "a.png", ROWS, "")
    assert drawn[0].get_supxlabel() == "whiskers: 95 % intervals"
    block = replace(row("d", 0, -0.2), kind="block", width=None, kept=None)
    draw_sensitivity(tmp_path / "a.png", [ROWS[1], block], "")
    assert "dashed, with squares: a whole block" in drawn[1].get_supxlabel()


def test_lines_can_be_told_apart(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_sensitivity(tmp_path / "a.png", [row(f"layer{i}", 20, -0.1) for i in range(16)], "")
    lines = [one.lines[0] for one in drawn[0].axes[0].containers]  # type: ignore[attr-defined]
    looks = [(line.get_color(), line.get_marker()) for line in lines]
    assert len(set(looks)) == 16
    assert len({colour for colour, _ in looks[:8]}) == 8
