"""int8 outputs are bit for bit the same on the emulated ARM and on this x86-64.

With VNNI, weights take 8 bits. Without it x86 would saturate: weights then take 7, which is exact
on both, as the product does it (`takes_full_range`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from harness.compression.quantisation.convert import takes_full_range
from harness_backends.emulation.root import ArmRoot
from support.onnx_files import node, save_graph

ACTIVATIONS = ("QInt8", "QUInt8")
PREPARING = """\
import os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
samples = numpy.load("x.npy")
class Reader:
    def __init__(self): self.left = iter(samples)
    def get_next(self): return next(({"x": x[None]} for x in self.left), None)
for kind in sys.argv[2:]:
    quantize_static(
        "float.onnx", kind + ".onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=getattr(QuantType, kind), weight_type=QuantType.QInt8,
        reduce_range=sys.argv[1] == "7", op_types_to_quantize=["Conv", "Gemm"],
        extra_options={"WeightSymmetric": True})
"""
RUNNING = """\
import sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
samples = numpy.load("x.npy")
for kind in sys.argv[2:]:
    session = onnxruntime.InferenceSession(
        kind + ".onnx", options, providers=["CPUExecutionProvider"])
    outputs = [session.run(None, {"x": x[None]})[0] for x in samples]
    numpy.save(sys.argv[1] + kind + ".npy", numpy.concatenate(outputs))
"""


def python(argv: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    ended = subprocess.run(
        argv, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def host_flags() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models in float32 and int8, and 32 samples."""
    made = tmp_path_factory.mktemp("int8")
    rng = np.random.default_rng(0)
    weights = {
        "a": rng.normal(size=(24, 3, 3, 3)), "b": rng.normal(size=(24, 1, 3, 3)),
        "c": rng.normal(size=(32, 24, 1, 1)), "d": rng.normal(size=(32, 10)),
        "e": rng.normal(size=10),
    }  # fmt: skip
    nodes = [
        node("Conv", "x a", "1", strides=[2, 2]), node("Relu", "1", "2"),
        node("Conv", "2 b", "3", group=24), node("Relu", "3", "4"),
        node("Conv", "4 c", "5"), node("GlobalAveragePool", "5", "6"), node("Flatten", "6", "7"),
        node("Gemm", "7 d e", "y"),
    ]  # fmt: skip
    save_graph(made / "float.onnx", nodes, (3, 16, 16), weights, batch=1)
    np.save(made / "x.npy", rng.normal(size=(32, 3, 16, 16)).astype(np.float32))
    bits = "8" if takes_full_range(host_flags()) else "7"
    python([sys.executable, "-c", PREPARING, bits, *ACTIVATIONS], made, {})
    telemetry = {"ORT_DISABLE_TELEMETRY": "1"}
    python([sys.executable, "-c", RUNNING, "host-", *ACTIVATIONS, "float"], made, telemetry)
    return made


@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76"])
def test_int8_outputs_are_equal_bit_for_bit(cpu: str, folder: Path, arm_root: ArmRoot) -> None:
    argv = [*arm_root.argv(cpu), "-c", RUNNING, f"{cpu}-", *ACTIVATIONS, "float"]
    python(argv, folder, arm_root.environment())
    for kind in ACTIVATIONS:
        here, there = (np.load(folder / f"{who}-{kind}.npy") for who in ("host", cpu))
        assert len(np.unique(here)) > 100  # they do depend on the input
        np.testing.assert_array_equal(there, here)
    here, there = (np.load(folder / f"{who}-float.npy") for who in ("host", cpu))
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-5 * np.abs(here).max())
