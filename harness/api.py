"""The Python API: what the commands do, without the printing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import ConfigError
from harness.export import read_onnx
from harness.measurement.hostlock import HostLock
from harness.measurement.rounds import FINAL, Subject, measure
from harness_backends.registry import open_backend
from harness_search.engine import search as _search
from harness_search.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from harness.measurement.types import Measurement
    from harness.target import Target
    from harness_search.engine import SearchResult
    from harness_search.settings import Settings


def search(settings: Settings, progress: Progress | None = None) -> SearchResult:
    """Search for the most accurate network within a latency budget; see `harness search`.

    Args:
        settings: What to search for, and where.
        progress: Told what is going on; None for silence.

    Raises:
        HarnessError: See `harness.errors`.
    """
    return _search(settings, progress if progress is not None else Progress())


def bench(path: Path, target: Target) -> Measurement:
    """Time an ONNX file on a target, in five fresh processes or more.

    Args:
        path: The file; its inputs must have fixed shapes. They are fed random numbers.
        target: Where to time.

    Raises:
        ConfigError: If the file can't be timed, or the target can't be used.
        BackendError: If the runtime refuses the model.
    """
    model, specs = read_onnx(path)
    rng = np.random.default_rng(0)
    try:
        inputs = {name: _random(rng, dtype, shape) for name, dtype, shape in specs}
    except (MemoryError, ValueError) as exc:
        shapes = ", ".join(f"{name!r} {list(shape)}" for name, _, shape in specs)
        raise ConfigError(f"{path}: its inputs don't fit in memory ({shapes}).") from exc
    backend = open_backend(target)
    measured = measure(
        backend.open, {"model": Subject(model, inputs)}, None, FINAL, HostLock().exclusive
    )
    return measured["model"]


def _random(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return standard normal numbers for floating types; zeros, valid as any index, for others."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.standard_normal(shape).astype(kind)
    return np.zeros(shape, kind)
