"""What a model costs before its first answer: each time in a process that loads nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.errors import BackendError, CandidateFailed, ConnectionLost, DeviceLost
from harness.measurement.persevering import persevere
from harness.measurement.types import Spread, Startup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from harness.measurement.types import OpenWorker, Subject, TimedSession

_CALLS, _CALLS_S = 4, 20.0
"""Calls after the first, in which a runtime's arena reaches its size, and their longest time."""


def measure_startup(
    open_worker: OpenWorker,
    name: str,
    subject: Subject,
    processes: int,
    exclusive: Callable[[], AbstractContextManager[None]],
) -> Startup:
    """Load one model in fresh processes, and nothing else in them.

    Args:
        open_worker: Starts a fresh timing process.
        name: What the model is called.
        subject: The model.
        processes: How many.
        exclusive: Gives a context manager that keeps other work off the machine.

    Raises:
        CandidateFailed: If the runtime refuses the model, or dies of it.
        DeviceLost: If a process can't be started at all.
    """
    created: list[float] = []
    first: list[float] = []
    peaks: list[int | None] = []
    losses = 0
    while len(created) < processes:
        try:
            session, peak = persevere(lambda: _started(open_worker, name, subject, exclusive))
        except CandidateFailed as exc:
            losses += 1
            if isinstance(exc.__cause__, DeviceLost) and losses == 1:
                continue  # something else may have ended it
            raise
        peaks.append(peak)
        created.append(session.session_create_s)
        first.append(session.first_inference_s)
    known = [peak for peak in peaks if peak is not None]
    return Startup(
        _spread(created), _spread(first), _spread(known) if known else None, len(created)
    )


def _started(
    open_worker: OpenWorker,
    name: str,
    subject: Subject,
    exclusive: Callable[[], AbstractContextManager[None]],
) -> tuple[TimedSession, int | None]:
    """Load and run the model in a process of its own; return its session and peak of memory."""
    with exclusive(), open_worker() as worker:
        try:
            session = worker.load(subject.model, subject.inputs, subject.repeat)
            worker.time([(session, few_calls(session))])
            return session, worker.peak_memory_bytes()
        except ConnectionLost:
            raise
        except BackendError as exc:
            raise CandidateFailed(name, exc) from exc


def few_calls(session: TimedSession) -> int:
    """Return how many calls let a fresh session settle: four, or fewer where they take long."""
    return max(1, min(_CALLS, int(_CALLS_S / session.first_inference_s)))


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.median(values)), min(values), max(values))
