"""The picture of a compression: what is drawn, read back from the figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness_results import compression_picture
from harness_results.compression_picture import draw_compression
from support.compression import report, side
from support.figures import keep_figures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are made."""
    return keep_figures(monkeypatch, compression_picture)


def with_ratio(*ratio: float) -> dict[str, Any]:
    one = side(1e-3)
    return {**one, "latency": {**one["latency"], "ratio_p50": list(ratio)}}


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(
    "ratio", [(6.055, 6.0, 6.11), (1.0, 0.99, 1.01), (0.985, 0.98, 0.99), (1.1, 0.5, 2.5)]
)
def test_labels_stay_inside_of_the_frame_and_over_the_line(
    tmp_path: Path, drawn: list[Figure], ratio: tuple[float, ...]
) -> None:
    draw_compression(tmp_path / "p.png", report(after=with_ratio(*ratio)))
    axes = drawn[0].axes[0]
    frame = axes.get_window_extent()
    for text in axes.texts:
        assert text.get_window_extent().x1 < frame.x1
        patch = text.get_bbox_patch()
        assert patch is not None
        assert patch.get_facecolor() == (1, 1, 1, 1)
    assert f"{ratio[0] * 100:.1f} %" in texts(axes)


def test_the_title_has_the_steps_with_their_options(tmp_path: Path, drawn: list[Figure]) -> None:
    steps = [{"name": "prune", "text": "prune:macs=0.6"}, {"name": "int8", "text": "int8"}]
    draw_compression(tmp_path / "p.png", report(steps=steps))
    draw_compression(tmp_path / "p.png", report(steps=steps * 6))
    assert drawn[0].get_suptitle() == "t on cpu: prune:macs=0.6; int8"
    width = drawn[1].bbox.width
    assert "\n" in drawn[1].get_suptitle()
    title = drawn[1]._suptitle  # type: ignore[attr-defined]
    assert title.get_window_extent().width < width


def test_it_says_what_whiskers_and_ranges_are(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_compression(tmp_path / "p.png", report())
    left, right = drawn[0].axes
    assert "whiskers: 95 % interval" in left.get_xlabel()
    assert "whiskers: 95 % interval" in right.get_xlabel()
    assert "(95 % interval, paired: -1.00 to +1.00 pt)" in right.get_title()
