"""Networks that channels are pruned from: with and without residual blocks."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import last_channels
from harness.errors import ConfigError, TaskError
from harness.models.residual import ResidualCnn
from harness.target import Target
from harness_search.bases import layers_by_block, make_base, smallest_base
from harness_search.settings import Settings
from harness_search.space import search_space
from support.tiny import tiny

if TYPE_CHECKING:
    from harness.compression.pruning.dependency.graph import PruningGraph
    from harness_search.bases import Base
    from harness_search.space import SearchSpace

TARGET = Target("cpu", "onnxruntime")
EXAMPLE = tiny().example_input(1)
BLOCKS = ("stages.0.0", "stages.0.1", "stages.1.1")


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(0)
    return ResidualCnn(1, (16, 32), (2, 2), classes=5).eval()


def settings(**changes: Any) -> Settings:
    return replace(Settings(TARGET, (), precisions=("fp32",)), **changes)


def whole(network: nn.Module, **changes: Any) -> tuple[PruningGraph, SearchSpace]:
    graph = pruning_graph(network, EXAMPLE)
    return graph, search_space(graph, 8, settings(**changes), ("l2",), uses_temperature=True)


def smallest(network: nn.Module, **changes: Any) -> tuple[Base, tuple[str, ...]]:
    return smallest_base(network, *_around(network, changes), settings(**changes))


def _around(network: nn.Module, changes: Any) -> tuple[PruningGraph, torch.Tensor, SearchSpace]:
    graph, space = whole(network, **{k: v for k, v in changes.items() if k != "blocks"})
    return graph, EXAMPLE, space


def make(network: nn.Module, *blocks: str) -> Base:
    graph, space = whole(network)
    return make_base(network, graph, EXAMPLE, space, blocks)


def test_blocks_that_keep_their_inputs_shape_may_be_left_out(dense: nn.Module) -> None:
    base, notes = smallest(dense)
    assert base.blocks == BLOCKS
    assert notes == ()


def test_the_user_says_which_blocks_may_go(dense: nn.Module) -> None:
    assert smallest(dense, blocks=("stages.1.1",))[0].blocks == ("stages.1.1",)
    assert smallest(dense, blocks=())[0].blocks == ()
    fewer = smallest(dense, exclude=("stages.0.1.conv1",))[0]
    assert fewer.blocks == ("stages.0.0", "stages.1.1")
    assert smallest(dense, layers=("stem",))[0].blocks == ()
    assert smallest(dense, layers=("stem",), blocks=BLOCKS[:1])[0].blocks == BLOCKS[:1]


def test_an_unknown_block_is_refused_with_the_nearest(dense: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"no block 'stages.0.2'.*Did you mean"):
        smallest(dense, blocks=("stages.0.2",))


def test_a_block_can_t_go_and_stay_whole(dense: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"`--exclude` keeps stages.0.1.conv1 in it whole"):
        smallest(dense, blocks=("stages.0.1",), exclude=("stages.0.1.conv1",))


def test_a_base_has_the_other_groups_and_is_pruned_as_any_network(dense: nn.Module) -> None:
    _, space = whole(dense)
    base = make(dense, "stages.0.0", "stages.1.1")
    gone = {"stages.0.0.conv1", "stages.1.1.conv1"}
    assert base.space.dense == {n: w for n, w in space.dense.items() if n not in gone}
    assert base.space.allowed.keys() == base.space.dense.keys()
    history = last_channels(base.graph, base.space.floor())
    smaller = base.pruned(dense, EXAMPLE, history)
    assert smaller(EXAMPLE).shape == dense(EXAMPLE).shape
    assert smaller.get_submodule("stages.0.1.conv1").out_channels == 8
    assert dense.get_submodule("stages.0.0.conv1").out_channels == 16
    told = base.widths(base.space.floor(), space.dense)
    assert told == {name: 0 if name in gone else 8 for name in space.dense}


def test_a_base_has_the_dense_networks_weights_of_now(dense: nn.Module) -> None:
    base = make(dense, "stages.0.0")
    other = ResidualCnn(1, (16, 32), (2, 2), classes=5).eval()
    assert torch.equal(base.network(other).stem.weight, other.stem.weight)  # type: ignore[union-attr, arg-type]


def test_without_blocks_nothing_is_traced_again() -> None:
    graph, space = whole(ResidualCnn(1, (16, 32), (2, 2), classes=5).eval())
    broken: Any = SimpleNamespace()  # would fail if it were run
    base = make_base(broken, graph, EXAMPLE, space, ())
    assert base.graph is graph
    assert base.space is space
    assert smallest_base(broken, graph, EXAMPLE, space, settings(blocks=()))[0].blocks == ()


class Narrow(nn.Module):
    """Nothing but the block can be pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Inner()
        self.head = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(x.flatten(1)))  # type: ignore[no-any-return]


class Inner(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 32), nn.Linear(32, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))  # type: ignore[no-any-return]


def test_blocks_without_which_nothing_is_left_to_prune_stay() -> None:
    network = Narrow().eval()
    with pytest.raises(TaskError):
        make(network, "block")
    base, notes = smallest(network)
    assert base.blocks == ()
    (note,) = notes
    assert note.startswith("block block is never left out: The network has no channels")
    with pytest.raises(ConfigError, match=r"`--blocks` must name .* block has to stay"):
        smallest(network, blocks=("block",))


class Twins(nn.Module):
    """Two blocks on one stream: without both nothing can be pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Inner(), Inner()
        self.head = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x.flatten(1))))  # type: ignore[no-any-return]


def test_the_last_block_stays_where_not_all_can_go_together() -> None:
    base, notes = smallest(Twins().eval())
    assert base.blocks == ("first",)
    assert [note.split(":")[0] for note in notes] == ["block second is never left out"]
    with pytest.raises(ConfigError, match=r"Received first, second; but second has to stay"):
        smallest(Twins().eval(), blocks=("first", "second"))


class BlocksFirst(nn.Module):
    """Registers its block before the layer that the block's channels are named after."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Inner(32)
        self.stem, self.head = nn.Linear(64, 32), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(torch.relu(self.stem(x.flatten(1)))))  # type: ignore[no-any-return]


def test_groups_are_the_dense_networks_whatever_comes_first() -> None:
    network = BlocksFirst().eval()
    base, notes = smallest(network)
    assert set(base.space.dense) <= set(whole(network)[1].dense)
    assert bool(notes) != bool(base.blocks)  # left out rightly, or not at all and told


def test_layers_are_found_by_block() -> None:
    layers = ["stem", "a.conv1", "a.conv2", "ab.conv", "b.x.y"]
    found = layers_by_block(layers, ("a", "b"))
    assert found == {"a": ("a.conv1", "a.conv2"), "b": ("b.x.y",)}
