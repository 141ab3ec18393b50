"""What every backend has to do, as tests: subclass `BackendContract` and give it a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from harness.candidate import OnnxModel
from harness.errors import BackendError, BackendUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from harness_backends.base import Backend

INPUT = "input"


def linear_model(path: Path, factor: float) -> OnnxModel:
    """Write a model that multiplies float32 `[1, 4]` by `factor`, and return it."""
    graph = helper.make_graph(
        [helper.make_node("Mul", [INPUT, "factor"], ["output"])], "linear",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, str(path))
    return OnnxModel(path, "", path.stat().st_size, 17)


def one_batch() -> dict[str, Any]:
    """Return inputs for `linear_model`."""
    return {INPUT: np.ones((1, 4), np.float32)}


class BackendContract:
    """Tests of the seam; pytest collects a subclass whose name begins with `Test`."""

    def backend(self) -> Backend:
        """Return the backend under test."""
        raise NotImplementedError

    @pytest.fixture
    def worker(self) -> Any:
        """A fresh worker; skips, with its own words, where the backend can't be used."""
        backend = self.backend()
        try:
            backend.check_available()
        except BackendUnavailable as exc:
            pytest.skip(str(exc))
        with backend.open() as worker:
            yield worker

    def test_facts_identify_runtime_and_machine(self, worker: Any) -> None:
        """The fingerprint is made from these."""
        assert worker.facts["runtime_version"]
        assert worker.facts["machine"]["cpu_count"] >= 1

    def test_outputs_follow_inputs_sample_by_sample(self, worker: Any, tmp_path: Path) -> None:
        """N samples in, N outputs out, in order, with the file's arithmetic."""
        session = worker.load(linear_model(tmp_path / "m.onnx", 3.0), one_batch())
        inputs = np.arange(20, dtype=np.float32).reshape(5, 4)
        np.testing.assert_allclose(session.infer({INPUT: inputs})[0], 3 * inputs)

    def test_two_models_stay_apart(self, worker: Any, tmp_path: Path) -> None:
        """Models of one file name in one worker must not be mixed up."""
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        first = worker.load(linear_model(tmp_path / "a" / "m.onnx", 2.0), one_batch())
        second = worker.load(linear_model(tmp_path / "b" / "m.onnx", 5.0), one_batch())
        inputs = np.ones((1, 4), np.float32)
        assert first.infer({INPUT: inputs})[0][0, 0] == 2.0
        assert second.infer({INPUT: inputs})[0][0, 0] == 5.0

    def test_blocks_have_the_calls_asked_for(self, worker: Any, tmp_path: Path) -> None:
        """One block per entry of the schedule, in order, one figure per call."""
        session = worker.load(linear_model(tmp_path / "m.onnx", 1.0), one_batch())
        blocks = worker.time([(session, 3), (session, 7)])
        assert [len(block.wall_ns) for block in blocks] == [3, 7]
        for block in blocks:
            assert len(block.cpu_ns) == len(block.nivcsw) == len(block.wall_ns)
            assert (block.wall_ns > 0).all()
            assert (block.cpu_ns >= 0).all()
            assert (block.nivcsw >= 0).all()

    def test_start_up_is_timed(self, worker: Any, tmp_path: Path) -> None:
        """Session creation and the first inference are figures too."""
        session = worker.load(linear_model(tmp_path / "m.onnx", 1.0), one_batch())
        assert session.session_create_s > 0
        assert session.first_inference_s > 0

    def test_a_bad_model_is_a_backend_error(self, worker: Any, tmp_path: Path) -> None:
        """A runtime's refusal is mapped, names the file, and leaves the worker usable."""
        path = tmp_path / "bad.onnx"
        path.write_bytes(b"no model")
        with pytest.raises(BackendError, match=r"bad\.onnx"):
            worker.load(OnnxModel(path, "", 8, 17), one_batch())
        worker.load(linear_model(tmp_path / "good.onnx", 1.0), one_batch())

    def test_state_is_a_mapping_of_known_keys(self, worker: Any) -> None:
        """Flags are made from these; a missing sensor is None, not a guess."""
        state = worker.state()
        assert {"governor", "max_khz", "throttle_count"} <= state.keys()
