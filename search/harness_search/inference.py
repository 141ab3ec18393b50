"""An exported file's outputs on any number of samples, through its backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.export import INPUT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.candidate import OnnxModel
    from harness_backends.base import Backend


def file_outputs(
    backend: Backend, model: OnnxModel, samples: NDArray[np.float32]
) -> NDArray[np.floating[Any]]:
    """Return logits `[N, classes]` of an exported file.

    Args:
        backend: Runs it; its target's batch is the file's.
        model: The file.
        samples: float32 `[N, ...]`, at least one; the last batch is filled up by repetition.
    """
    batch = backend.target.batch
    rows = np.arange(-(-len(samples) // batch) * batch) % len(samples)
    padded = samples[rows]
    with backend.open() as worker:
        outputs = worker.load(model, {INPUT: padded[:batch]}).infer({INPUT: padded})
    return outputs[0][: len(samples)]
