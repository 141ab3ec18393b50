"""In which order blocks are left out, and how many a budget wants."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.importance import channel_scores
from harness.compression.steps.base import Silent
from harness.errors import TaskError
from harness.models.residual import ResidualCnn
from harness.target import Target
from harness.training import fit
from harness_search.bases import make_base
from harness_search.depth import FILE, best_depth, depths, judging_s, leaving_order
from harness_search.settings import Settings
from harness_search.space import search_space
from support.tiny import tiny

BLOCKS = ("stages.0.0", "stages.0.1", "stages.1.1")


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Model:
    """Says that time is in proportion to the multiply-accumulates."""

    def __init__(self, dense: float) -> None:
        self.dense = dense

    def predict(self, macs: dict[str, float]) -> float:
        return sum(macs.values()) / self.dense


@pytest.fixture(scope="module")
def bench() -> Any:
    task = tiny()
    torch.manual_seed(0)
    network = ResidualCnn(1, (16, 16), (2, 2), classes=3)
    fit(network, task.data.train, task.objective, task.recipe, epochs=2, lr=0.05, seed=0)
    network.eval()
    with torch.no_grad():  # a block that does nothing, and one that does nearly nothing
        silent, faint = (network.get_submodule(name) for name in BLOCKS[1:])
        silent.bn2.weight.zero_()
        silent.bn2.bias.zero_()
        faint.bn2.weight.mul_(1e-3)
        faint.bn2.bias.mul_(1e-3)
    example = task.example_input(1)
    graph = pruning_graph(network, example)
    settings = Settings(Target("cpu", "onnxruntime"), (), precisions=("fp32",))
    space = search_space(graph, 4, settings, ("l2",), uses_temperature=True)
    made = SimpleNamespace(
        task=task, network=network, space=replace(space, blocks=BLOCKS), progress=Silent(),
        example=example, seed=lambda *parts: 5, order=(), settings=settings,
        lock=SimpleNamespace(shared=contextlib.nullcontext, breathe=lambda: None),
        latency_models={"fp32": Model(sum(graph.macs(space.dense).values()))},
    )  # fmt: skip
    made.base = lambda blocks: make_base(network, graph, example, made.space, blocks)

    def scores(criterion: str, blocks: Any = ()) -> Any:
        base = made.base(blocks)
        return channel_scores(base.network(network), base.graph, [], lambda o, t: o, criterion)

    made.scores = scores
    return made


ORDER = ("stages.0.1", "stages.1.1", "stages.0.0")


@pytest.fixture
def fresh(bench: Any, tmp_path: Path) -> Any:
    """Return the session as it is before anything was judged."""
    made = SimpleNamespace(**vars(bench) | {"folder": SimpleNamespace(path=tmp_path)})
    made.predict = lambda base, widths, precision: made.latency_models[precision].predict(
        base.graph.macs(widths)
    )
    return made


def test_blocks_that_matter_least_go_first(fresh: Any) -> None:
    assert leaving_order(fresh) == ORDER


def test_the_order_is_judged_once_in_a_study(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving_order(fresh)
    monkeypatch.setattr("harness_search.depth.order_blocks", None)  # would fail if it were called
    fresh.order = ()
    assert leaving_order(fresh) == ORDER


@pytest.mark.parametrize("text", ["", "{}", '{"order": 5}', '{"order": ["stages.0.1"]}', "[]"])
def test_a_damaged_order_is_judged_again(fresh: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert leaving_order(fresh) == ORDER
    assert json.loads((tmp_path / FILE).read_text()) == {"order": list(ORDER)}


def test_a_single_block_needs_no_judge(fresh: Any) -> None:
    fresh.space = replace(fresh.space, blocks=BLOCKS[:1])
    fresh.network = None  # would fail if it were run
    assert leaving_order(fresh) == BLOCKS[:1]


def test_where_judging_fails_the_last_block_goes_first(
    fresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any) -> Any:
        raise TaskError("no loss")

    monkeypatch.setattr("harness_search.depth.order_blocks", fails)
    fresh.progress = Heard()
    assert leaving_order(fresh) == BLOCKS[::-1]
    assert fresh.progress.notes == [
        "the last block is left out first, since judging them fails: no loss"
    ]


def test_blocks_that_do_nothing_go_before_channels_that_do(fresh: Any) -> None:
    gone = fresh.base(ORDER[:1])
    without = sum(gone.graph.macs(gone.space.dense).values()) / fresh.latency_models["fp32"].dense
    assert best_depth(fresh, fresh.space, without + 0.01) == 1  # without any other loss
    two = fresh.base(ORDER[:2])
    fewer = sum(two.graph.macs(two.space.dense).values()) / fresh.latency_models["fp32"].dense
    assert best_depth(fresh, fresh.space, fewer + 0.01) == 2


def test_where_no_network_fits_all_blocks_go(fresh: Any) -> None:
    assert best_depth(fresh, fresh.space, 1e-6) == 3


def test_a_budget_that_only_int8_meets_is_judged_by_its_latency(fresh: Any) -> None:
    dense = fresh.latency_models["fp32"].dense
    fresh.latency_models = {"fp32": Model(dense / 1e6), "int8": Model(4 * dense)}
    one = fresh.base(ORDER[:1])
    share = sum(one.graph.macs(one.space.dense).values()) / (4 * dense)
    assert best_depth(fresh, replace(fresh.space, precisions=("int8",)), share + 1e-3) == 1


def test_what_can_t_be_judged_is_left_out_and_told(
    fresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(judge: Any, network: Any, gone: Any) -> float:
        if len(gone) == 1:
            raise TaskError("broken")
        return float(len(gone))

    monkeypatch.setattr("harness_search.depth.Judge.loss_of", fails)
    fresh.progress, fresh.order = Heard(), ORDER
    assert best_depth(fresh, fresh.space, 0.5) == 2
    assert fresh.progress.notes == ["1 blocks fewer are not judged: broken"]


@pytest.mark.parametrize(
    ("blocks", "judged"),
    [(1, [1]), (3, [1, 2, 3]), (8, [*range(1, 9)]), (27, [4, 7, 11, 14, 17, 21, 24, 27])],
)
def test_few_numbers_of_blocks_are_judged(blocks: int, judged: list[int]) -> None:
    assert depths(blocks) == judged


def test_the_network_stays_as_it_is(fresh: Any) -> None:
    before = [tensor.clone() for tensor in fresh.network.state_dict().values()]
    leaving_order(fresh)
    best_depth(fresh, fresh.space, 0.4)
    after = fresh.network.state_dict().values()
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_what_judging_takes_is_foretold(fresh: Any) -> None:
    assert judging_s(fresh) > 0
    fresh.space = replace(fresh.space, blocks=())
    assert judging_s(fresh) == 0
