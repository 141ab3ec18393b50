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
from harness.measurement.types import Block, OperatorTime
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

    def __init__(self, factor: float, repeat: int = 1) -> None:
        self.factor, self.repeat = factor, repeat
        self.session_create_s = self.first_inference_s = 0.1

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return [array * self.factor for array in inputs.values()]


class PlainWorker(Worker):
    def __init__(self) -> None:
        self.facts = {"runtime_version": "1", "machine": {"cpu_count": 1}}

    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        return PlainSession(self.factor_of(model), repeat)

    def factor_of(self, model: OnnxModel) -> float:
        try:
            proto = onnx.load(str(model.path))
        except Exception as exc:
            raise BackendError(f"{model.path.name}: {exc}") from exc
        return float(numpy_helper.to_array(proto.graph.initializer[0])[0])

    def reload(self, session: Any) -> None:
        session.session_create_s = session.first_inference_s = 0.2

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        return [self.block(calls, 9 * session.repeat) for session, calls in schedule]

    def block(self, calls: int, wall_ns: int) -> Block:
        wall = np.full(calls, wall_ns, np.int64)
        return Block(wall, wall, np.zeros(calls, np.int64))

    def arrive(self, session: Any, due_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        begun, free = [], 0
        for due in due_ns.tolist():
            begun.append(max(due, free))
            free = begun[-1] + 9
        return np.stack([due_ns, np.array(begun), np.array(begun) + 9])

    def profile(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], runs: int
    ) -> list[OperatorTime]:
        self.factor_of(model)
        return [OperatorTime("only", "Mul", (1e-6, 0.0) * (runs // 2))]

    def peak_memory_bytes(self) -> int | None:
        return None

    def state(self) -> dict[str, Any]:
        return {"governor": None, "max_khz": None, "throttle_count": None}

    def close(self) -> None:
        pass


class PlainBackend(Backend):
    name = "plain"

    def check_available(self) -> str:
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
    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        session = super().load(model, inputs, repeat)
        whole = session.infer
        session.infer = lambda fed: [out[::-1] for out in whole(fed)]  # type: ignore[method-assign]
        return session


class FirstBatchOnly(PlainWorker):
    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        session = super().load(model, inputs, repeat)
        whole = session.infer
        session.infer = lambda fed: [out[:1] for out in whole(fed)]  # type: ignore[method-assign]
        return session


class RemembersByFileName(PlainWorker):
    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Session] = {}

    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        if model.path.name not in self.known:
            self.known[model.path.name] = super().load(model, inputs, repeat)
        return self.known[model.path.name]


class CallTooFew(PlainWorker):
    def block(self, calls: int, wall_ns: int) -> Block:
        return super().block(calls - 1, wall_ns)


class Backwards(PlainWorker):
    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        return super().time(schedule)[::-1]


class Merging(PlainWorker):
    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        return [self.block(sum(calls for _, calls in schedule), 9)]


class StandingClock(PlainWorker):
    def block(self, calls: int, wall_ns: int) -> Block:
        return super().block(calls, 0)


class NoCounters(PlainWorker):
    def block(self, calls: int, wall_ns: int) -> Block:
        none = np.zeros(0, np.int64)
        return Block(super().block(calls, wall_ns).wall_ns, none, none)


class NegativeCounters(PlainWorker):
    def block(self, calls: int, wall_ns: int) -> Block:
        good = super().block(calls, wall_ns)
        return Block(good.wall_ns, good.cpu_ns, good.nivcsw - 1)


class UntimedStart(PlainWorker):
    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        session = super().load(model, inputs, repeat)
        session.session_create_s = 0.0
        return session


class RawErrors(PlainWorker):
    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        try:
            return super().load(model, inputs, repeat)
        except BackendError as exc:
            raise RuntimeError(str(exc)) from exc


class NamelessErrors(PlainWorker):
    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        try:
            return super().load(model, inputs, repeat)
        except BackendError as exc:
            raise BackendError("it can't be loaded") from exc


class TakesAnything(PlainWorker):
    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        try:
            return super().load(model, inputs, repeat)
        except BackendError:
            return PlainSession(1.0)


class DeadAfterAnError(PlainWorker):
    dead = False

    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        if self.dead:
            raise BackendError("dead")
        try:
            return super().load(model, inputs, repeat)
        except BackendError:
            self.dead = True
            raise


class Forgetting(PlainWorker):
    def reload(self, session: Any) -> None:
        session.factor = 1.0


class ReloadsTheOther(PlainWorker):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[Any] = []

    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        self.loaded.append(super().load(model, inputs, repeat))
        return self.loaded[-1]  # type: ignore[no-any-return]

    def reload(self, session: Any) -> None:
        for other in self.loaded:
            other.factor = session.factor


class UntimedReload(PlainWorker):
    def reload(self, session: Any) -> None:
        session.first_inference_s = 0.0


class OnceOnly(PlainWorker):
    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        return super().load(model, inputs)


class OnceOnlyAfterAReload(PlainWorker):
    def reload(self, session: Any) -> None:
        session.repeat = 1


class StacksOutputsOfRepeats(PlainWorker):
    def load(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], repeat: int = 1
    ) -> Session:
        session = super().load(model, inputs, repeat)
        whole = session.infer
        session.infer = lambda fed: [  # type: ignore[method-assign]
            np.repeat(out, repeat, axis=0) for out in whole(fed)
        ]
        return session


class Hasty(PlainWorker):
    def arrive(self, session: Any, due_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        served = super().arrive(session, due_ns)
        served[1, -1] = due_ns[-1] - 1
        return served


class ServesAllAtOnce(PlainWorker):
    def arrive(self, session: Any, due_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.stack([due_ns, due_ns, due_ns + 9])


class EndsBeforeItBegins(PlainWorker):
    def arrive(self, session: Any, due_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        served = super().arrive(session, due_ns)
        return np.stack([due_ns, served[1], served[1]])


class DropsTheLate(PlainWorker):
    def arrive(self, session: Any, due_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        return super().arrive(session, np.unique(due_ns))


class DueWhenBegun(PlainWorker):
    def arrive(self, session: Any, due_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        _, begun, done = super().arrive(session, due_ns)
        return np.stack([begun, begun, done])


class NoNodes(PlainWorker):
    def profile(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], runs: int
    ) -> list[OperatorTime]:
        return super().profile(model, inputs, runs)[:0]


class RunTooMany(PlainWorker):
    def profile(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], runs: int
    ) -> list[OperatorTime]:
        return super().profile(model, inputs, runs + 2)


class FreeOperators(PlainWorker):
    def profile(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], runs: int
    ) -> list[OperatorTime]:
        (node,) = super().profile(model, inputs, runs)
        return [OperatorTime(node.name, node.op, (0.0,) * runs)]


class NamelessNodes(PlainWorker):
    def profile(
        self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], runs: int
    ) -> list[OperatorTime]:
        (node,) = super().profile(model, inputs, runs)
        return [OperatorTime("", node.op, node.runs_s)]


class ProfilesAnything(PlainWorker):
    def factor_of(self, model: OnnxModel) -> float:
        return 1.0


class NoMemory(PlainWorker):
    def peak_memory_bytes(self) -> int | None:
        return 0


class MemoryInMegabytes(PlainWorker):
    def peak_memory_bytes(self) -> Any:
        return 12.5


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
    Forgetting: "test_a_reloaded_session_does_the_same_work",
    ReloadsTheOther: "test_a_reloaded_session_does_the_same_work",
    UntimedReload: "test_a_reloaded_session_does_the_same_work",
    OnceOnly: "test_a_repeated_call_takes_longer",
    OnceOnlyAfterAReload: "test_a_repeated_call_takes_longer",
    StacksOutputsOfRepeats: "test_a_repeated_call_takes_longer",
    Hasty: "test_arrivals_are_served_in_turn",
    ServesAllAtOnce: "test_arrivals_are_served_in_turn",
    EndsBeforeItBegins: "test_arrivals_are_served_in_turn",
    DropsTheLate: "test_arrivals_are_served_in_turn",
    DueWhenBegun: "test_arrivals_are_served_in_turn",
    NoNodes: "test_a_profile_has_every_run_of_every_node",
    RunTooMany: "test_a_profile_has_every_run_of_every_node",
    FreeOperators: "test_a_profile_has_every_run_of_every_node",
    NamelessNodes: "test_a_profile_has_every_run_of_every_node",
    ProfilesAnything: "test_a_bad_model_can_not_be_profiled",
    NoMemory: "test_peak_memory_is_bytes_or_unknown",
    MemoryInMegabytes: "test_peak_memory_is_bytes_or_unknown",
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

        def check_available(self) -> str:
            return "1"

    with pytest.raises(TypeError, match="open"):
        Half(TARGET)  # type: ignore[abstract]


class TestUnavailable:
    def test_a_backend_without_a_profiler_is_skipped_there(self, tmp_path: Path) -> None:
        class NoProfiler(PlainWorker):
            def profile(
                self, model: OnnxModel, inputs: Mapping[str, NDArray[Any]], runs: int
            ) -> list[OperatorTime]:
                raise BackendError("nothing to look with")

        suite = BackendContract()
        for test in (
            suite.test_a_profile_has_every_run_of_every_node,
            suite.test_a_bad_model_can_not_be_profiled,
        ):
            with pytest.raises(pytest.skip.Exception, match="nothing to look with"):
                test(NoProfiler(), tmp_path)

    def test_the_contract_skips_with_the_backends_own_words(self) -> None:
        class Absent(PlainBackend):
            def check_available(self) -> str:
                raise BackendUnavailable("Run `pip install it`.")

        class Suite(BackendContract):
            def backend(self) -> Backend:
                return Absent(TARGET)

        opened = inspect.unwrap(BackendContract.worker)
        with pytest.raises(pytest.skip.Exception, match="pip install it"):
            next(opened(Suite()))
