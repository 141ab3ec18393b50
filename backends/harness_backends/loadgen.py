"""MLPerf LoadGen as a referee: its SingleStream scenario on the same model, in its own process."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import BackendError, BackendUnavailable
from harness_backends.transport.launch import local_argv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from harness.candidate import OnnxModel
    from harness.target import Target

DISTRIBUTION = "mlcommons-loadgen"
_LIMIT_S = 240.0


@dataclass(frozen=True, slots=True)
class LoadGenResult:
    """What LoadGen's own log says.

    Attributes:
        version: Of LoadGen.
        verdict: `"VALID"` or what it is instead.
        n_queries: Queries completed.
        p50_s: Percentiles over all queries, seconds; likewise `p90_s` and `p99_s`.
    """

    version: str
    verdict: str
    n_queries: int
    p50_s: float
    p90_s: float
    p99_s: float


def check_referee(target: Target) -> str:
    """Return LoadGen's version.

    Raises:
        BackendUnavailable: If it is not installed, or can't drive the target's runtime.
    """
    if target.backend != "onnxruntime" or target.board or target.hosts or target.emulated_cpu:
        raise BackendUnavailable(
            f"`--referee loadgen` drives ONNX Runtime on this machine. Target {target.name!r} is "
            f"{target.backend!r}: use `--target cpu`, or leave the referee out."
        )
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as exc:
        raise BackendUnavailable(
            "MLPerf LoadGen is not installed. Run `pip install 'latency-harness[mlperf]'` (its "
            "wheels are for Python 3.11), or leave `--referee loadgen` out."
        ) from exc


def referee(
    model: OnnxModel, inputs: Mapping[str, NDArray[Any]], target: Target, seconds: float = 10.0
) -> LoadGenResult:
    """Run LoadGen's SingleStream on a model for at least `seconds`.

    Args:
        model: The file.
        inputs: One batch per input name, fed at every query.
        target: Threads, provider and options of the session.
        seconds: LoadGen's minimum duration.

    Raises:
        BackendUnavailable: If LoadGen is not installed, or can't drive the target's runtime.
        BackendError: If its process fails.
    """
    version = check_referee(target)
    with tempfile.TemporaryDirectory(prefix="harness-loadgen-") as folder:
        fed = Path(folder) / "inputs.npz"
        np.savez(fed, **inputs)  # type: ignore[arg-type]  # names are the model's own
        asked = {
            "model": str(model.path.resolve()), "inputs": str(fed), "logs": folder,
            "min_duration_ms": round(seconds * 1000), "affinity": list(target.affinity),
            "options": {
                "threads": target.threads, "provider": target.provider,
                "provider_options": dict(target.provider_options),
                "session_config": dict(target.session_config),
            },
        }  # fmt: skip
        argv = [*local_argv(), "-m", "harness_backends.loadgen_child", json.dumps(asked)]
        limit_s = _LIMIT_S + 10 * seconds
        try:
            ended = subprocess.run(
                argv, capture_output=True, text=True, check=False, timeout=limit_s
            )
        except subprocess.TimeoutExpired as exc:
            raise BackendError(
                f"{model.path.name}: MLPerf LoadGen did not end within {limit_s:.0f} s. It asks "
                "for 100 queries at least: leave the referee out for models that take seconds."
            ) from exc
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise BackendError(f"{model.path.name}: MLPerf LoadGen's process failed: {said[-1]}")
    return LoadGenResult(version=version, **json.loads(ended.stdout.splitlines()[-1]))
