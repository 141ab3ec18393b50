from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from harness.candidate import OnnxModel
from harness.errors import BackendError, BackendUnavailable
from harness.measurement.types import Block
from harness.target import Target
from harness_backends.base import Backend, Session, Worker
from harness_backends.onnxruntime import OnnxRuntimeBackend
from harness_backends.testing.contract import BackendContract
from harness_backends.testing.fake import FakeBackend

TARGET = Target("here", "any")


class TestOnnxRuntime(BackendContract):
    def backend(self) -> Backend:
        return OnnxRuntimeBackend(TARGET)


class TestFake(BackendContract):
    def backend(self) -> Backend:
        return FakeBackend(TARGET)


class PlainSession(Session):
    """Multiplies, as `linear_model` does; a correct backend in memory, for others to break."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.session_create_s = self.first_inference_s = 0.1

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return [array * self.factor for array in inputs.values()]


class PlainWorker(Worker):
    def __init__(self) -> None:
        self.facts = {"runtime_version": "1", "machine": {"cpu_count": 1}}

    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> Session:
        try:
            proto = onnx.load(str(model.path))
        except Exception as exc:
            raise BackendError(f"{model.path.name}: {exc}") from exc
        return PlainSession(float(numpy_helper.to_array(proto.graph.initializer[0])[0]))

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        return [self.block(calls) for _, calls in schedule]

    def block(self, calls: int) -> Block:
        return Block(np.full(calls, 9), np.full(calls, 9), np.zeros(calls, np.int64))

    def state(self) -> dict[str, Any]:
        return {"governor": None, "max_khz": None, "throttle_count": None}

    def close(self) -> None:
        pass


class PlainBackend(Backend):
    name = "plain"

    @classmethod
    def check_available(cls) -> str:
        return "1"

    def open(self) -> Worker:
        return PlainWorker()


class TestPlain(BackendContract):
    def backend(self) -> Backend:
        return PlainBackend(TARGET)


class Nameless(PlainWorker):
    def __init__(self) -> None:
        super().__init__()
        self.facts = {**self.facts, "runtime_version": ""}


class NoMachine(PlainWorker):
    def __init__(self) -> None:
        super().__init__()
        self.facts = {"runtime_version": "1"}


class Reordering(PlainWorker):
    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> Session:
        session = super().load(model, inputs)
        whole = session.infer
        session.infer = lambda fed: [out[::-1] for out in whole(fed)]  # type: ignore[method-assign]
        return session


class FirstBatchOnly(PlainWorker):
    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> Session:
        session = super().load(model, inputs)
        whole = session.infer
        session.infer = lambda fed: [out[:1] for out in whole(fed)]  # type: ignore[method-assign]
        return session


class RemembersByFileName(PlainWorker):
    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Session] = {}

    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> Session:
        if model.path.name not in self.known:
            self.known[model.path.name] = super().load(model, inputs)
        return self.known[model.path.name]


class CallTooFew(PlainWorker):
    def block(self, calls: int) -> Block:
        return super().block(calls - 1)


class Backwards(PlainWorker):
    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        return super().time(schedule)[::-1]


class Merging(PlainWorker):
    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        return [self.block(sum(calls for _, calls in schedule))]


class StandingClock(PlainWorker):
    def block(self, calls: int) -> Block:
        return Block(*(np.zeros(calls, np.int64) for _ in range(3)))


class NoCounters(PlainWorker):
    def block(self, calls: int) -> Block:
        none = np.zeros(0, np.int64)
        return Block(super().block(calls).wall_ns, none, none)


class NegativeCounters(PlainWorker):
    def block(self, calls: int) -> Block:
        good = super().block(calls)
        return Block(good.wall_ns, good.cpu_ns, good.nivcsw - 1)


class UntimedStart(PlainWorker):
    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> Session:
        session = super().load(model, inputs)
        session.session_create_s = 0.0
        return session


class RawErrors(PlainWorker):
    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> Session:
        try:
            return super().load(model, inputs)
        except BackendError as exc:
            raise RuntimeError(str(exc)) from exc


class NamelessErrors(PlainWorker):
    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> Session:
        try:
            return super().load(model, inputs)
        except BackendError as exc:
            raise BackendError("it can't be loaded") from exc


class TakesAnything(PlainWorker):
    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> Session:
        try:
            return super().load(model, inputs)
        except BackendError:
            return PlainSession(1.0)


class DeadAfterAnError(PlainWorker):
    dead = False

    def load(self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> Session:
        if self.dead:
            raise BackendError("dead")
        try:
            return super().load(model, inputs)
        except BackendError:
            self.dead = True
            raise


class NoSensors(PlainWorker):
    def state(self) -> dict[str, Any]:
        return {}


BROKEN = {
    Nameless: "test_facts_identify_runtime_and_machine",
    NoMachine: "test_facts_identify_runtime_and_machine",
    Reordering: "test_outputs_follow_inputs_sample_by_sample",
    FirstBatchOnly: "test_outputs_follow_inputs_sample_by_sample",
    RemembersByFileName: "test_two_models_stay_apart",
    CallTooFew: "test_blocks_have_the_calls_asked_for",
    Backwards: "test_blocks_have_the_calls_asked_for",
    Merging: "test_blocks_have_the_calls_asked_for",
    StandingClock: "test_blocks_have_the_calls_asked_for",
    NoCounters: "test_blocks_have_the_calls_asked_for",
    NegativeCounters: "test_blocks_have_the_calls_asked_for",
    UntimedStart: "test_start_up_is_timed",
    RawErrors: "test_a_bad_model_is_a_backend_error",
    NamelessErrors: "test_a_bad_model_is_a_backend_error",
    TakesAnything: "test_a_bad_model_is_a_backend_error",
    DeadAfterAnError: "test_a_bad_model_is_a_backend_error",
    NoSensors: "test_state_is_a_mapping_of_known_keys",
}


def failing(worker: type[PlainWorker], folder: Path) -> set[str]:
    """Return the contract tests that a worker fails."""
    suite, failed = BackendContract(), set()
    for name, test in inspect.getmembers(suite, inspect.ismethod):
        if not name.startswith("test_"):
            continue
        (folder / name).mkdir()
        given = {"worker": worker(), "tmp_path": folder / name}
        try:
            test(**{key: given[key] for key in inspect.signature(test).parameters})
        except (Exception, pytest.fail.Exception):
            failed.add(name)
    return failed


@pytest.mark.parametrize("worker", BROKEN, ids=lambda worker: worker.__name__)
def test_the_contract_catches_a_broken_backend(worker: type[PlainWorker], tmp_path: Path) -> None:
    assert failing(PlainWorker, tmp_path) == set()
    (tmp_path / "broken").mkdir()
    assert BROKEN[worker] in failing(worker, tmp_path / "broken")


def test_every_test_of_the_contract_catches_something() -> None:
    tests = {name for name in vars(BackendContract) if name.startswith("test_")}
    assert set(BROKEN.values()) == tests


def test_a_backend_that_lacks_a_method_can_not_be_made() -> None:
    class Half(Backend):
        name = "half"

        @classmethod
        def check_available(cls) -> str:
            return "1"

    with pytest.raises(TypeError, match="open"):
        Half(TARGET)  # type: ignore[abstract]


class TestUnavailable:
    def test_the_contract_skips_with_the_backends_own_words(self) -> None:
        class Absent(PlainBackend):
            @classmethod
            def check_available(cls) -> str:
                raise BackendUnavailable("Run `pip install it`.")

        class Suite(BackendContract):
            def backend(self) -> Backend:
                return Absent(TARGET)

        opened = inspect.unwrap(BackendContract.worker)
        with pytest.raises(pytest.skip.Exception, match="pip install it"):
            next(opened(Suite()))
