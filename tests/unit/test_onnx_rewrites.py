from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import prune
from harness.errors import ConfigError
from harness.export import export_onnx
from harness.models import onnx_file
from harness.models.finals import finished, unfinished
from harness.models.onnx_file import TOLERANCE, check_against_file, load_onnx
from harness.models.onnx_layers import Affine
from support.onnx_files import node, save_graph

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32) / 2


def kinds(module: nn.Module) -> list[type[nn.Module]]:
    return [type(child) for child in module.children()]


BINARY_MLP = [
    node("Scaler", "x", "h0", domain="ai.onnx.ml", offset=[0.1] * 6, scale=[2.0, 1, 1, 1, 1, 3]),
    node("MatMul", "h0 w1", "h1"), node("Add", "h1 b1", "h2"), node("Relu", "h2", "h3"),
    node("MatMul", "h3 w2", "h4"), node("Add", "h4 b2", "z"), node("Sigmoid", "z", "p"),
    node("Sub", "one p", "q"), node("Concat", "q p", "y", axis=1),
]  # fmt: skip


def binary_mlp(path: Path) -> Path:
    """As skl2onnx writes a StandardScaler and an MLPClassifier of two classes."""
    given = {"w1": weights(6, 16), "b1": weights(16), "w2": weights(16, 1), "b2": [0.3],
             "one": np.float32(1)}  # fmt: skip
    return save_graph(path, BINARY_MLP, (6,), given)


def test_two_classes_of_scikit_learn_are_trained_on_logits(path: Path) -> None:
    network = load_onnx(binary_mlp(path), (6,))
    assert list(network.finals) == [0]
    assert any("softmax is taken off" in note for note in network.notes)
    samples = torch.randn(64, 6)
    with torch.no_grad():
        logits = network.module(samples)
        probabilities = finished(network.module, network.finals)(samples).numpy()
    assert logits.shape == (64, 2)
    assert logits.min() < 0
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    (undone,) = unfinished((probabilities,), network.finals)
    np.testing.assert_allclose(undone, logits.log_softmax(1).numpy(), atol=1e-4)


def test_two_classes_of_scikit_learn_are_pruned_and_exported(path: Path) -> None:
    network = load_onnx(binary_mlp(path), (6,))
    example = torch.randn(1, 6)
    graph = pruning_graph(network.module, example)
    (group,) = graph.groups
    smaller = prune(network.module, graph, example, {group.name: [0, 5, 7]})
    whole, written = finished(smaller, network.finals), path.with_name("smaller.onnx")
    export_onnx(whole, example, written, network.input_name, network.output_names)
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": example.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, whole(example).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Sub", "two p", "q"), node("Concat", "q p", "y", axis=1)],
        [node("Sub", "one p", "q"), node("Concat", "p q", "y", axis=1)],
        [node("Sub", "one p", "q"), node("Concat", "q z", "y", axis=1)],
    ],
)
def test_what_only_looks_like_two_classes_stays(nodes: list[onnx.NodeProto], path: Path) -> None:
    nodes = [node("MatMul", "x w", "z"), node("Sigmoid", "z", "p"), *nodes]
    save_graph(path, nodes, (6,), {"w": weights(6, 1), "one": [1.0], "two": [2.0]})
    assert not load_onnx(path, (6,)).finals


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Max", "h low", "a"), node("Min", "a high", "y")],
        [node("Min", "high h", "a"), node("Max", "low a", "y")],
        [node("Greater", "h low", "m"), node("Where", "m h high", "y")],
    ],
)
def test_thresholds_are_not_trained(nodes: list[onnx.NodeProto], path: Path) -> None:
    given = {"w": weights(4, 3), "low": np.float32(0), "high": np.float32([0.5])}
    save_graph(path, [node("MatMul", "x w", "h"), *nodes], (4,), given)
    module = load_onnx(path, (4,)).module
    assert [tuple(p.shape) for p in module.parameters()] == [(3, 4)]


def image(op: str) -> list[onnx.NodeProto]:
    return [node(op, "x c", "h"), node("Conv", "h w", "y")]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_a_constant_that_makes_grey_images_rgb(op: str, path: Path) -> None:
    mean = np.float32([0.5, 0.4, 0.3]).reshape(1, 3, 1, 1)
    save_graph(path, image(op), (1, 8, 8), {"c": mean, "w": weights(4, 3, 3, 3)})
    assert load_onnx(path, (1, 8, 8)).module(torch.zeros(2, 1, 8, 8)).shape == (2, 4, 6, 6)


