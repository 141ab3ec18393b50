from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.measurement.granule import GranuleProbe, WidthCurve
from harness.measurement.types import Estimate, LatencySample
from harness_results.calls import draw_calls, draw_requests
from harness_results.widths import draw_widths

if TYPE_CHECKING:
    from pathlib import Path


def sample(seed: int, preempted: float = 0.1) -> LatencySample:
    rng = np.random.default_rng(seed)
    wall = np.round(1e6 * rng.lognormal(0.0, 0.1, (12, 11))).astype(np.int64)
    switches = (rng.random((12, 11)) < preempted).astype(np.int64)
    return LatencySample(wall, wall, switches, np.arange(12) // 3)


@pytest.mark.parametrize("preempted", [0.0, 0.1, 1.0])
def test_calls_are_drawn_whoever_interrupted_them(tmp_path: Path, preempted: float) -> None:
    path = tmp_path / "calls.png"
    draw_calls(path, [("a", [sample(1, preempted)]), ("a", [sample(2), sample(3)])])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_can_be_a_vector(tmp_path: Path) -> None:
    path = tmp_path / "calls.svg"
    draw_calls(path, [("model <1> & $2$", [sample(1)])])
    assert "<svg" in path.read_text()


def test_requests_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "requests.png"
    draw_requests(path, "m", [np.linspace(0.001, 0.1, 50), np.full(50, 0.001)])
    assert path.stat().st_size > 0


@pytest.mark.parametrize("granule", [16, None])
def test_width_curves_are_drawn(tmp_path: Path, granule: int | None) -> None:
    curve = WidthCurve(
        "conv3x3", (32, 48, 64), tuple(Estimate(s, 0.9 * s, 1.1 * s) for s in (1e-4, 2e-4, 3e-4)),
        tuple(Estimate(r, 0.9 * r, 1.1 * r) for r in (0.3, 0.6, 1.0)), granule,
    )  # fmt: skip
    path = tmp_path / "widths.png"
    draw_widths(path, GranuleProbe((curve, curve), granule, 1.0), "cpu")
    assert path.read_bytes().startswith(b"\x89PNG")
