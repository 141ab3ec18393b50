"""What every backend has to do, as tests: subclass `BackendContract` and give it a backend."""

from __future__ import annotations

import hashlib
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
    return model_at(path)


def model_at(path: Path) -> OnnxModel:
    """Return the model in a file, whatever is in it."""
    data = path.read_bytes()
    return OnnxModel(path, hashlib.sha256(data).hexdigest(), len(data), 17)


def one_batch() -> dict[str, Any]:
    """Return inputs for `linear_model`."""
    return {INPUT: np.ones((1, 4), np.float32)}


def _profile_or_skip(worker: Any, folder: Path, runs: int) -> Any:
    try:
        return worker.profile(linear_model(folder / "m.onnx", 1.0), one_batch(), runs)
    except BackendError as exc:
        pytest.skip(f"no profiler: {exc}")


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
            worker.load(model_at(path), one_batch())
        worker.load(linear_model(tmp_path / "good.onnx", 1.0), one_batch())

    def test_a_reloaded_session_does_the_same_work(self, worker: Any, tmp_path: Path) -> None:
        """Sittings begin with fresh sessions of the same models, whatever else is loaded."""
        session = worker.load(linear_model(tmp_path / "m.onnx", 3.0), one_batch())
        other = worker.load(linear_model(tmp_path / "other.onnx", 7.0), one_batch())
        inputs = np.arange(8, dtype=np.float32).reshape(2, 4)
        for _ in range(2):
            worker.reload(session)
            np.testing.assert_allclose(session.infer({INPUT: inputs})[0], 3 * inputs)
            np.testing.assert_allclose(other.infer({INPUT: inputs})[0], 7 * inputs)
            assert session.session_create_s > 0
            assert session.first_inference_s > 0
            blocks = worker.time([(session, 3), (other, 2)])
            assert [len(block.wall_ns) for block in blocks] == [3, 2]

    def test_a_repeated_call_takes_longer(self, worker: Any, tmp_path: Path) -> None:
        """A known slow-down can be planted; it outlives a reload, and outputs stay as they are."""
        model = linear_model(tmp_path / "m.onnx", 2.0)
        once = worker.load(model, one_batch())
        often = worker.load(model, one_batch(), repeat=20)
        assert often.infer(one_batch())[0].shape == once.infer(one_batch())[0].shape
        for _ in range(2):
            fast, slow = worker.time([(once, 200), (often, 200)])
            assert np.median(slow.wall_ns) > 2 * np.median(fast.wall_ns)
            worker.reload(often)

    def test_arrivals_are_served_in_turn(self, worker: Any, tmp_path: Path) -> None:
        """None before it is due, one after the other; a late one waits."""
        session = worker.load(linear_model(tmp_path / "m.onnx", 1.0), one_batch())
        due = np.array([0, 0, 0, 1_000_000, 3_000_000], np.int64)
        served = worker.arrive(session, due)
        assert served.shape == (3, 5)
        told, begun, done = served
        np.testing.assert_array_equal(told, due)
        assert (begun >= due).all()
        assert (done > begun).all()
        assert (begun[1:] >= done[:-1]).all()

    def test_a_profile_has_every_run_of_every_node(self, worker: Any, tmp_path: Path) -> None:
        """The runtime's own figures: at least one node, and one figure per run."""
        nodes = _profile_or_skip(worker, tmp_path, 50)
        assert nodes
        for node in nodes:
            assert node.name
            assert node.op
            assert len(node.runs_s) == 50
            assert min(node.runs_s) >= 0  # a runtime may count whole microseconds
            assert sum(node.runs_s) > 0

    def test_a_bad_model_can_not_be_profiled(self, worker: Any, tmp_path: Path) -> None:
        """As in loading: mapped, named, and the worker goes on."""
        _profile_or_skip(worker, tmp_path, 2)
        path = tmp_path / "bad.onnx"
        path.write_bytes(b"no model")
        with pytest.raises(BackendError, match=r"bad\.onnx"):
            worker.profile(model_at(path), one_batch(), 2)
        worker.load(linear_model(tmp_path / "good.onnx", 1.0), one_batch())

    def test_peak_memory_is_bytes_or_unknown(self, worker: Any, tmp_path: Path) -> None:
        """What can't be told is None, never a guess such as zero."""
        session = worker.load(linear_model(tmp_path / "m.onnx", 1.0), one_batch())
        worker.time([(session, 3)])
        peak = worker.peak_memory_bytes()
        assert peak is None or (isinstance(peak, int) and peak > 0)

    def test_state_is_a_mapping_of_known_keys(self, worker: Any) -> None:
        """Flags are made from these; a missing sensor is None, not a guess."""
        state = worker.state()
        assert {"governor", "max_khz", "throttle_count"} <= state.keys()
