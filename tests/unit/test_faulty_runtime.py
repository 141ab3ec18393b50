"""A runtime that fails in a real process: what is left of it is a reason, and this process."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.candidate import OnnxModel
from harness.errors import BackendError, CandidateFailed, DeviceLost
from harness.measurement.rounds import Plan, measure
from harness.measurement.types import Subject
from harness.target import Target
from harness_backends import bundle
from harness_backends.bundle import sources
from harness_backends.onnxruntime import OnnxRuntimeBackend, OnnxRuntimeWorker
from harness_backends.testing.contract import model_at
from support.running import is_gone

# The model's file says where and how the runtime fails: "create abort".
FAULTY = r"""
import sys, time

class Faulty:
    def __init__(self):
        import numpy
        self.np, self.version = numpy, "faulty"

    def create(self, path, options):
        with open(path) as file:
            self.fail = file.read().split()
        self.maybe("create")
        return list(self.fail)

    def call(self, session, feed):
        calls = []

        def call():
            calls.append(1)
            self.fail = session
            self.maybe("first" if len(calls) == 1 else "call")
            time.sleep(1e-4)
            return list(feed.values())

        return call

    def maybe(self, at):
        if self.fail[0] != at:
            return
        how = self.fail[1]
        if how == "abort":
            os.abort()
        if how == "kill":
            os.kill(os.getpid(), 9)
        if how == "segfault":
            import ctypes
            ctypes.string_at(0)
        if how == "exit":
            os._exit(3)
        if how == "hang":
            time.sleep(600)
        if how == "chatter":
            while True:
                os.write(2, b"retrying ...\\n")
                time.sleep(0.01)
        if how == "memory":
            raise MemoryError("no room for the weights")
        if how == "print":
            print("loading the model ...")
            os.write(1, b"\x00\x00\x00\x09garbage\n")
            sys.stdout.flush()
        if how == "last-words":
            os.write(2, b"kernel 7 is out of order\n")
            os._exit(1)


