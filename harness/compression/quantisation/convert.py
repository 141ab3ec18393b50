"""An exported file in other numbers: from float32 to float16 or int8, by ONNX Runtime's tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.compression.quantisation.precision import FP32
from harness.errors import ConfigError, ExportError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from harness.compression.quantisation.precision import Precision

_CHILD = "harness.compression.quantisation.child"
_ROOT = Path(__file__).resolve().parents[3]
"""Where the child finds this very code, whatever else of that name is installed."""
_VNNI = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"}
_ARM = {"neon", "asimd", "asimddp", "i8mm"}


def takes_full_range(flags: Collection[str]) -> bool:
    """Return whether a CPU multiplies 8-bit weights of the full range without saturating.

    x86 without VNNI adds two products of 8 bits in 16 (VPMADDUBSW): 2 x 255 x 127 doesn't fit.
    With VNNI (or AMX), and on ARM, products are added in 32 bits.

    Args:
        flags: The CPU's instruction sets as Linux names them, such as `avx512_vnni` or `asimddp`;
            empty where they aren't known, which counts as a CPU that saturates.
    """
    return not (_VNNI | _ARM).isdisjoint(flags)


def converted(
    data: bytes,
    precision: Precision,
    samples: NDArray[Any],
    input_name: str,
    full_range: bool,
) -> bytes:
    """Return an exported float32 file as one that computes in `precision`; names and types stay.

    `int8` is static quantisation: unsigned activations whose ranges the samples fix, signed
    symmetric weights per output channel, as pairs of QuantizeLinear and DequantizeLinear.
    `int8-dynamic` quantises the weights alone and finds the activations' ranges at every call:
    of convolutions, linear layers, products with constant matrices, LSTMs and embeddings.
    `fp16` stores weights and computes in half precision, but for operators that need float32.

    The same arguments give the same bytes on the same machine. The work is done by a process of
    its own, since this one keeps ONNX Runtime out.

    Args:
        data: An ONNX file, weights inside, batch fixed.
        precision: What it shall compute in; the file itself is returned for float32.
        samples: Prepared training samples `[N, ...]` of the input's type, at least one. They are
            fed in the file's batch; the first `precision.calibration` of them count.
        input_name: Of the file's input.
        full_range: Whether weights take 8 bits (see `takes_full_range`); else 7.

    Raises:
        ConfigError: If there is no sample.
        ExportError: If the file can't be converted, its conversion doesn't run, a number on its way
            is too large for half precision, or temporary files can't be written.
    """
    if precision.name == FP32.name:
        return data
    if not len(samples):
        raise ConfigError(
            f"Converting a file to {precision.name} needs at least one training sample. Received "
            "none."
        )
    job = {
        "precision": precision.name, "method": precision.method, "input_name": input_name,
        "full_range": full_range,
    }  # fmt: skip
    return _from_child(data, job, samples[: precision.calibration])


def _from_child(data: bytes, job: Mapping[str, Any], samples: NDArray[Any]) -> bytes:
    """Return what a child process makes of a file.

    Raises:
        ExportError: If it fails, or temporary files can't be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="harness-quantise-") as name:
            folder = Path(name)
            (folder / "model.onnx").write_bytes(data)
            (folder / "job.json").write_text(json.dumps(job))
            np.save(folder / "samples.npy", samples)
            _run(folder, job["precision"])
            return (folder / "result.onnx").read_bytes()
    except OSError as exc:
        needed = (3 * len(data) + samples.nbytes) / 1e6
        raise ExportError(
            f"Converting a file to {job['precision']} needs a folder for temporary files that can "
            f"be written, with room for about {needed:,.1f} MB. Received: {exc}. Make room there, "
            "or set TMPDIR to another folder."
        ) from exc


def _run(folder: Path, precision: str) -> None:
    """Let a child process convert what lies in a folder.

    Raises:
        ExportError: If it fails.
    """
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {
        "PYTHONPATH": path, "ORT_DISABLE_TELEMETRY": "1",
        # The tools hold names in sets: no file is to depend on the order of one process.
        "PYTHONHASHSEED": "0",
        # The tools' own temporary files go with the folder, also where the child is killed.
        "TMPDIR": str(folder),
    }  # fmt: skip
    # -P: a user's own onnx.py in the current folder is not to be imported.
    argv = [sys.executable, "-P", "-m", _CHILD, str(folder)]
    try:
        ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    except OSError as exc:
        raise ExportError(
            f"The process that converts a file to {precision} can't be started: {exc}. It needs "
            "about as much memory as this one."
        ) from exc
    if ended.returncode == 0:
        return
    lines = ended.stderr.strip().splitlines()
    why = lines[-1] if lines else "it said nothing"
    if ended.returncode < 0:
        why = f"its process was ended by signal {-ended.returncode}, perhaps for want of memory"
    raise ExportError(f"The exported file can't be converted to {precision}: {why}")
