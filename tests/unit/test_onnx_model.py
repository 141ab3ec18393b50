from __future__ import annotations

import copy
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import prune
from harness.export import export_onnx, layer_macs
from harness.models.finals import finished, unfinished
from harness.models.onnx_file import TOLERANCE, check_against_file, load_onnx

if TYPE_CHECKING:
    from harness.compression.pruning.dependency.graph import PruningGraph
    from harness.models.network import Network

FIXTURES = Path(__file__).parents[1] / "fixtures"
SHAPES = {"keras_cnn": (1, 8, 8), "paddle_cnn": (1, 8, 8), "sklearn_mlp": (64,)}


def write(model: nn.Module, path: Path, shape: tuple[int, ...], opset: int = 17, **options) -> Path:
    example = torch.zeros(1, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), (example,), str(path), opset_version=opset, dynamo=False,
            input_names=["signal"], **options,
        )  # fmt: skip
    return path


def example_of(network: Network, shape: tuple[int, ...], batch: int = 1) -> torch.Tensor:
    x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))
    return x.permute(0, 2, 3, 1).contiguous() if network.nhwc else x


def halves(graph: PruningGraph) -> dict[str, list[int]]:
    """Remove the first half of every block of channels."""
    history = {}
    for group in graph.groups:
        size = group.width // group.blocks
        history[group.name] = [b * size + i for b in range(group.blocks) for i in range(size // 2)]
    return {name: gone for name, gone in history.items() if gone}


def run(path: Path, name: str, x: torch.Tensor, outputs: tuple[str, ...]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == [name]
    assert [one.name for one in session.get_outputs()] == list(outputs)
    return session.run(None, {name: x.numpy()})


def prune_and_export(network: Network, shape: tuple[int, ...], folder: Path) -> PruningGraph:
    """Halve every group, export with the file's own names, and compare both with each other."""
    example = example_of(network, shape)
    graph = pruning_graph(network.module, example)
    smaller = prune(network.module, graph, example, halves(graph))
    before = sum(layer_macs(network.module, example).values())
    assert sum(layer_macs(smaller, example).values()) < 0.8 * before
    path = folder / "smaller.onnx"
    whole = finished(smaller, network.finals)
    export_onnx(whole, example, path, network.input_name, network.output_names)
    found = run(path, network.input_name, example, network.output_names)
    for i, final in network.finals.items():
        total = np.exp(found[i]) if final.log else found[i]
        np.testing.assert_allclose(total.sum(1), 1, atol=1e-5)
    with torch.no_grad():
        expected = whole(example)
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-4 * float(other.abs().max()))
    return graph


# The committed files of other frameworks.


def digits(shape: tuple[int, ...], nhwc: bool) -> tuple[torch.Tensor, np.ndarray]:
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        (pixels / 16).astype("float32"), labels, test_size=0.25, random_state=0, stratify=labels
    )
    images = torch.from_numpy(parts[1]).reshape(-1, *shape)
    return (images.permute(0, 2, 3, 1).contiguous() if nhwc else images), parts[3]


@pytest.mark.parametrize("name", SHAPES)
def test_files_of_other_frameworks_keep_their_accuracy(name: str) -> None:
    network = load_onnx(FIXTURES / f"{name}.onnx", SHAPES[name])
    samples, labels = digits(SHAPES[name], network.nhwc)
    with torch.no_grad():
        logits = network.module(samples)
    assert (logits.argmax(1).numpy() == labels).mean() > 0.96
    error = check_against_file(network.module, FIXTURES / f"{name}.onnx", samples.numpy())
    assert error <= TOLERANCE
    assert network.pretrained


@pytest.mark.parametrize("name", SHAPES)
def test_files_of_other_frameworks_are_pruned_and_exported(name: str, tmp_path: Path) -> None:
    network = load_onnx(FIXTURES / f"{name}.onnx", SHAPES[name])
    prune_and_export(network, SHAPES[name], tmp_path)


def test_keras_keeps_its_layout_and_lays_its_softmax_aside() -> None:
    network = load_onnx(FIXTURES / "keras_cnn.onnx", (1, 8, 8))
    assert network.nhwc
    assert (network.input_name, network.output_names) == ("image", ("digit",))
    assert any("softmax is taken off" in note for note in network.notes)
    assert any("bn_scale" in note for note in network.notes)
    layers = [type(m).__name__ for m in network.module.children()]
    assert layers == ["Conv2d", "Conv2d", "Conv2d", "Affine", "Linear", "Linear"]


def test_a_softmax_and_its_logarithm_are_turned_back_into_logits() -> None:
    network = load_onnx(FIXTURES / "keras_cnn.onnx", (1, 8, 8))
    assert list(network.finals) == [0]
    samples = torch.rand(4, 8, 8, 1)
    with torch.no_grad():
        logits = network.module(samples)
        outputs = (finished(network.module, network.finals)(samples).numpy(),)
    (found,) = unfinished(outputs, network.finals)
    expected = torch.log_softmax(logits, 1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert finished(network.module, {}) is network.module
    (same,) = unfinished((expected,), {})
    assert same is expected


def test_every_channel_in_front_of_keras_s_flatten_can_be_pruned() -> None:
    network = load_onnx(FIXTURES / "keras_cnn.onnx", (1, 8, 8))
    graph = pruning_graph(network.module, torch.zeros(1, 8, 8, 1))
    assert sorted(group.width for group in graph.groups) == [16, 24, 32]
    # Channels lie together in front of the dense layer, as an affine layer without them shows.
    example = example_of(network, (1, 8, 8), batch=3)
    group = next(group for group in graph.groups if group.width == 24)
    smaller = prune(network.module, graph, example[:1], {group.name: [3, 4, 20]})
    masked = copy.deepcopy(network.module)
    norm = next(m for m in masked.children() if type(m).__name__ == "Affine")
    with torch.no_grad():
        norm.weight[[3, 4, 20]] = 0
        norm.bias[[3, 4, 20]] = 0
        torch.testing.assert_close(smaller(example), masked(example), atol=1e-4, rtol=1e-4)


def test_paddle_keeps_batch_norm_and_names() -> None:
    network = load_onnx(FIXTURES / "paddle_cnn.onnx", (1, 8, 8))
    kinds = [type(m) for m in network.module.children()]
    assert kinds.count(nn.BatchNorm2d) == 2
    assert network.notes == ()
    assert (network.input_name, network.nhwc) == ("image", False)


def test_all_of_paddle_can_be_pruned() -> None:
    network = load_onnx(FIXTURES / "paddle_cnn.onnx", (1, 8, 8))
    graph = pruning_graph(network.module, torch.zeros(1, 1, 8, 8))
    assert sorted(group.width for group in graph.groups) == [16, 24, 32]


class Decoder(nn.Module):
    """As TensorFlow has it: features become `[H, W, C]`, and the result is `[N, H, W, C]`."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.up = nn.Linear(20, 4 * 4 * 16), nn.ConvTranspose2d(16, 8, 3, stride=2)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.dense(x)).reshape(-1, 4, 4, 16).permute(0, 3, 1, 2)
        return self.last(F.relu(self.up(x)[:, :, :-1, :-1])).permute(0, 2, 3, 1)


def test_features_that_become_images_give_way_in_their_channels(tmp_path: Path) -> None:
    path = write(make(Decoder), tmp_path / "model.onnx", (20,))
    graph = prune_and_export(load_onnx(path, (20,)), (20,), tmp_path)
    assert sorted(group.width for group in graph.groups) == [8, 16]


def test_a_transposed_convolution_padded_at_one_side(tmp_path: Path) -> None:
    path = write(nn.ConvTranspose2d(2, 3, 3, stride=2), tmp_path / "model.onnx", (2, 5, 5))
    model = onnx.load(path)
    (node,) = model.graph.node
    pads = next(one for one in node.attribute if one.name == "pads")
    pads.ints[:] = [0, 1, 1, 0]
    for size in model.graph.output[0].type.tensor_type.shape.dim[2:]:
        size.dim_value = 10
    onnx.save(model, path)
    network = load_onnx(path, (2, 5, 5))  # compares with ONNX Runtime
    assert network.module(torch.zeros(2, 2, 5, 5)).shape == (2, 3, 10, 10)


def test_scikit_learn_s_label_is_taken_off() -> None:
    network = load_onnx(FIXTURES / "sklearn_mlp.onnx", (64,))
    assert [type(m) for m in network.module.children()] == [nn.Linear] * 3
    assert network.output_names == ("probabilities",)
    assert any("'label'" in note for note in network.notes)


# Exports of PyTorch, made here.


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.one = nn.Conv2d(16, 16, 3, padding=1)
        self.two = nn.Conv2d(16, 24, 3, stride=2)
        self.head = nn.Linear(24 * 3 * 3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        x = F.leaky_relu(x + self.one(x))
        x = F.relu6(self.two(x))
        return self.head(x.reshape(x.size(0), -1))


class Mobile(nn.Module):
    """Depthwise, squeeze and excitation, PReLU, one-sided padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2)
        self.spatial = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.slope = nn.PReLU(16)
        self.squeeze, self.excite = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.point = nn.Conv2d(16, 24, 1)
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.elu(self.stem(F.pad(x, (0, 1, 0, 1))))
        x = self.slope(self.spatial(x))
        gate = F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        x = x * torch.sigmoid(self.excite(gate))
        return self.head(F.silu(self.point(x)).mean((2, 3)))


class Signal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv1d(2, 16, 5, padding=2), nn.Conv1d(16, 24, 3, stride=2)
        self.norm, self.head = nn.BatchNorm1d(24), nn.Linear(24 * 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool1d(torch.tanh(self.one(x)), 2)
        x = F.max_pool1d(self.norm(F.relu(self.two(x))), 4)
        return self.head(x.flatten(1))


class Attention(nn.Module):
    """Patches, a class token, positions, heads, GELU, layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.position = nn.Parameter(torch.randn(1, 10, 32))
        self.before, self.after = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down, self.head = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        n, t, _ = x.shape
        q, k, v = self.qkv(self.before(x)).reshape(n, t, 3, 4, 8).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) * 8**-0.5).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, 32))
        x = x + self.down(F.gelu(self.up(self.after(x))))
        return self.head(x[:, 0])


class Forked(nn.Module):
    """Split and concatenated channels, a decoder, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.up, self.mix = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(32, 12, 3, padding=1)
        self.mask, self.head = nn.Conv2d(12, 2, 1), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.softplus(self.stem(x))
        one, _ = x.chunk(2, 1)
        small = F.relu(self.down(one))
        large = F.interpolate(small, scale_factor=2.0, mode="bilinear")[:, :8]
        x = torch.cat([x, self.up(small), large], 1)
        return self.mask(F.relu(self.mix(x))), self.head(small.mean((2, 3)))


class Perceptron(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 24), nn.Tanh(),
            nn.Linear(24, 4), nn.LogSoftmax(1),
        )  # fmt: skip


NETWORKS = {
    Residual: (3, 16, 16), Mobile: (3, 16, 16), Signal: (2, 36), Attention: (3, 12, 12),
    Forked: (3, 8, 8), Perceptron: (20,),
}  # fmt: skip


def make(kind: type[nn.Module]) -> nn.Module:
    """Return a network whose batch norms have seen data."""
    torch.manual_seed(0)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("kind", NETWORKS)
def test_exports_of_pytorch_compute_what_they_did(
    kind: type[nn.Module], dynamic: bool, opset: int, tmp_path: Path
) -> None:
    model, shape = make(kind), NETWORKS[kind]
    axes = {"dynamic_axes": {"signal": {0: "batch"}}} if dynamic else {}
    path = write(model, tmp_path / "model.onnx", shape, opset, **axes)
    network = load_onnx(path, shape)
    x = example_of(network, shape, batch=5)
    with torch.no_grad():
        expected, got = model(x), network.module(x)
    if kind is Perceptron:
        got = got.log_softmax(1)  # was taken off
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("kind", NETWORKS)
def test_exports_of_pytorch_have_the_groups_of_the_original(
    kind: type[nn.Module], dynamic: bool, tmp_path: Path
) -> None:
    model, shape = make(kind), NETWORKS[kind]
    axes = {"dynamic_axes": {"signal": {0: "batch"}}} if dynamic else {}
    path = write(model, tmp_path / "model.onnx", shape, 13 if dynamic else 17, **axes)
    network = load_onnx(path, shape)
    graph = prune_and_export(network, shape, tmp_path)
    original = pruning_graph(model, torch.zeros(1, *shape))
    # Sizes that the original's code fixes are worked out in what was converted: there may be more.
    assert Counter(g.width for g in original.groups) <= Counter(g.width for g in graph.groups)


def test_conversion_is_repeatable_and_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = load_onnx(FIXTURES / "keras_cnn.onnx", (1, 8, 8)).module
    assert torch.equal(torch.rand(2), expected)
    second = load_onnx(FIXTURES / "keras_cnn.onnx", (1, 8, 8)).module
    assert str(first) == str(second)
    assert " at 0x" not in str(first)


def test_what_was_converted_can_be_trained() -> None:
    module = load_onnx(FIXTURES / "keras_cnn.onnx", (1, 8, 8)).module.train()
    loss = F.cross_entropy(module(torch.rand(4, 8, 8, 1)), torch.arange(4))
    loss.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_difference_to_the_file_is_measured() -> None:
    path = FIXTURES / "paddle_cnn.onnx"
    module = load_onnx(path, (1, 8, 8)).module
    samples = np.random.default_rng(0).random((6, 1, 8, 8), np.float32)
    assert check_against_file(module, path, samples) <= TOLERANCE
    with torch.no_grad():
        next(module.parameters()).mul_(1.5)
    assert check_against_file(module, path, samples) > 10 * TOLERANCE
