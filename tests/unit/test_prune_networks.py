from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

from harness.compression.pruning.dependency.cutting import clear, places
from harness.compression.pruning.dependency.graph import PruningGraph, pruning_graph
from harness.compression.pruning.prune import choose_channels, last_channels, prune
from harness.errors import ConfigError, TaskError
from harness.export import layer_macs
from harness.models.spec import load_network
from harness.tasks.objective import as_tuple
from support.networks import NETWORKS, Attention, Residual, Transformer, conv, network

GROUPS = {
    "residual": {"body.0.0": 16, "body.1.inner.0.0": 12, "body.2.0": 8},
    "depthwise": {"body.0.0": 16, "body.2.0": 24, "body.4.0": 8},
    "grouped": {"body.0.0": 16, "body.1.0": 24, "body.2.0": 8},
    "gated": {"body.0.0": 16, "body.1.down": 4, "body.2.0": 8},
    "dense": {"body.stem.0": 8, "body.one.0": 6, "body.two.0": 10, "body.last": 8},
    "unet": {"down.0": 8, "deep.0": 16, "up": 8, "last.0": 8},
    "flattened": {"0.0": 8, "2.0": 6, "4": 20},
    "sequence": {"0": 12, "4": 8},
    "volume": {"0": 8, "3": 6},
    "perceptron": {"0": 32, "3": 16},
    "transformer": {"patch": 16, "attention.q": 16, "attention.v": 16, "mlp.0": 40},
    "fused": {"patch": 16, "attention.qkv": 16, "mlp.0": 40},
    "encoder": {"layer.linear1": 24},
    "group_norms": {"body.0": 16, "body.3": 12, "body.5": 8},
    "shared": {"body.stem.0": 16, "body.last.0": 8},
    "detector": {"stem.0": 16, "deep.0": 24},
    "sum": {"stem.0": 16, "two.0.0": 8},
    "frozen": {"body.0.0": 16, "body.1.inner.0.0": 12, "body.2.0": 8},
    "shuffled": {"body.0.0": 8, "body.2.0": 12, "body.3.0": 8},
    "halves": {"body.0.0": 8, "body.2.0": 8},
    "gru": {"hidden": 20},
    "lstm": {"hidden": 20},
    "mixer": {"patch": 12, "tokens.0": 20, "features.0": 24},
    "larger": {"0.0": 16, "1": 8},
    "glu": {"lift": 12, "wide": 20},
    "fourier": {"body.two.0": 12, "body.three.0": 8},
    "literal": {"one.0": 16},
    "fixed_heads": {"mlp.0": 40},
    "shared_keys": {"patch": 16, "attention.q": 8, "attention.v": 8, "mlp.0": 40},
    "sliced": {"body.0.0": 8, "body.1.inner.0": 8, "body.2.0": 8},
    "quarter": {"body.0.0": 4, "body.1.inner.0": 4, "body.2.0": 8},
    "scaled_by_width": {"patch": 16, "attention.q": 16, "attention.v": 16, "mlp.0": 40},
    "sliced_beside": {"body.one": 8, "body.two": 24, "body.inner.0": 8, "body.last.0": 6},
    "half_scaled": {"body.0.0": 16, "body.2.0": 12, "body.3.0": 8},
    "bare": {"lift": 10, "up": 12},
}
BLOCKS = {"grouped": 4, "transformer": 4, "fused": 4, "group_norms": 4, "shared_keys": 2,
          "scaled_by_width": 4,
          "half_scaled": 2}  # fmt: skip
WHOLE = {
    "encoder": ("lift", "embed_dim"),
    "bare": ("down", "no convolution or linear layer"),
    "gru": ("lift", "recurrent"),
    "lstm": ("lift", "rnn is a recurrent layer"),
    "fourier": ("body.one.0", "fft"),
    "literal": ("two.0", "doesn't run"),
    "fixed_heads": ("attention.qkv", "doesn't run"),
}


