"""What a model costs before its first answer: each time in a process that loads nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.measurement.types import Spread, Startup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from harness.measurement.types import OpenWorker, Subject

_CALLS = 4
"""Calls after the first, in which a runtime's arena reaches its size."""


def measure_startup(
    open_worker: OpenWorker,
    subject: Subject,
    processes: int,
    exclusive: Callable[[], AbstractContextManager[None]],
) -> Startup:
    """Load one model in fresh processes, and nothing else in them.

    Args:
        open_worker: Starts a fresh timing process.
        subject: The model.
        processes: How many.
        exclusive: Gives a context manager that keeps other work off the machine.

    Raises:
        BackendError: If the runtime refuses the model, or dies of it.
    """
    created, first, peaks = [], [], []
    for _ in range(processes):
        with exclusive(), open_worker() as worker:
            session = worker.load(subject.model, subject.inputs, subject.repeat)
            worker.time([(session, _CALLS)])
            peaks.append(worker.peak_memory_bytes())
            created.append(session.session_create_s)
            first.append(session.first_inference_s)
    known = [peak for peak in peaks if peak is not None]
    return Startup(
        _spread(created), _spread(first), _spread(known) if known else None, len(created)
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.median(values)), min(values), max(values))
