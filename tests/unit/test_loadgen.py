from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.errors import BackendError, BackendUnavailable
from harness.target import Target
from harness_backends import loadgen
from harness_backends.testing.contract import linear_model, one_batch

if TYPE_CHECKING:
    from pathlib import Path

HERE = Target("cpu", "onnxruntime")


@pytest.mark.parametrize(
    "target", [Target("gpu", "tensorrt"), Target("board", "onnxruntime", hosts=("pi",))]
)
def test_a_target_that_it_can_not_drive_is_refused(target: Target) -> None:
    with pytest.raises(BackendUnavailable, match=rf"'{target.name}'.*--target cpu"):
        loadgen.check_referee(target)


def test_without_loadgen_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loadgen, "DISTRIBUTION", "no-such-distribution")
    with pytest.raises(BackendUnavailable, match=r"latency-harness\[mlperf\]"):
        loadgen.check_referee(HERE)


def test_loadgen_times_the_same_model(tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen")
    model = linear_model(tmp_path / "m.onnx", 2.0)
    judged = loadgen.referee(model, one_batch(), HERE, seconds=0.2)
    assert judged.verdict == "VALID"
    assert judged.n_queries > 100
    assert 0 < judged.p50_s <= judged.p90_s <= judged.p99_s
    assert judged.version == loadgen.check_referee(HERE)
    assert list(tmp_path.iterdir()) == [model.path]  # LoadGen's logs are gone


def test_a_run_that_fails_names_the_model(tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen")
    model = linear_model(tmp_path / "m.onnx", 2.0)
    model.path.write_bytes(b"no model")
    with pytest.raises(BackendError, match=r"m\.onnx: MLPerf LoadGen's process failed"):
        loadgen.referee(model, one_batch(), HERE, seconds=0.1)
