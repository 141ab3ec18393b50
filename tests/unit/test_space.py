from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from harness.compression.pruning.dependency.graph import PruningGraph, pruning_graph
from harness.compression.pruning.importance import CRITERIA
from harness.errors import ConfigError
from harness.target import Target
from harness_search.settings import Settings
from harness_search.space import SearchSpace, search_space
from support.tiny import tiny


@pytest.fixture(scope="module")
def graph() -> PruningGraph:
    return pruning_graph(tiny().model(), tiny().example_input(1))


def space(
    graph: PruningGraph,
    granule: int,
    layers: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    criteria: tuple[str, ...] = CRITERIA,
    uses_temperature: bool = True,
    precisions: tuple[str, ...] = ("fp32",),
) -> SearchSpace:
    target = Target("cpu", "onnxruntime")
    settings = Settings(target, (), layers=layers, exclude=exclude, precisions=precisions)
    return search_space(graph, granule, settings, criteria, uses_temperature)


def test_widths_go_in_granules_up_to_the_dense_one(graph: PruningGraph) -> None:
    assert space(graph, 16).allowed == {"conv1": (16, 32), "conv2": (16, 32, 48)}
    assert space(graph, 20).allowed == {"conv1": (20, 32), "conv2": (20, 40, 48)}
    assert space(graph, 40).allowed == {"conv1": (32,), "conv2": (40, 48)}
    assert space(graph, 16).floor() == {"conv1": 16, "conv2": 16}


def test_layers_and_exclude_fix_groups_at_their_dense_width(graph: PruningGraph) -> None:
    expected = {"conv1": (32,), "conv2": (16, 32, 48)}
    assert space(graph, 16, layers=("conv2",)).allowed == expected
    assert space(graph, 16, exclude=("conv1",)).allowed == expected
    assert "ratio.conv1" not in space(graph, 16, exclude=("conv1",)).distributions()


@pytest.mark.parametrize("option", ["layers", "exclude"])
def test_an_unknown_layer_is_refused_with_the_nearest(graph: PruningGraph, option: str) -> None:
    with pytest.raises(ConfigError, match=r"'conv3'.*Did you mean 'conv"):
        space(graph, 16, **{option: ("conv3",)})


def test_a_space_of_one_network_is_refused(graph: PruningGraph) -> None:
    with pytest.raises(ConfigError, match="Nothing is left"):
        space(graph, 48)
    with pytest.raises(ConfigError, match="Nothing is left"):
        space(graph, 16, exclude=("conv1", "conv2"))


def test_what_is_drawn_stays_between_the_dense_network_and_the_floor(graph: PruningGraph) -> None:
    drawn = space(graph, 16).distributions()
    ratio = drawn["ratio.conv2"]
    assert isinstance(ratio, FloatDistribution)
    assert (ratio.low, ratio.high) == (0.0, 1 - 16 / 48)
    assert drawn.keys() == {
        "ratio.conv1", "ratio.conv2", "temperature", "kd_weight", "criterion",
    }  # fmt: skip


def test_a_suggestion_has_every_parameter_and_keeps_some_of_every_group(
    graph: PruningGraph,
) -> None:
    searched = space(graph, 16)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        params = searched.suggest(study.ask())
        assert params.keys() == searched.distributions().keys() | {"precision", "depth"}
        assert params["depth"] == 0
        assert params["criterion"] in CRITERIA
        assert params["precision"] == "fp32"
        densities = searched.densities(params)
        assert 16 / 32 <= densities["conv1"] <= 1
        assert 16 / 48 <= densities["conv2"] <= 1


def test_a_fixed_group_keeps_everything(graph: PruningGraph) -> None:
    fixed = space(graph, 16, exclude=("conv1",))
    assert fixed.densities({"ratio.conv2": 0.25}) == {"conv1": 1.0, "conv2": 0.75}


def test_ratios_are_what_is_gone(graph: PruningGraph) -> None:
    found = space(graph, 16).ratios({"conv1": 32, "conv2": 12})
    assert found == {"conv1": 0.0, "conv2": 0.75}


def test_the_parameters_of_a_candidate_would_suggest_it(graph: PruningGraph) -> None:
    searched = space(graph, 16)
    widths = {"conv1": 16, "conv2": 32}
    params = searched.params({"widths": widths, "blocks": [], **searched.defaults()})
    assert params.keys() == searched.distributions().keys()
    densities = searched.densities(params)
    assert {n: round(d * searched.dense[n]) for n, d in densities.items()} == widths
    assert params["criterion"] == searched.defaults()["criterion"]


def test_without_a_temperature_none_is_drawn_and_none_is_used(graph: PruningGraph) -> None:
    squared = space(graph, 16, uses_temperature=False)
    assert "temperature" not in squared.distributions()
    assert squared.defaults()["temperature"] is None
    params = squared.suggest(optuna.create_study().ask())
    assert params["temperature"] is None
    unused = {"temperature", "precision", "depth"}
    assert params.keys() == squared.distributions().keys() | unused
    told = squared.params({"widths": graph.dense_widths(), "blocks": [], **squared.defaults()})
    assert told.keys() == squared.distributions().keys()


def test_a_precision_is_drawn_where_there_are_several(graph: PruningGraph) -> None:
    mixed = space(graph, 16, precisions=("fp32", "int8"))
    drawn = mixed.distributions()["precision"]
    assert isinstance(drawn, CategoricalDistribution)
    assert drawn.choices == ("fp32", "int8")
    assert mixed.defaults()["precision"] == "fp32"
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert {mixed.suggest(study.ask())["precision"] for _ in range(20)} == {"fp32", "int8"}
    assert mixed.digest() != space(graph, 16).digest()


def test_a_depth_is_drawn_where_blocks_may_be_left_out(graph: PruningGraph) -> None:
    deep = replace(space(graph, 16), blocks=("a", "b"))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert {deep.suggest(study.ask())["depth"] for _ in range(20)} == {0, 1, 2}
    assert deep.defaults()["depth"] == 0
    assert deep.digest() != space(graph, 16).digest()
    told = deep.params({"widths": {"conv1": 16, "conv2": 0}, "blocks": ["b"], **deep.defaults()})
    assert (told["depth"], told["ratio.conv2"]) == (1, 0.5)  # the others' mean


def test_a_single_precision_is_everybodys(graph: PruningGraph) -> None:
    pinned = space(graph, 16, precisions=("int8",))
    assert "precision" not in pinned.distributions()
    assert pinned.defaults()["precision"] == "int8"
    assert pinned.suggest(optuna.create_study().ask())["precision"] == "int8"


def test_only_criteria_that_say_something_are_drawn(graph: PruningGraph) -> None:
    without = space(graph, 16, criteria=("taylor", "l2"))
    drawn = without.distributions()["criterion"]
    assert isinstance(drawn, CategoricalDistribution)
    assert drawn.choices == ("taylor", "l2")
    assert without.defaults()["criterion"] == "taylor"


def test_the_digest_sees_widths_criteria_and_temperature(graph: PruningGraph) -> None:
    base = space(graph, 16)
    others = [
        space(graph, 8), space(graph, 16, criteria=("l2",)), space(graph, 16, exclude=("conv1",)),
        space(graph, 16, uses_temperature=False),
    ]  # fmt: skip
    assert len({one.digest() for one in (base, *others)}) == 5
    assert base.digest() == space(graph, 16).digest()