def random_widths(graph: PruningGraph, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    return {g.name: g.blocks * rng.randint(1, g.width // g.blocks) for g in graph.groups}


def random_history(graph: PruningGraph, seed: int) -> dict[str, list[int]]:
    rng = torch.Generator().manual_seed(seed)
    scores = {g.name: torch.rand(g.width, generator=rng) for g in graph.groups}
    return choose_channels(graph, scores, random_widths(graph, seed))


def shapes(model: nn.Module, inputs: torch.Tensor) -> list[torch.Size]:
    with torch.no_grad():
        return [part.shape for part in as_tuple(model(inputs))]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_groups_of_a_network(name: str) -> None:
    graph = pruning_graph(*network(name))
    assert graph.dense_widths() == GROUPS[name]
    assert max(group.blocks for group in graph.groups) == BLOCKS.get(name, 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETWORKS)
def test_any_widths_are_pruned_exactly_and_the_outputs_keep_their_shape(
    name: str, seed: int
) -> None:
    model, example = network(name)
    graph = pruning_graph(model, example)
    history = random_history(graph, seed)
    smaller = prune(model, graph, example, history)
    widths = {g.name: g.width - len(history.get(g.name, ())) for g in graph.groups}
    assert graph.macs(widths) == pytest.approx(layer_macs(smaller, example))
    layers = [(n, m) for n, m in smaller.named_modules() if n in {x.name for x in graph.layers}]
    assert graph.params(widths) == pytest.approx(sum(m.weight.numel() for _, m in layers))
    for n in (1, 3):
        batch = example.repeat(n, *[1] * (example.dim() - 1))
        assert shapes(smaller, batch) == shapes(model, batch)


@pytest.mark.parametrize("name", NETWORKS)
def test_modules_know_their_new_sizes(name: str) -> None:
    model, example = network(name)
    graph = pruning_graph(model, example)
    smaller = prune(model, graph, example, random_history(graph, 1))
    for module in smaller.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
        elif isinstance(module, nn.modules.conv._ConvNd):
            sides = (module.out_channels, module.in_channels // module.groups)
            if module.transposed:
                sides = (module.in_channels, module.out_channels // module.groups)
            assert module.weight.shape[:2] == sides
        elif isinstance(module, nn.GroupNorm):
            assert module.num_channels == len(module.weight)


SILENT = ("residual", "depthwise", "grouped", "dense", "flattened", "gated", "unet", "sequence",
          "volume", "shared", "detector", "sum", "shuffled", "halves", "larger", "glu",
          "literal", "sliced", "quarter", "half_scaled", "bare")  # fmt: skip


def without_norms_over_channels(model: nn.Module) -> nn.Module:
    """Take away what depends on how many channels there are, zero or not."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, nn.Identity())
    return model


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [*SILENT, "transformer", "fused", "mixer"])
def test_channels_that_say_nothing_can_go_without_a_change(name: str, seed: int) -> None:
    model, example = network(name)
    model = without_norms_over_channels(model)
    for module in model.modules():
        if isinstance(module, Attention):
            module.forward = plain_attention.__get__(module)  # type: ignore[method-assign]
    graph = pruning_graph(model, example)
    assert graph.dense_widths() == GROUPS[name]
    history = random_history(graph, seed)
    silent = copy.deepcopy(model)
    clear(silent, places(graph.groups, history))
    smaller = prune(model, graph, example, history)
    with torch.no_grad():
        expected, found = as_tuple(silent(example)), as_tuple(smaller(example))
    for one, other in zip(expected, found, strict=True):
        assert one.std() > 0
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def plain_attention(self: Attention, x: torch.Tensor) -> torch.Tensor:
    """Attention whose scale doesn't follow the width of its heads."""
    b, n, _ = x.shape
    q, k, v = (f(x).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
    weights = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
    return self.out((weights @ v).transpose(1, 2).reshape(b, n, -1))


def test_channels_are_silenced_where_the_modules_say() -> None:
    """The check above, made by hand: what goes out of the removed channels is nothing."""
    model, example = network("residual")
    gone = [0, 3, 7, 12]
    with torch.no_grad():
        for layer in (model.body[2][0], model.body[1].inner[0][0]):
            layer.weight[:, gone] = 0
    smaller = prune(model, pruning_graph(model, example), example, {"body.0.0": gone})
    with torch.no_grad():
        torch.testing.assert_close(smaller(example), model(example))


@pytest.mark.parametrize("name", WHOLE)
def test_what_cannot_be_pruned_is_named_with_its_reason(name: str) -> None:
    layer, reason = WHOLE[name]
    graph = pruning_graph(*network(name))
    found = {one.name: one.reason for one in graph.unprunable}
    assert reason in found[layer]


def test_a_bare_parameter_within_a_module_is_named_whole() -> None:
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), network("bare")[0])
    graph = pruning_graph(model, torch.randn(1, 4))
    assert [one.name for one in graph.unprunable] == ["2.down"]
    assert graph.dense_widths() == {"0": 10, "2": 12, "2.lift": 10}


@pytest.mark.parametrize("name", ["residual", "detector", "sum", "unet", "perceptron"])
def test_outputs_need_no_reason_to_stay(name: str) -> None:
    assert pruning_graph(*network(name)).unprunable == ()


def test_every_head_keeps_equally_many_of_its_own_best_channels() -> None:
    graph = pruning_graph(*network("transformer"))
    scores = {g.name: torch.ones(g.width) for g in graph.groups}
    scores["attention.q"] = torch.tensor([4.0, 3, 2, 1] + [1.0, 2, 3, 4] + [1.0, 4, 2, 3] * 2)
    widths = graph.dense_widths() | {"attention.q": 8}
    history = choose_channels(graph, scores, widths)
    assert history == {"attention.q": [2, 3, 4, 5, 8, 10, 12, 14]}


def test_shuffled_channels_that_lie_at_the_same_place_go_together() -> None:
    model, example = network("shuffled")
    graph = pruning_graph(model, example)
    smaller = prune(model, graph, example, {"body.0.0": [1, 4]})
    kept = [i for i in range(16) if i not in (1, 4, 9, 12)]
    assert torch.equal(smaller.body[0][0].weight, model.body[0][0].weight[kept])


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift, self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.two.weight = self.one.weight
            self.head = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.two(self.one(self.lift(x)).relu()))

    model, example = Tied(), torch.zeros(1, 4)
    graph = pruning_graph(model, example)
    assert graph.dense_widths() == {"lift": 6}
    smaller = prune(model, graph, example, {"lift": [0, 2]})
    assert smaller.one.weight is smaller.two.weight
    assert smaller.one.weight.shape == (4, 4)


def test_frozen_parameters_stay_frozen() -> None:
    model, example = network("frozen")
    graph = pruning_graph(model, example)
    smaller = prune(model, graph, example, random_history(graph, 0))
    assert not any(parameter.requires_grad for parameter in (*model.parameters(),))
    assert not any(parameter.requires_grad for parameter in smaller.parameters())


def test_a_trained_network_that_answers_nothing_is_checked_all_the_same() -> None:
    """With a head of zeros every mistake would go unseen, so weights are drawn for the check."""

    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = conv(3, 16), conv(16, 12), nn.Linear(12, 2)
            nn.init.zeros_(self.head.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.one(x)
            # Which channels come first depends on how many there are.
            x = x.roll(8, 1)
            return self.head(self.two(x).mean((2, 3)))

    graph = pruning_graph(Swapped(), torch.randn(1, 3, 8, 8))
    assert graph.dense_widths() == {"two.0": 12}
    assert "mixed up" in graph.unprunable[0].reason


def test_what_depends_on_the_widths_of_both_halves_is_found_whatever_is_drawn() -> None:
    """Each network by itself passes one look in two or three; none may pass them all."""

    class Weighted(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.one, self.two, self.head = conv(3, width), conv(width, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.one(x)
            count = x.shape[1] // 2
            half = torch.cat([torch.full((count,), 2.0), torch.ones(x.shape[1] - count)])
            return self.head(self.two(x * half.view(1, -1, 1, 1)).mean((2, 3)))

    for width in range(6, 40, 2):
        torch.manual_seed(width)
        graph = pruning_graph(Weighted(width), torch.randn(1, 3, 8, 8))
        assert graph.dense_widths() == {"two.0": 8}, width


def test_a_network_that_can_only_stay_whole_is_refused_with_reasons() -> None:
    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(torch.fft.fft(self.one(x)).real)

    with pytest.raises(TaskError, match=r"no channels.*one: goes into an operation"):
        pruning_graph(Spectrum(), torch.zeros(1, 8))


def test_a_larger_network_is_pruned_in_every_group() -> None:
    blocks = [nn.Sequential(conv(8, 8), Residual(conv(8, 8))) for _ in range(6)]
    model = nn.Sequential(conv(3, 8), *blocks, nn.Conv2d(8, 2, 1))
    example = torch.randn(1, 3, 8, 8)
    graph = pruning_graph(model, example)
    assert len(graph.groups) == 7
    floor = {g.name: list(range(1, g.width)) for g in graph.groups}
    assert prune(model, graph, example, floor)(example).shape == (1, 2, 8, 8)


def test_attention_of_torch_itself_leaves_the_rest_prunable() -> None:
    graph = pruning_graph(*network("encoder"))
    assert [group.name for group in graph.groups] == ["layer.linear1"]


def test_a_class_token_and_positions_shrink_with_the_tokens() -> None:
    model = Transformer().eval()
    example = torch.randn(1, 3, 8, 8)
    graph = pruning_graph(model, example)
    smaller = prune(model, graph, example, {"patch": [0, 5, 9]})
    assert smaller.cls.shape == (1, 1, 13)
    assert smaller.positions.shape == (1, 17, 13)
    assert smaller.norm1.normalized_shape == (13,)


SHIPPED = {
    "cnn1d": (3, 32), "efficientnet-lite0": (3, 32, 32), "mlp": (10,), "mobilenetv2": (3, 32, 32),
    "resnet20": (3, 32, 32), "resnet56": (3, 16, 16), "residual-cnn": (1, 32, 32),
    "small-cnn": (3, 16, 16), "vgg16": (3, 32, 32), "vit": (3, 32, 32),
}  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_are_pruned_whole(name: str) -> None:
    shape = SHIPPED[name]
    model = load_network(name, inputs=shape, outputs=4, weights=None).module
    example = torch.randn(1, *shape)
    graph = pruning_graph(model, example)
    assert graph.unprunable == ()
    whole = {layer.name for layer in graph.layers if not layer.outs}
    assert len(whole) == 1  # the head
    smaller = prune(model, graph, example, random_history(graph, 0))
    assert shapes(smaller, example) == [torch.Size([1, 4])]


def test_every_width_of_the_shipped_transformer_can_be_pruned() -> None:
    model = load_network("vit", inputs=(3, 32, 32), outputs=4, weights=None).module
    graph = pruning_graph(model, torch.randn(1, 3, 32, 32))
    blocks = {group.name: group.blocks for group in graph.groups}
    assert blocks["patches"] == 1
    assert blocks["blocks.0.attention.query"] == blocks["blocks.5.attention.value"] == 4
    assert blocks["blocks.3.hidden"] == 1


def test_heads_of_different_widths_are_refused() -> None:
    model, example = network("transformer")
    graph = pruning_graph(model, example)
    scores = {g.name: torch.ones(g.width) for g in graph.groups}
    with pytest.raises(ConfigError, match="multiple of 4"):
        choose_channels(graph, scores, graph.dense_widths() | {"attention.q": 10})
    with pytest.raises(ConfigError, match="4 equal parts"):
        prune(model, graph, example, {"attention.q": [0, 1, 2, 3]})


def test_the_last_channels_go_from_every_head_alike() -> None:
    graph = pruning_graph(*network("transformer"))
    widths = graph.dense_widths() | {"attention.q": 12, "patch": 13}
    assert last_channels(graph, widths) == {"patch": [13, 14, 15], "attention.q": [3, 7, 11, 15]}
