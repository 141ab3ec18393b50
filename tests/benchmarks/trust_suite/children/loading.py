"""Shared by the scripts here: loads a model the way all of them time it.

One thread, CPU, ONNX Runtime's defaults otherwise; telemetry off before the import.
"""

from __future__ import annotations

import os
from collections.abc import Callable


def load_unit(path: str, repeat: int) -> Callable[[], None]:
    """Return a function that runs the model `repeat` times on the same random input."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {i.name: rng.standard_normal(i.shape, dtype=np.float32) for i in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    if repeat == 1:
        return lambda: session.run(names, feed)

    def unit() -> None:
        for _ in range(repeat):
            session.run(names, feed)

    return unit