RUNTIMES["onnxruntime"] = Faulty
"""

INPUTS = {"input": np.ones((1, 4), np.float32)}
TARGET = Target("here", "onnxruntime")


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = {name: text + FAULTY * name.endswith(".runtimes") for name, text in sources()}
    monkeypatch.setattr(bundle, "sources", lambda: list(faulty.items()))


def opened() -> OnnxRuntimeWorker:
    return OnnxRuntimeBackend(TARGET).open()


def model(folder: Path, fault: str) -> OnnxModel:
    path = folder / f"{fault.replace(' ', '-')}.onnx"
    path.write_text(fault)
    return model_at(path)


FATAL = {
    "abort": r"signal 6 \(SIGABRT: the runtime gave up\)",
    "kill": r"signal 9 \(SIGKILL: the system may have run out of memory\)",
    "segfault": r"signal 11 \(SIGSEGV: the runtime crashed\)",
    "exit": "ended with code 3",
    "last-words": r"ended with code 1\. Its last words: kernel 7 is out of order",
}


def test_a_runtime_that_works_is_timed(tmp_path: Path) -> None:
    with opened() as worker:
        assert worker.facts["runtime_version"] == "faulty"
        session = worker.load(model(tmp_path, "none"), INPUTS)
        assert (worker.time([(session, 3)])[0].wall_ns > 0).all()


@pytest.mark.parametrize("how", FATAL)
@pytest.mark.parametrize("at", ["create", "first"])
def test_a_runtime_that_dies_of_a_model_is_a_lost_device(tmp_path: Path, at: str, how: str) -> None:
    with opened() as worker:
        with pytest.raises(DeviceLost, match=rf"{at}-{how}\.onnx on target 'here': .*{FATAL[how]}"):
            worker.load(model(tmp_path, f"{at} {how}"), INPUTS)
        with pytest.raises(DeviceLost, match=FATAL[how]):
            worker.state()
    assert is_gone(worker.facts["pid"])


@pytest.mark.parametrize("how", FATAL)
def test_a_runtime_that_dies_while_it_is_timed_is_a_lost_device(tmp_path: Path, how: str) -> None:
    with opened() as worker:
        session = worker.load(model(tmp_path, f"call {how}"), INPUTS)
        with pytest.raises(DeviceLost, match=FATAL[how]):
            worker.time([(session, 3)])


@pytest.mark.parametrize("at", ["create", "first", "call"])
def test_a_runtime_that_hangs_is_ended(tmp_path: Path, at: str) -> None:
    with opened() as worker:
        fine = worker.load(model(tmp_path, "none"), INPUTS)
        worker.channel.timeout_s = 0.3
        with pytest.raises(DeviceLost, match="did not answer within 0 s; it was ended"):
            worker.time([(worker.load(model(tmp_path, f"{at} hang"), INPUTS), 2)])
        with pytest.raises(DeviceLost, match="it was ended"):
            worker.time([(fine, 2)])
    assert is_gone(worker.facts["pid"])


def test_a_runtime_that_only_talks_is_ended_too(tmp_path: Path) -> None:
    with opened() as worker:
        worker.channel.timeout_s = 0.5
        with pytest.raises(DeviceLost, match="did not answer"):
            worker.load(model(tmp_path, "create chatter"), INPUTS)
    assert is_gone(worker.facts["pid"])


@pytest.mark.parametrize("at", ["create", "first"])
def test_memory_that_runs_out_is_a_refusal_and_the_process_goes_on(tmp_path: Path, at: str) -> None:
    with opened() as worker:
        with pytest.raises(BackendError, match=rf"{at}-memory\.onnx.*MemoryError: no room") as got:
            worker.load(model(tmp_path, f"{at} memory"), INPUTS)
        assert not isinstance(got.value, DeviceLost)
        session = worker.load(model(tmp_path, "none"), INPUTS)
        assert len(worker.time([(session, 3)])) == 1


def test_memory_that_runs_out_while_timing_is_a_refusal(tmp_path: Path) -> None:
    with opened() as worker:
        session = worker.load(model(tmp_path, "call memory"), INPUTS)
        with pytest.raises(BackendError, match="MemoryError: no room") as got:
            worker.time([(session, 3)])
        assert not isinstance(got.value, DeviceLost)
        assert worker.state()["clock_s"] > 0


@pytest.mark.parametrize("at", ["create", "first", "call"])
def test_what_a_runtime_prints_does_not_reach_the_protocol(tmp_path: Path, at: str) -> None:
    with opened() as worker:
        session = worker.load(model(tmp_path, f"{at} print"), INPUTS)
        worker.reload(session)
        assert [len(block.wall_ns) for block in worker.time([(session, 5), (session, 2)])] == [5, 2]
        np.testing.assert_array_equal(session.infer(INPUTS)[0], INPUTS["input"])


# The same, where models are timed against each other.

QUICK = Plan(processes=(1,), sittings=(6,), half_width=0.0, limit_s=0.1)


def measured(tmp_path: Path, **faults: str) -> Any:
    subjects = {name: Subject(model(tmp_path, fault), INPUTS) for name, fault in faults.items()}
    return measure(OnnxRuntimeBackend(TARGET).open, subjects, "dense", QUICK, nullcontext)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("create kill", "SIGKILL"),
        ("first abort", "SIGABRT"),
        ("call segfault", "SIGSEGV"),
        ("create memory", "MemoryError"),
        ("call last-words", "out of order"),
    ],
)
def test_the_model_that_a_runtime_dies_of_is_named_with_the_reason(
    tmp_path: Path, fault: str, reason: str
) -> None:
    with pytest.raises(CandidateFailed, match=reason) as caught:
        measured(tmp_path, dense="none", small=fault)
    assert caught.value.subject == "small"


def test_models_of_which_no_one_dies_are_measured(tmp_path: Path) -> None:
    found = measured(tmp_path, dense="none", small="call print")
    assert found["small"].stats.n_sittings >= 6