def test_constants_that_make_channels_of_one(path: Path) -> None:
    mul = [node("Conv", "x w", "h"), node("Mul", "h c", "y")]
    scale = weights(1, 3, 1, 1)
    save_graph(path, mul, (2, 5, 5), {"c": scale, "w": weights(1, 2, 3, 3)})
    assert load_onnx(path, (2, 5, 5)).module(torch.zeros(2, 2, 5, 5)).shape == (2, 3, 3, 3)
    add = [node("MatMul", "x w", "h"), node("Add", "h c", "y")]
    save_graph(path, add, (4,), {"c": weights(5), "w": weights(4, 1)})
    assert load_onnx(path, (4,)).module(torch.zeros(2, 4)).shape == (2, 5)


def test_a_constant_per_channel_is_still_a_layer(path: Path) -> None:
    save_graph(path, image("Mul"), (3, 8, 8), {"c": weights(3, 1, 1), "w": weights(4, 3, 3, 3)})
    assert kinds(load_onnx(path, (3, 8, 8)).module) == [Affine, nn.Conv2d]


@pytest.mark.parametrize("name", ["training", "finals", "file_outputs"])
def test_a_layer_may_have_any_name(name: str, path: Path) -> None:
    product = node("MatMul", "x w", "y", name=name)
    module = load_onnx(save_graph(path, [product], (4,), {"w": weights(4, 3)}), (4,)).module
    assert kinds(module) == [nn.Linear]


@pytest.mark.parametrize("where", ["fuse", "check_against_file"])
def test_what_torch_raises_is_told(where: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **options: object) -> None:
        raise RuntimeError("shapes don't agree")

    save_graph(path, image("Mul"), (3, 8, 8), {"c": weights(3, 1, 1), "w": weights(4, 3, 3, 3)})
    monkeypatch.setattr(onnx_file, where, fails)
    with pytest.raises(ConfigError, match=r"model\.onnx can't .*RuntimeError: shapes don't agree"):
        load_onnx(path, (3, 8, 8))


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize(
    ("layer", "shape", "w"),
    [("MatMul", (4,), (4, 1)), ("Conv", (2, 5, 5), (1, 2, 3, 3)), ("Conv", (2, 9), (1, 2, 3))],
)
def test_a_single_bias_is_the_layers(
    layer: str, shape: tuple[int, ...], w: tuple[int, ...], op: str, path: Path
) -> None:
    bias = np.full((1,) * (len(shape) + 1), 0.7, np.float32)
    nodes = [node(layer, "x w", "h"), node(op, "h b", "y")]
    module = load_onnx(save_graph(path, nodes, shape, {"w": weights(*w), "b": bias}), shape).module
    (only,) = module.children()
    assert only.bias.item() == pytest.approx(0.7 if op == "Add" else -0.7)


def test_a_number_that_is_no_bias_stays(path: Path) -> None:
    nodes = [node("MatMul", "x w", "h"), node("Sub", "b h", "y")]
    module = load_onnx(save_graph(path, nodes, (4,), {"w": weights(4, 1), "b": [0.7]}), (4,)).module
    (only,) = module.children()
    assert only.bias is None


def test_channels_that_a_norm_mixes_are_kept(path: Path) -> None:
    nodes = [
        node("Conv", "x w", "h"), node("LRN", "h", "n", size=3, alpha=0.5),
        node("Conv", "n v", "m"), node("Relu", "m", "r"), node("Conv", "r u", "y"),
    ]  # fmt: skip
    given = {"w": weights(8, 2, 3, 3), "v": weights(6, 8, 1, 1), "u": weights(4, 6, 1, 1)}
    network = load_onnx(save_graph(path, nodes, (2, 5, 5), given), (2, 5, 5))
    graph = pruning_graph(network.module, torch.zeros(1, 2, 5, 5))
    assert sorted(group.width for group in graph.groups) == [6]


@pytest.mark.parametrize("op", ["Log", "Sqrt"])
def test_noise_outside_of_what_a_network_is_made_for_does_not_matter(op: str, path: Path) -> None:
    nodes = [node(op, "x", "a"), node("MatMul", "a w", "y")]
    save_graph(path, nodes, (3,), {"w": weights(3, 2)})
    module = load_onnx(path, (3,)).module
    samples = RNG.random((8, 3), np.float32) + 1
    assert check_against_file(module, path, samples) <= TOLERANCE
    assert check_against_file(module, path, -samples) == np.inf
    assert check_against_file(module, path, -samples, alike_if_not_finite=True) == 0
    with torch.no_grad():
        module(torch.zeros(1, 3))
        next(module.parameters()).fill_(torch.nan)
    assert check_against_file(module, path, samples, alike_if_not_finite=True) == np.inf
