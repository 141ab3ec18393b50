"""ONNX files that are timed as they are, and what they are fed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import BackendError, CandidateFailed, ConfigError, DeviceLost
from harness.onnxfile import read_onnx

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from harness.candidate import OnnxModel
    from harness.onnxfile import InputSpec
    from harness.target import Target


def read_files(paths: Sequence[Path], target: Target) -> list[tuple[OnnxModel, list[InputSpec]]]:
    """Return every file with its inputs.

    Raises:
        ConfigError: If one can't be timed, or a shape is given for an input that none has.
    """
    read = [read_onnx(path, target) for path in paths]
    known = list(dict.fromkeys(spec.name for _, specs in read for spec in specs))
    for name in target.shapes:
        if name not in known:
            raise ConfigError(
                f"A shape was given for input {name!r}, which {', '.join(map(str, paths))} doesn't "
                f"have. Its inputs: {', '.join(known)}."
            )
    return read


def blamed(exc: BackendError) -> BackendError | ConfigError:
    """Return a refusal as bad input, which it is; a crash or a hang stays a failure."""
    cause = exc.__cause__ if isinstance(exc, CandidateFailed) else exc
    if isinstance(cause, DeviceLost):
        return cause
    return ConfigError(f"{exc} Another runtime or another export may take the file.")


def random_inputs(path: Path, specs: Sequence[InputSpec]) -> dict[str, NDArray[Any]]:
    """Return one input of each name: normal numbers for floating ones, zeros for others.

    Raises:
        ConfigError: If they don't fit in memory.
    """
    rng = np.random.default_rng(0)
    try:
        return {spec.name: _fed(rng, spec) for spec in specs}
    except (MemoryError, ValueError) as exc:
        shapes = ", ".join(f"{spec.name!r} {list(spec.shape)}" for spec in specs)
        raise ConfigError(f"{path}: its inputs don't fit in memory ({shapes}).") from exc


def _fed(rng: np.random.Generator, spec: InputSpec) -> NDArray[Any]:
    """Return standard normal numbers for a floating input, zeros for another."""
    if spec.fed == "random":
        return rng.standard_normal(spec.shape).astype(spec.dtype)
    return np.zeros(spec.shape, spec.dtype)
