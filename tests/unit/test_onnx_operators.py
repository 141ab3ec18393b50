"""Files of one node each, converted: `load_onnx` holds every one against ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.models.onnx_file import TOLERANCE, check_against_file, load_onnx
from support.onnx_files import node, save_graph

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

RNG = np.random.default_rng(0)
SIGNAL, IMAGE, ROW = (4, 9), (4, 6, 7), (5,)

Case = tuple[list["onnx.NodeProto"], tuple[int, ...], dict[str, Any], int]


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def case(
    op: str,
    shape: tuple[int, ...],
    inputs: str = "x",
    outputs: str = "y",
    *,
    opset: int = 17,
    given: dict[str, Any] | None = None,
    **attributes: Any,
) -> Case:
    return [node(op, inputs, outputs, **attributes)], shape, given or {}, opset


def decided(op: str, inputs: str = "x c", **given: Any) -> Case:
    """A comparison, as what it chooses between."""
    nodes = [node(op, inputs, "m"), node("Where", "m x other", "y")]
    return nodes, ROW, {"other": weights(5), **given}, 17


def logical(op: str, inputs: str = "a b") -> Case:
    nodes = [
        node("Greater", "x zero", "a"), node("Less", "x one", "b"), node(op, inputs, "m"),
        node("Cast", "m", "y", to=1),
    ]  # fmt: skip
    return nodes, ROW, {"zero": [0.0], "one": [1.0]}, 17


PLAIN = [
    "Abs", "Ceil", "Celu", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish",
    "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign",
    "Sin", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
]  # fmt: skip
C, W = weights(5), {"w": weights(6, 4, 3, 3)}
GROUPS = {"s": weights(4), "b": weights(4)}
RESIZE = {"scales": np.float32([1, 1, 2, 2])}
SMALLER = {"scales": np.float32([1, 1, 0.5, 0.5])}
KERNEL: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2]}

CASES: dict[str, Case] = {
    **{op: case(op, ROW, opset=18) for op in PLAIN},
    "Celu 2": case("Celu", ROW, alpha=2.0),
    "Selu 2": case("Selu", ROW, alpha=2.0, gamma=0.5),
    "HardSigmoid of PyTorch": case("HardSigmoid", ROW, alpha=1 / 6),
    "ThresholdedRelu 0.3": case("ThresholdedRelu", ROW, alpha=0.3),
    "Gelu": case("Gelu", ROW, opset=20),
    "Gelu tanh": case("Gelu", ROW, opset=20, approximate="tanh"),
    "Clip": case("Clip", ROW, "x low high", given={"low": np.float32(-1), "high": np.float32(1)}),
    "Clip 6": case("Clip", ROW, opset=6, min=-0.5, max=0.5),
    # Two operands and more.
    **{f"{op} of a tensor": case(op, ROW, "x c", given={"c": C})
       for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")},
    **{f"{op} of a number": case(op, ROW, "x c", given={"c": [0.3]})
       for op in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean")},
    **{f"{op} from a number": case(op, ROW, "c x", given={"c": [0.3]})
       for op in ("Sub", "Div", "Pow", "Max", "Min")},
    **{f"{op} of three": case(op, ROW, "x c x", given={"c": C})
       for op in ("Sum", "Max", "Min", "Mean")},
    **{f"{op} of one": case(op, ROW) for op in ("Sum", "Max", "Min", "Mean")},
    **{op: decided(op, c=C)
       for op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal")},
    "Greater a number": decided("Greater", c=[0.1]),
    **{op: logical(op) for op in ("And", "Or")}, "Not": logical("Not", "a"),
    # Scaling, in two steps since features may be far from 0.
    "Scaler": case("Scaler", ROW, domain="ai.onnx.ml",
                   offset=[0.5, 0.0, 1e5, -3.0, 1.0], scale=[1.0, 2.0, 3.0, 0.5, 0.1]),
    "Scaler of numbers": case("Scaler", ROW, domain="ai.onnx.ml", offset=[0.5], scale=[2.0]),
    # Reductions: axes as an attribute, and as an input.
    **{f"{op} 17": case(op, SIGNAL, axes=[-1], keepdims=0)
       for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd",
                  "ReduceSumSquare")},
    **{f"{op} 18": case(op, IMAGE, "x axes", opset=18, given={"axes": [1, 3]})
       for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd",
                  "ReduceSum", "ReduceSumSquare")},
    "ReduceMean of nothing": case("ReduceMean", SIGNAL, opset=18, noop_with_empty_axes=1),
    "Softmax 11": case("Softmax", (4, 1, 1), opset=11, axis=1),
    "Softmax 11 last": case("Softmax", SIGNAL, opset=11, axis=2),
    "LogSoftmax": case("LogSoftmax", SIGNAL, axis=1),
    # Shapes.
    "Unsqueeze 11": case("Unsqueeze", ROW, opset=11, axes=[1, 3]),
    "Unsqueeze": case("Unsqueeze", ROW, "x axes", given={"axes": [-1, 1]}),
    "Squeeze 11": case("Squeeze", (4, 1, 3), opset=11, axes=[2]),
    "Squeeze": case("Squeeze", (4, 1, 3), "x axes", given={"axes": [-2]}),
    "Expand": case("Expand", (4, 1), "x shape", given={"shape": [1, 4, 3]}),
    "DepthToSpace DCR": case("DepthToSpace", (8, 3, 2), blocksize=2),
    "DepthToSpace CRD": case("DepthToSpace", (8, 3, 2), blocksize=2, mode="CRD"),
    "SpaceToDepth": case("SpaceToDepth", (3, 4, 6), blocksize=2),
    # Layers.
    "Conv SAME_UPPER": case("Conv", IMAGE, "x w", given=W, strides=[2, 2], auto_pad="SAME_UPPER"),
    "Conv SAME_LOWER": case("Conv", IMAGE, "x w", given=W, strides=[2, 2], auto_pad="SAME_LOWER"),
    "Conv VALID": case("Conv", IMAGE, "x w", given=W, auto_pad="VALID"),
    "ConvTranspose output_shape": case(
        "ConvTranspose", IMAGE, "x w", given={"w": weights(4, 2, 3, 3)}, strides=[2, 2],
        output_shape=[12, 14]),
    "ConvTranspose output_padding": case(
        "ConvTranspose", IMAGE, "x w", given={"w": weights(4, 2, 3, 3)}, strides=[2, 2],
        pads=[1, 1, 1, 1], output_padding=[1, 1]),
    "ConvTranspose SAME_UPPER": case(
        "ConvTranspose", IMAGE, "x w", given={"w": weights(4, 2, 3, 3)}, strides=[2, 2],
        auto_pad="SAME_UPPER"),
    "Gemm": case("Gemm", ROW, "x w b", given={"w": weights(5, 3), "b": weights(3)},
                 alpha=0.5, beta=2.0),
    "Gemm transB": case("Gemm", ROW, "x w b", given={"w": weights(3, 5), "b": weights(1)},
                        transB=1, beta=0.5),
    "InstanceNormalization": case("InstanceNormalization", IMAGE, "x s b", given=GROUPS),
    "GroupNormalization": case("GroupNormalization", IMAGE, "x s b", given=GROUPS, opset=21,
                               num_groups=2),
    "LayerNormalization": case("LayerNormalization", ROW, "x s", "y _ _", given={"s": weights(5)}),
    "BatchNormalization": case("BatchNormalization", IMAGE, "x s b b v",
                               given={**GROUPS, "v": np.float32([1, 2, 0.5, 1])}),
    "LRN": case("LRN", IMAGE, size=3, alpha=0.1, beta=0.6, bias=2.0),
    # Windows.
    "GlobalMaxPool": case("GlobalMaxPool", IMAGE),
    "GlobalAveragePool": case("GlobalAveragePool", SIGNAL),
    "MaxPool": case("MaxPool", IMAGE, "x", "y _", **KERNEL, pads=[0, 1, 1, 0]),
    "MaxPool SAME_LOWER": case("MaxPool", IMAGE, **KERNEL, auto_pad="SAME_LOWER"),
    "AveragePool SAME_UPPER": case("AveragePool", IMAGE, **KERNEL, auto_pad="SAME_UPPER"),
    "AveragePool one-sided": case("AveragePool", IMAGE, **KERNEL, pads=[0, 0, 1, 1]),
    "AveragePool one-sided, counted": case("AveragePool", IMAGE, **KERNEL, pads=[0, 0, 1, 1],
                                           count_include_pad=1),
    "Pad": case("Pad", IMAGE, "x p v", given={"p": [0, 0, 1, 2, 0, 0, 0, 1], "v": np.float32(2)}),
    "Pad with axes": case("Pad", IMAGE, "x p _ axes", opset=18,
                          given={"p": [1, 2, 0, 1], "axes": [2, -1]}),
    "Pad edge": case("Pad", IMAGE, "x p", given={"p": [0, 0, 1, 2, 0, 0, 0, 1]}, mode="edge"),
    "Pad 10": case("Pad", IMAGE, opset=10, pads=[0, 0, 1, 2, 0, 0, 0, 1]),
    # Sizes.
    "Upsample": case("Upsample", IMAGE, "x scales", opset=9, given=RESIZE),
    "Resize 10": case("Resize", IMAGE, "x scales", opset=10, given=RESIZE),
    **{f"Resize {mode}": case("Resize", IMAGE, "x _ scales", given=RESIZE, mode=mode)
       for mode in ("nearest", "linear", "cubic")},
    "Resize of PyTorch": case("Resize", IMAGE, "x _ scales", given=RESIZE, nearest_mode="floor",
                              coordinate_transformation_mode="asymmetric"),
    "Resize align_corners": case("Resize", IMAGE, "x _ scales", given=RESIZE, mode="linear",
                                 coordinate_transformation_mode="align_corners"),
    "Resize of Keras": case("Resize", IMAGE, "x roi scales", opset=12,
                            given={**RESIZE, "roi": np.zeros(0, np.float32)},
                            nearest_mode="floor",
                            coordinate_transformation_mode="tf_half_pixel_for_nn"),
    "Resize antialiased to more": case("Resize", IMAGE, "x _ scales", opset=18, given=RESIZE,
                                       mode="linear", antialias=1),
    "Resize to the same size": case("Resize", IMAGE, "x _ _ sizes", given={"sizes": [1, 4, 6, 7]},
                                    mode="linear", coordinate_transformation_mode="asymmetric"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_node_computes_in_torch_what_it_did(name: str, tmp_path: Path) -> None:
    nodes, shape, given, opset = CASES[name]
    batch = 1 if name == "Resize to the same size" else "batch"
    path = save_graph(tmp_path / "model.onnx", nodes, shape, given, opset=opset, batch=batch)
    module = load_onnx(path, shape).module
    rng = np.random.default_rng(1)
    samples = rng.random((3, *shape), np.float32) + 0.25  # positive, for roots and logarithms
    assert check_against_file(module, path, samples) <= TOLERANCE


HALF = {"coordinate_transformation_mode": "half_pixel"}
ASYMMETRIC = {"coordinate_transformation_mode": "asymmetric"}
REFUSED: dict[str, tuple[Case, str]] = {
    **{f"{mode} asymmetric": (case("Resize", IMAGE, "x _ scales", given=RESIZE, mode=mode,
                                   **ASYMMETRIC), f"'{mode}' with the coordinates 'asymmetric'")
       for mode in ("linear", "cubic")},
    "old linear": (case("Resize", IMAGE, "x scales", opset=10, given=RESIZE, mode="linear"),
                   "'linear' with the coordinates 'asymmetric'"),
    "old Upsample": (case("Upsample", IMAGE, "x scales", opset=9, given=RESIZE, mode="linear"),
                     "'linear' with the coordinates 'asymmetric'"),
    "antialias": (case("Resize", IMAGE, "x _ scales", opset=18, given=SMALLER, mode="linear",
                       antialias=1), "antialias"),
    "ceil": (case("Resize", IMAGE, "x _ scales", given=RESIZE, nearest_mode="ceil", **ASYMMETRIC),
             "'ceil'"),
    "floor": (case("Resize", IMAGE, "x _ scales", given=RESIZE, nearest_mode="floor", **HALF),
              "'floor'.*'half_pixel'"),
    "noop": (case("ReduceL1", IMAGE, opset=18, noop_with_empty_axes=1), "reduces nothing"),
    # ONNX Runtime crashes on it, so it mustn't get there.
    "training": (case("BatchNormalization", IMAGE, "x s b b v", "y _ _ _ _", opset=9,
                      given={**GROUPS, "v": np.float32([1, 2, 0.5, 1])}),
                 "for training.*evaluation"),
    "another of ai.onnx.ml": (case("Normalizer", ROW, domain="ai.onnx.ml", norm="L2"),
                              "'ai.onnx.ml', of which only Scaler.*prepare the data"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_torch_lacks_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (nodes, shape, given, opset), expected = REFUSED[name]
    path = save_graph(tmp_path / "model.onnx", nodes, shape, given, opset=opset)
    with pytest.raises(ConfigError, match=expected):
        load_onnx(path, shape)
