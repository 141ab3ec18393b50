"""The picture of a search: what is drawn, read back from the figure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from harness_results import picture
from harness_results.picture import draw_search
from support.figures import keep_figures
from support.records import DENSE_S, figures, finals, record

if TYPE_CHECKING:
    from pathlib import Path

    from harness_results.record import RunRecord


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are made."""
    return keep_figures(monkeypatch, picture)


def trials() -> list[RunRecord]:
    return [
        record("trial", "uniform", index=0, ratio=0.40, validation=0.80),
        record("trial", "searched", index=1, ratio=0.48, validation=0.90),
        record("trial", "searched", index=2, ratio=0.60, status="over_budget"),
        record("trial", "searched", index=3, ratio=0.60, status="failed", latency={}),
    ]


def points(figure: Figure) -> Any:
    (axes,) = figure.axes
    return np.asarray(axes.collections[0].get_offsets())


def labels(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def budget_line(figure: Figure) -> float:
    (axes,) = figure.axes
    (line,) = [line for line in axes.lines if str(line.get_label()).startswith("budget")]
    return float(line.get_xdata()[0])  # type: ignore[index, arg-type]


def test_a_png_of_a_useful_size_is_written(tmp_path: Path) -> None:
    draw_search(tmp_path / "a.png", [*trials(), *finals().values()], finals())
    pixels = matplotlib.image.imread(tmp_path / "a.png")
    assert pixels.shape[0] >= 600
    assert pixels.shape[1] >= 1000
    assert pixels.std() > 0  # something is drawn


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path: Path) -> None:
    named = {role: replace(r, task={**r.task, "name": r"$\frac$"}) for role, r in finals().items()}
    draw_search(tmp_path / "a.png", [], named)
    assert (tmp_path / "a.png").exists()


def test_trained_trials_are_dots_of_share_and_accuracy(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_search(tmp_path / "a.png", trials(), finals())
    np.testing.assert_allclose(points(drawn[0]), [[0.40, 0.80], [0.48, 0.90]])


def test_budget_dense_controls_and_winner_are_told_apart(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_search(tmp_path / "a.png", trials(), finals())
    text = " ".join(labels(drawn[0]))
    for word in ("dense", "uniform", "global", "winner", "trials", "budget 50%"):
        assert word in text
    assert budget_line(drawn[0]) == 0.5
    (axes,) = drawn[0].axes
    markers = {container.lines[0].get_marker() for container in axes.containers}  # type: ignore[attr-defined]
    assert len(markers) == 4
    left, right = axes.get_xlim()
    assert (left, right > 1) == (0, True)
    assert "share of the dense" in axes.get_xlabel()


def test_a_time_budget_is_drawn_in_milliseconds(tmp_path: Path, drawn: list[Figure]) -> None:
    own = {"dense": record(role="dense", ratio=1.0, budget="0.02ms", statistic="p90")}
    one = record("trial", "uniform", ratio=0.4, budget="0.02ms", statistic="p90")
    draw_search(tmp_path / "a.png", [one], own)
    assert budget_line(drawn[0]) == pytest.approx(0.02)
    assert points(drawn[0])[0, 0] == pytest.approx(0.4 * DENSE_S * 1.1 * 1e3)
    assert drawn[0].axes[0].get_xlabel() == "p90 latency, ms"


def test_error_bars_are_the_intervals(tmp_path: Path, drawn: list[Figure]) -> None:
    made = figures(ratio_p50=[0.4, 0.3, 0.45])
    won = record(latency={"final": made}, test=(0.9, 0.8, 0.95))
    draw_search(tmp_path / "a.png", [], {"winner": won})
    (container,) = drawn[0].axes[0].containers
    across, up = (bars.get_segments()[0] for bars in container.lines[2])  # type: ignore[attr-defined]
    np.testing.assert_allclose(across, [[0.3, 0.9], [0.45, 0.9]])
    np.testing.assert_allclose(up, [[0.4, 0.8], [0.4, 0.95]])


def test_a_search_without_trained_trials_and_with_exact_figures(tmp_path: Path) -> None:
    exact = record(role="dense", latency={"final": figures(1.0, ratio_p50=[1.0] * 3)},
                   test=(1.0, 0.96, 1.0))  # fmt: skip
    draw_search(tmp_path / "a.png", [], {"dense": exact})
    assert (tmp_path / "a.png").stat().st_size > 1000
