from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

import onnxruntime as ort
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import prune
from harness.errors import ConfigError
from harness.export import count_macs, export_onnx
from harness.models import DESCRIPTIONS, MODELS
from harness.models.check import check_network
from harness.models.resnet import BasicBlock, ResNet, option_a
from harness.models.vit import patch_side

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = {"mlp": (20,), "cnn1d": (3, 64)}
OTHER_SHAPES = {"mlp": (1,), "cnn1d": (1, 16)}


def built(name: str, inputs: tuple[int, ...] | None = None, outputs: int = 10) -> nn.Module:
    module, _, function = MODELS[name].partition(":")
    torch.manual_seed(0)
    network: nn.Module = getattr(importlib.import_module(module), function)(
        inputs or SHAPES.get(name, (3, 32, 32)), outputs
    )
    return network.eval()


def example(name: str, inputs: tuple[int, ...] | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, *(inputs or SHAPES.get(name, (3, 32, 32))), generator=generator)


def fits(name: str, inputs: tuple[int, ...]) -> bool:
    try:
        return bool(built(name, inputs))
    except ConfigError:
        return False


def test_every_model_is_described() -> None:
    assert list(DESCRIPTIONS) == list(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_description_tells_the_weights(name: str) -> None:
    told = re.search(r"([\d.]+) M weights", DESCRIPTIONS[name])
    assert told is not None
    weights = sum(parameter.numel() for parameter in built(name).parameters()) / 1e6
    assert weights == pytest.approx(float(told[1]), rel=0.2)


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(8, 8, 1), (28, 28, 4), (32, 32, 4), (31, 31, 3), (64, 96, 8), (224, 224, 16)],
)
def test_patches_cover_the_image_where_they_can(height: int, width: int, side: int) -> None:
    assert patch_side(height, width) == side


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_exports_to_what_it_computes(name: str, tmp_path: Path) -> None:
    network, x = built(name), example(name)
    check_network(network, x, 10)
    export_onnx(network, x, tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.inference_mode():
        expected = network(x)
    assert torch.from_numpy(found) == pytest.approx(
        expected, abs=1e-4 * float(expected.abs().max())
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_takes_other_channels_and_one_output(name: str) -> None:
    inputs = OTHER_SHAPES.get(name, (1, 36, 40))
    check_network(built(name, inputs, 1), example(name, inputs), 1)


@pytest.mark.parametrize("name", MODELS)
def test_the_smallest_samples_that_the_check_lets_through_work(name: str) -> None:
    axes = len(SHAPES.get(name, (3, 32, 32)))
    least = next(side for side in (1, 8, 16, 32) if fits(name, (3, *[side] * (axes - 1))))
    inputs = (3, *[least] * (axes - 1))
    check_network(built(name, inputs), example(name, inputs), 10)
    if axes > 1:
        with pytest.raises(ConfigError, match="at least"):
            built(name, (3, *[least - 1] * (axes - 1)))


@pytest.mark.parametrize("name", MODELS)
def test_samples_of_another_rank_are_refused_with_a_model_that_fits(name: str) -> None:
    inputs = (20,) if name != "mlp" else (3, 32, 32)
    with pytest.raises(ConfigError, match=f"'{name}' takes .* try `--model (mlp|small-cnn)`"):
        built(name, inputs)


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_learns_in_every_layer(name: str) -> None:
    network = built(name, outputs=2).train()
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(8, *SHAPES.get(name, (3, 32, 32)), generator=generator)
    y = torch.arange(8) % 2
    x[y == 1] += 0.5
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of dropout
        losses = []
        for _ in range(6):
            loss = F.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert not [name for name, now in network.named_parameters() if torch.equal(now, before[name])]


class PaperBlock(nn.Module):
    """A block with the paper's own shortcut: no weights, zero-padded channels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.stride = 1 if in_channels == channels else 2
        self.pad = (channels - in_channels) // 2
        self.conv1 = nn.Conv2d(in_channels, channels, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        s = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(s, (0, 0, 0, 0, self.pad, self.pad)))


class PaperResNet(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for i in (1, 2, 3):
            layers = [
                PaperBlock(widths[i - 1] if not j else widths[i], widths[i]) for j in range(blocks)
            ]
            setattr(self, f"layer{i}", nn.Sequential(*layers))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.avg_pool2d(x, x.shape[3]).flatten(1))


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_a_resnet_is_the_papers_own_and_takes_its_checkpoint(name: str, blocks: int) -> None:
    torch.manual_seed(3)
    paper = PaperResNet(blocks).eval()
    for layer in paper.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.running_mean)
    network = built(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()  # the shortcuts included: the checkpoint has to reset them
    network.load_state_dict(paper.state_dict())  # strict
    x = example(name)
    with torch.inference_mode():
        expected = paper(x)
        assert float((network(x) - expected).abs().max() / expected.abs().max()) < 1e-6


def test_a_checkpoint_without_the_shortcut_fits_no_pruned_resnet() -> None:
    network = built("resnet20")
    x = example("resnet20")[:1]
    graph = pruning_graph(network, x)
    half = {g.name: list(range(g.width // 4)) for g in graph.groups if g.name == "layer2.0.conv2"}
    smaller = prune(network, graph, x, half)
    state = {n: t for n, t in smaller.state_dict().items() if "shortcut" not in n}
    with pytest.raises(RuntimeError, match=r"Missing key.*layer2\.0\.shortcut\.weight"):
        smaller.load_state_dict(state)


def test_the_padding_shortcut_moves_channels_to_the_middle() -> None:
    x = torch.randn(1, 4, 2, 2)
    found = F.conv2d(x, option_a(4, 8))
    assert torch.equal(found[:, 2:6], x)
    assert not found[:, :2].any()
    assert not found[:, 6:].any()
    block = BasicBlock(4, 8)
    assert block.shortcut.stride == (2, 2)


def test_a_resnet_has_the_layers_that_its_name_says() -> None:
    for blocks, layers in ((3, 20), (9, 56)):
        network = ResNet(3, blocks, 10)
        counted = [
            m for n, m in network.named_modules() if hasattr(m, "weight") and m.weight.ndim > 1
        ]
        assert len(counted) - 2 == layers  # without the two shortcuts


@pytest.mark.parametrize(
    ("name", "side", "macs"),
    # As published; of the ResNets, what is usually given for their layers at 32x32.
    [("resnet20", 32, 41e6), ("resnet56", 32, 126e6), ("mobilenetv2", 224, 300e6),
     ("efficientnet-lite0", 224, 407e6)],
)  # fmt: skip
def test_the_arithmetic_is_what_was_published(name: str, side: int, macs: float) -> None:
    assert count_macs(built(name, (3, side, side), 1000), example(name, (3, side, side))[:1]) == (
        pytest.approx(macs, rel=0.06)
    )


@pytest.mark.parametrize("side", [32, 33, 45])
def test_efficientnet_pads_as_tensorflow_does(side: int) -> None:
    network = built("efficientnet-lite0", (3, side, side))
    sizes = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.register_forward_hook(
                lambda m, x, y: sizes.append((m.stride[0], y.shape[2]))
            )  # fmt: skip
    network(torch.zeros(1, 3, side, side))
    expected = side
    for stride, found in sizes:
        expected = -(-expected // stride)
        assert found == expected


@pytest.mark.parametrize(("side", "features"), [(32, 4), (63, 8), (64, 2), (224, 7)])
def test_mobilenet_halves_small_images_less(side: int, features: int) -> None:
    network = built("mobilenetv2", (3, side, side))
    assert network.features(torch.zeros(1, 3, side, side)).shape[2] == features


def test_dead_channels_of_attention_can_go_without_a_trace() -> None:
    """What is pruned from every head alike, and contributes nothing, changes no output."""
    attention = built("vit").get_submodule("blocks.0.attention")
    x = torch.randn(2, 5, 128)
    dead = [head * 32 + i for head in range(4) for i in (0, 7, 31)]
    kept = [i for i in range(128) if i not in dead]
    with torch.no_grad():
        for layer in (attention.query, attention.key, attention.value):
            layer.weight[dead], layer.bias[dead] = 0, 0
        expected = attention(x)
        for layer in (attention.query, attention.key, attention.value):
            layer.weight, layer.bias = (
                nn.Parameter(layer.weight[kept]), nn.Parameter(layer.bias[kept])
            )  # fmt: skip
        attention.out.weight = nn.Parameter(attention.out.weight[:, kept])
        assert attention(x) == pytest.approx(expected, abs=1e-6)
