"""What a sensitivity analysis removes and measures, without a target."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import harness
from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.importance import channel_scores
from harness.errors import BackendError, CandidateFailed, ConfigError, DeviceLost
from harness.measurement.types import Estimate, Measurement
from harness.quantity import INSTRUCTIONS
from harness.target import Target
from harness_results.sensitivity_table import SensitivityRow
from harness_search.analysis import Analysis, SensitivityResult
from harness_search.cuts import Cut, block_cuts, group_cuts
from harness_search.sensitivity_rows import Measurer, affords_all, lacks, pair_cost_s
from harness_search.space import SearchSpace
from support.tiny import tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.measurement.types import LatencyStats

SPACE = SearchSpace(
    {"a": 40, "b": 12, "fixed": 8}, {"a": (8, 16, 24, 32, 40), "b": (8, 12), "fixed": (8,)},
    ("l2",), uses_temperature=True, precisions=("fp32",),
)  # fmt: skip


class Lock:
    @contextmanager
    def shared(self) -> Iterator[None]:
        yield


class Bench:
    """An untrained tiny network, and a clock that says a ratio or fails."""

    def __init__(self, stats: Callable[..., LatencyStats]) -> None:
        self.task, self.lock, self.stats = tiny(), Lock(), stats
        self.network = self.task.model()
        self.graph = pruning_graph(self.network, self.task.example_input(1))
        dense = self.graph.dense_widths()
        self.space = SimpleNamespace(dense=dense)
        self.example = self.task.example_input(2)
        self.notes: list[str] = []
        self.progress = SimpleNamespace(note=self.notes.append)
        self.failure: Exception | None = None
        self.target = Target("cpu", "onnxruntime")
        self.provenance = {"fingerprint": "m1.s1"}

    def scores(self, criterion: str) -> Any:
        return channel_scores(self.network, self.graph, [], lambda o, t: o, criterion)

    def seed(self, *parts: Any) -> int:
        return 3

    def score(self, outputs: Any, split: Any) -> Any:
        return self.task.score(outputs, split)

    def model_path(self, name: str) -> str:
        return name

    def export(self, network: nn.Module, path: str) -> str:
        return path

    def timed(self, models: dict[str, str], budget: Any, plan: Any) -> dict[str, Measurement]:
        if self.failure is not None:
            raise self.failure
        assert models == {"candidate": "probe.onnx"}
        dense = self.stats(p50=Estimate(2e-3, 1e-3, 3e-3))
        smaller = self.stats(ratio_p50=Estimate(0.75, 0.5, 0.875))
        return {"dense": Measurement(dense, None, (), (), {}),
                "candidate": Measurement(smaller, None, ("steal",), (), {})}  # fmt: skip


@pytest.fixture
def bench(stats: Callable[..., LatencyStats]) -> Any:
    return Bench(stats)


CUT = Cut("group", "conv2", 48, 16, middle=True)


def kept(ratios: tuple[float, ...]) -> dict[str, list[tuple[int | None, bool]]]:
    found: dict[str, list[tuple[int | None, bool]]] = {}
    for cut in group_cuts(SPACE, ratios):
        found.setdefault(cut.name, []).append((cut.kept, cut.middle))
    return found


def test_ratios_go_to_the_nearest_width_and_repeats_are_dropped() -> None:
    # 25 % of 40 leaves 30, nearest to 32; 50 % leaves 20, between 16 and 24: the wider one.
    assert kept((0.25, 0.5, 0.75)) == {
        "a": [(32, False), (24, True), (8, False)], "b": [(8, True)],
    }  # fmt: skip
    assert kept((0.05,)) == {}
    assert kept((0.2, 0.21, 0.22)) == {"a": [(32, True)], "b": [(8, True)]}


def test_a_row_is_what_the_pruned_network_does_on_the_same_samples(bench: Any) -> None:
    row = Measurer(bench, "l2", 1000).measure(CUT, None, timed=False)
    split = bench.task.data.validation
    network = CUT.make(bench, "l2")
    with torch.inference_mode():
        before, after = (m(split.batch(torch.arange(50))) for m in (bench.network, network))
        loss = nn.functional.cross_entropy(after.double(), split.targets)
        rise = loss - nn.functional.cross_entropy(before.double(), split.targets)
    right = [(out.argmax(1) == split.targets).float().mean() for out in (before, after)]
    assert row.n == 50
    assert row.val_acc == pytest.approx(float(right[1]))
    assert row.val_acc_change == pytest.approx(float(right[1] - right[0]), abs=1e-6)
    assert row.val_loss == pytest.approx(float(loss))
    assert row.val_loss_change == pytest.approx(float(rise))
    assert row.params_saved == 32 * (32 * 9 + 2 + 3)
    assert row.macs_saved == 32 * (32 * 9 * 16 + 3)
    assert row.dense_s is None
    assert lacks(row, timed=True)
    assert not lacks(row, timed=False)


def test_batch_norms_keep_their_statistics(bench: Any) -> None:
    network = CUT.make(bench, "l2")
    removed = torch.cdist(network.bn2.running_var[:, None], bench.network.bn2.running_var[:, None])
    assert (removed.min(1).values == 0).all()
    assert bench.network.conv2.out_channels == 48


def test_at_most_so_many_samples_the_same_each_time(bench: Any) -> None:
    first, again = (Measurer(bench, "l2", 20) for _ in range(2))
    assert first.measure(CUT, None, timed=False) == again.measure(CUT, None, timed=False)
    assert first.measure(CUT, None, timed=False).n == 20


def test_time_saved_is_dense_times_one_minus_the_ratio(bench: Any) -> None:
    row = Measurer(bench, "l2", 50).measure(CUT, None, timed=True)
    assert (row.dense_s, row.flags) == (2e-3, ("steal",))
    assert (row.target, row.fingerprint) == ("cpu", "m1.s1")
    assert (row.saved_s, row.saved_lo_s, row.saved_hi_s) == pytest.approx((5e-4, 2.5e-4, 1e-3))
    assert not lacks(row, timed=True)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.block = Added()
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.stem(x)).mean((2, 3)))


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


def test_a_residual_block_goes_as_a_whole(bench: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bench.network = Residual().eval()
    bench.settings = SimpleNamespace(layers=())
    (cut,) = block_cuts(bench, None)
    row = Measurer(bench, "l2", 50).measure(cut, None, timed=False)
    assert row.key == ("block", "block", None)
    assert (row.width, row.criterion, row.ratio, row.reason) == (None, None, 1.0, None)
    assert row.params_saved == 8 * 8 * 9 + 8
    assert row.macs_saved == 8 * 8 * 9 * 64
    assert cut.describe() == "block: the whole block"
    bench.settings = SimpleNamespace(layers=("stem",))
    assert block_cuts(bench, None) == block_cuts(bench, ()) == []
    assert block_cuts(bench, ("block",)) == [cut]
    with pytest.raises(ConfigError, match="no block 'blok'.*Did you mean 'block'"):
        block_cuts(bench, ("blok",))


def test_a_known_row_is_only_timed(bench: Any) -> None:
    measurer = Measurer(bench, "l2", 50)
    known = replace(measurer.measure(CUT, None, timed=False), val_acc=0.123)
    row = measurer.measure(CUT, known, timed=True)
    assert row.val_acc == 0.123
    assert row.saved_s == pytest.approx(5e-4)


def test_a_failure_is_told_and_what_was_found_before_is_kept(bench: Any) -> None:
    bench.failure = CandidateFailed("candidate", BackendError("no such kernel"))
    row = Measurer(bench, "l2", 50).measure(CUT, None, timed=True)
    assert row.val_acc_change is not None
    assert row.saved_s is None
    assert row.reason == "CandidateFailed: no such kernel"
    assert bench.notes == ["conv2: 16 of 48 channels: no such kernel"]


def test_what_failed_or_was_disturbed_is_measured_again(bench: Any) -> None:
    measurer = Measurer(bench, "l2", 50)
    bench.failure = CandidateFailed("candidate", BackendError("killed"))
    failed = measurer.measure(CUT, None, timed=True)
    assert lacks(failed, timed=True)
    assert not lacks(failed, timed=False)
    bench.failure = None
    row = measurer.measure(CUT, replace(failed, val_acc=0.123), timed=True)
    assert (row.val_acc, row.reason) == (0.123, None)
    assert row.saved_s == pytest.approx(5e-4)
    assert lacks(replace(row, flags=("throttled",)), timed=True)
    unjudged = replace(failed, val_acc_change=None)
    assert lacks(unjudged, timed=False)
    assert measurer.measure(CUT, unjudged, timed=False).val_acc_change is not None


def test_a_dense_network_that_fails_is_no_fault_of_the_cuts(bench: Any) -> None:
    bench.failure = CandidateFailed("dense", BackendError("no such kernel"))
    with pytest.raises(CandidateFailed):
        Measurer(bench, "l2", 50).measure(CUT, None, timed=True)


def test_a_lost_device_is_no_fault_of_the_networks(bench: Any) -> None:
    bench.failure = DeviceLost("the board is gone")
    with pytest.raises(DeviceLost):
        Measurer(bench, "l2", 50).measure(CUT, None, timed=True)


def test_a_network_whose_own_code_fails_is_a_row_with_the_reason(bench: Any) -> None:
    measurer = Measurer(bench, "l2", 50)

    class Moody(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 1:
                raise KeyError("mood")
            return x

    cut = SimpleNamespace(
        kind="group", name="conv2", width=48, kept=16, ratio=0.5, describe=lambda: "conv2",
        make=lambda bench, criterion: Moody(),
    )  # fmt: skip
    row = measurer.measure(cut, None, timed=False)  # type: ignore[arg-type]
    assert row.val_acc is None
    assert row.reason == "TaskError: The network doesn't run on the validation split: 'mood'"


def test_all_are_timed_where_that_takes_two_minutes_at_most() -> None:
    row = SensitivityRow("group", "a", 40, 20, 0.5, "l2", "accuracy", 10)
    quick, slow = replace(row, dense_s=1e-3), replace(row, dense_s=0.1)
    assert affords_all(int(120 / pair_cost_s(1e-3)), [quick])
    assert not affords_all(int(120 / pair_cost_s(1e-3)) + 1, [quick])
    assert not affords_all(10, [slow])
    assert not affords_all(1, [row])  # nothing is known
    assert pair_cost_s(0.1) > pair_cost_s(1e-3) > 0
    assert pair_cost_s(1e9, INSTRUCTIONS) > pair_cost_s(1e6, INSTRUCTIONS) > 1
    assert affords_all(10, [replace(row, dense_instructions=1e6)])
    assert not affords_all(10, [replace(row, dense_instructions=1e9)])


def test_it_ends_with_3_where_nothing_was_measured() -> None:
    row = SensitivityRow("group", "a", 40, 20, 0.5, "l2", "accuracy", 10, reason="no")

    def ended(*rows: SensitivityRow) -> int:
        values: Any = dict.fromkeys(SensitivityResult.__annotations__)
        return SensitivityResult(**{**values, "rows": rows}).exit_code

    assert ended(row) == 3
    assert ended(row, replace(row, val_acc_change=-0.1)) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": "50%"}, "Unknown option 'budget'"),
        ({"ratio": "50%"}, "Did you mean 'ratios'?"),
        ({"ratios": 0.5}, "`--ratios` must be a list of shares"),
        ({"ratios": []}, "`--ratios` must be a list of shares"),
        ({"ratios": [1.0]}, "each must be a share above 0 % and below 100 %"),
        ({"ratios": "120%"}, "each must be a share above 0 % and below 100 %"),
        ({"criterion": "l3"}, "`--criterion` must be one of l2, l1, "),
        ({"criterion": "random"}, "activation, fpgm. Received: 'random'"),
        ({"samples": 0}, "`--samples` must be a whole number from 1"),
        ({"timing": "no"}, "`timing` must be True or False"),
        ({"layers": 3}, "`layers` must be names"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        harness.sensitivity(task="tiny", **options)
    assert words in str(caught.value)


def test_the_default_analysis() -> None:
    assert Analysis() == Analysis((0.25, 0.5, 0.75), "l2", 2000, timing=True, remeasure=False)
