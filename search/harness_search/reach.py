"""What the floors say: how fast the target is, which precisions pay, which budgets are in reach."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from harness.compression.quantisation.precision import FP32
from harness.errors import ConfigError
from harness.quantity import TIME
from harness_search.bases import layers_by_block
from harness_search.latency_model import LatencyModel
from harness_search.optuna_study import judged

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from harness.budget import Budget
    from harness_results.record import RunRecord
    from harness_search.space import SearchSpace
    from harness_search.workbench import Workbench

Share = tuple[float, float, float]
"""Latency as a share of the dense float32 network's, with its 95 % interval."""


def take_floors(
    bench: Workbench, floors: Sequence[RunRecord], trials: Sequence[RunRecord]
) -> list[RunRecord]:
    """Set what the floors say: dense latencies, latency models, precisions; return those searched.

    A precision that failed is left out and told; so is one that is no faster than float32, neither
    for the dense network nor for the floor, unless files have to be small.

    Args:
        bench: The session; its notes get what is left out.
        floors: Of `measure_floors`.
        trials: Of the study, so far; what those that didn't fail compute in stays.

    Raises:
        ConfigError: If trials compute in a precision that fails here.
    """
    timed = {r.candidate["precision"]: r for r in floors if r.status == "complete"}
    used = {record.candidate["precision"] for record in trials if record.status != "failed"}
    for record in floors:
        if record.status != "complete":
            _tell_failed(bench, record, used)
    first = next(iter(timed.values()))
    dense, statistic = first.latency["dense"], first.budget["statistic"]
    # A slow model is called too seldom for a p90, unless that is what the budget bounds.
    known = {name: first.quantity.of(dense, name) for name in ("p50", "p90")}
    bench.dense_figures = {name: triple[0] for name, triple in known.items() if triple is not None}
    bench.probe_s = first.timings_s["timing"] / models_timed(floors)
    shares = {name: _shares(record, statistic) for name, record in timed.items()}
    sized = bench.settings.max_size_bytes is not None
    kept = [n for n in timed if sized or n in used or _pays(shares[n], shares.get(FP32.name))]
    for name in timed:
        if name not in kept:
            _tell_slow(bench, name, shares, statistic)
    bench.space = replace(bench.space, precisions=tuple(kept))
    bench.latency_models = {name: _model(bench, *shares[name]) for name in kept}
    bench.floor_shares = {name: shares[name][1][0] for name in kept}
    bench.floor_bytes = {name: timed[name].model["size_bytes"] for name in kept}
    return [timed[name] for name in kept]


def models_timed(floors: Sequence[RunRecord]) -> int:
    """Return how many models were measured together for the floors, the dense one included."""
    timed = (record for record in floors if record.status == "complete")
    return 1 + sum(1 + ("whole" in record.latency) for record in timed)


def _model(bench: Workbench, whole: Share, floor: Share) -> LatencyModel:
    dense, smallest = bench.graph.macs(bench.space.dense), bench.base(bench.space.blocks)
    blocks = layers_by_block(list(dense), bench.space.blocks)
    least = smallest.graph.macs(smallest.space.floor())
    return LatencyModel(dense, blocks, least, floor[0], whole[0])


def _shares(record: RunRecord, statistic: str) -> tuple[Share, Share]:
    """Return the dense network's share in the floor's precision, and the floor's."""
    ratio = f"ratio_{statistic}"
    whole = record.latency.get("whole", {ratio: (1.0, 1.0, 1.0)})
    return whole[ratio], record.latency["probe"][ratio]


def _pays(ours: tuple[Share, Share], theirs: tuple[Share, Share] | None) -> bool:
    """Whether a precision may be faster than float32 somewhere, by the ends of the intervals."""
    if theirs is None or ours == theirs:
        return True
    return any(mine[1] < fp32[2] for mine, fp32 in zip(ours, theirs, strict=True))


def _tell_failed(bench: Workbench, record: RunRecord, used: Collection[str]) -> None:
    name = record.candidate["precision"]
    if name in used:
        raise ConfigError(
            f"This study has trials in {name}, in which its network can't be used here any more: "
            f"{record.reason}. Go on with the versions that it was begun with, or begin another "
            "study (`--study NAME`)."
        )
    _tell(bench, f"{name} is left out of the search: {record.reason}")


def _tell_slow(
    bench: Workbench, name: str, shares: Mapping[str, tuple[Share, Share]], statistic: str
) -> None:
    whole, floor = shares[name]
    timed = bench.target.quantity is TIME
    no_less = "is no faster" if timed else "executes no fewer instructions"
    _tell(
        bench,
        f"{name} is left out of the search: it {no_less} than fp32 here. Shares of the dense "
        f"fp32 network's {statistic}: the dense network in {name} {_shown(whole)}, the floor in "
        f"{name} {_shown(floor)}, in fp32 {_shown(shares[FP32.name][1])}",
    )


def _tell(bench: Workbench, text: str) -> None:
    bench.notes = (*bench.notes, text)
    bench.progress.note(f"note: {text}")


def _shown(share: Share) -> str:
    return f"{share[0]:.1%} ({share[1]:.1%} to {share[2]:.1%})"


def fastest(floors: Sequence[RunRecord]) -> RunRecord:
    """Return the fastest floor's record."""
    return min(floors, key=lambda r: r.latency["probe"][f"ratio_{r.budget['statistic']}"][0])


def allows(floor: RunRecord, budget: Budget, max_size_bytes: int | None) -> bool:
    """Whether a floor is not clearly over a budget (its lower bound is within), nor too large."""
    low: float = judged(floor.latency["probe"], asdict(budget))[1]
    return low <= budget.value and (
        max_size_bytes is None or floor.model["size_bytes"] <= max_size_bytes
    )


def space_within(
    bench: Workbench, floors: Sequence[RunRecord], budget: Budget, trials: Sequence[RunRecord]
) -> SearchSpace | None:
    """Return the space without the precisions that can't meet a budget; None where none can.

    Args:
        bench: The session.
        floors: Of the precisions that are searched.
        budget: What to meet.
        trials: Of the study, so far; what those under this budget that didn't fail compute in
            stays.
    """
    limit = bench.settings.max_size_bytes
    able = {r.candidate["precision"] for r in floors if allows(r, budget, limit)}
    if not able:
        return None
    own = (r for r in trials if r.budget["text"] == budget.text and r.status != "failed")
    able |= {record.candidate["precision"] for record in own}
    kept = tuple(name for name in bench.space.precisions if name in able)
    return replace(bench.space, precisions=kept)
