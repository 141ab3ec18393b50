"""An exported file's outputs on any number of samples, through its backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.measurement.persevering import persevere

if TYPE_CHECKING:
    from harness.candidate import OnnxModel
    from harness.data.split import Split
    from harness.tasks.objective import Arrays
    from harness_backends.base import Backend, DeviceLock

_CHUNK_BYTES = 32 * 2**20
"""Samples sent to the worker at once: data may be larger than memory."""


def file_outputs(
    backend: Backend, lock: DeviceLock, model: OnnxModel, split: Split, input_name: str
) -> Arrays:
    """Return all outputs, each `[N, ...]`, of an exported file on a split.

    Args:
        backend: Runs it; its target's batch is the file's.
        lock: Of the machine that it runs on.
        model: The file.
        split: At least one sample; the last batch is filled up by repetition.
        input_name: Of the file's input.
    """
    batch, first = backend.target.batch, next(split.chunks(1)).numpy()
    size = max(1, _CHUNK_BYTES // (batch * first.nbytes)) * batch

    def infer() -> Arrays:
        parts: list[Arrays] = []
        with lock.shared(), backend.open() as worker:
            session = worker.load(model, {input_name: np.repeat(first, batch, axis=0)})
            for chunk in split.chunks(size):
                samples = chunk.numpy()
                rows = np.arange(-(-len(samples) // batch) * batch) % len(samples)
                outputs = session.infer({input_name: samples[rows]})
                parts.append(tuple(output[: len(samples)] for output in outputs))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    return persevere(infer)
