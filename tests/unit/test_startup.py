from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.candidate import OnnxModel
from harness.errors import BackendError, CandidateFailed, DeviceLost
from harness.measurement.startup import few_calls, measure_startup
from harness.measurement.types import Block, Spread, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SUBJECT = Subject(OnnxModel(Path("m.onnx"), "", 1, 17), {"input": np.zeros(3)}, repeat=2)


@dataclass
class Starts:
    """Gives a worker per process, whose figures are the next of each list."""

    created: Sequence[float] = (0.1, 0.9, 0.2)
    first: Sequence[float] = (0.03, 0.01, 0.02)
    peaks: Sequence[int | None] = (1000, 3000, 2000)
    fault: Exception | None = None
    events: list[str] = field(default_factory=list)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        self.events.append("lock")
        try:
            yield
        finally:
            self.events.append("unlock")

    @contextmanager
    def open(self) -> Iterator[Any]:
        process = self.events.count("open")
        self.events.append("open")
        try:
            yield Worker(self, process)
        finally:
            self.events.append("close")


class Worker:
    facts: Mapping[str, Any] = {}

    def __init__(self, starts: Starts, process: int) -> None:
        self.starts, self.process = starts, process

    def load(self, model: OnnxModel, inputs: Mapping[str, Any], repeat: int = 1) -> Any:
        assert (model, inputs, repeat) == (SUBJECT.model, SUBJECT.inputs, 2)
        if self.starts.fault is not None:
            raise self.starts.fault
        self.starts.events.append("load")
        created, first = self.starts.created[self.process], self.starts.first[self.process]
        return SimpleNamespace(session_create_s=created, first_inference_s=first)

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        self.starts.events.append("time")
        return [Block(*(np.zeros(calls, np.int64) for _ in range(3))) for _, calls in schedule]

    def peak_memory_bytes(self) -> int | None:
        self.starts.events.append("peak")
        return self.starts.peaks[self.process]


def started(starts: Starts, processes: int = 3) -> Any:
    return measure_startup(starts.open, "mine", SUBJECT, processes, starts.exclusive)


def test_start_up_figures_are_medians_and_ranges_over_processes() -> None:
    startup = started(Starts())
    assert startup.session_create_s == Spread(0.2, 0.1, 0.9)
    assert startup.first_inference_s == Spread(0.02, 0.01, 0.03)
    assert startup.peak_memory_bytes == Spread(2000, 1000, 3000)
    assert startup.n_processes == 3


def test_one_process_has_no_range() -> None:
    startup = started(Starts(), 1)
    assert startup.session_create_s == Spread(0.1, 0.1, 0.1)
    assert startup.n_processes == 1


def test_every_process_loads_the_model_once_and_has_the_machine_alone() -> None:
    starts = Starts()
    started(starts)
    assert starts.events == ["lock", "open", "load", "time", "peak", "close", "unlock"] * 3


def test_memory_that_no_process_tells_is_unknown() -> None:
    assert started(Starts(peaks=(None, None, None))).peak_memory_bytes is None


def test_memory_is_that_of_the_processes_that_tell() -> None:
    assert started(Starts(peaks=(None, 10, 30))).peak_memory_bytes == Spread(20, 10, 30)


@pytest.mark.parametrize("fault", [BackendError("no kernel"), DeviceLost("killed")])
def test_a_failure_names_the_model_and_the_process_is_ended(fault: Exception) -> None:
    starts = Starts(fault=fault)
    with pytest.raises(CandidateFailed, match=str(fault)) as caught:
        started(starts)
    assert caught.value.subject == "mine"
    assert caught.value.__cause__ is fault
    tries = 2 if isinstance(fault, DeviceLost) else 1  # something else may have ended it
    assert starts.events == ["lock", "open", "close", "unlock"] * tries


def test_a_process_that_is_lost_once_is_started_again() -> None:
    class Unlucky(Starts):
        @contextmanager
        def open(self) -> Iterator[Any]:
            self.fault = DeviceLost("gone") if "open" not in self.events else None
            with super().open() as worker:
                worker.process = max(0, worker.process - 1)
                yield worker

    starts = Unlucky()
    assert started(starts).session_create_s == Spread(0.2, 0.1, 0.9)
    assert starts.events.count("open") == 4


def test_a_process_that_can_not_be_started_is_no_models_fault() -> None:
    class Unreachable(Starts):
        @contextmanager
        def open(self) -> Iterator[Any]:
            raise DeviceLost("no python there")
            yield

    with pytest.raises(DeviceLost, match="no python there"):
        started(Unreachable())


def test_a_slow_model_is_called_less_often_while_it_settles() -> None:
    def calls(first_s: float) -> int:
        return few_calls(SimpleNamespace(session_create_s=1.0, first_inference_s=first_s))

    assert [calls(0.001), calls(5.0), calls(7.0), calls(60.0)] == [4, 4, 2, 1]
