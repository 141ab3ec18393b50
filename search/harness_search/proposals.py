"""What to try next: the obvious answers first, then what the sampler suggests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import TaskError
from harness_search.depth import best_depth, leaving_order
from harness_search.ladder import ranked_ladder, scaled_ladder
from harness_search.sensitivity_ladder import sensitivity_ladder, timed_here
from harness_search.trial import Proposal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import optuna

    from harness.budget import Budget
    from harness_results.record import RunRecord
    from harness_search.bases import Base
    from harness_search.ladder import Ladder
    from harness_search.optuna_study import OptunaStudy
    from harness_search.settings import Settings
    from harness_search.space import SearchSpace
    from harness_search.workbench import Workbench

CONTROLS = ("uniform", "global")
SENSITIVITY = "sensitivity"
"""The third one, where a sensitivity analysis was given."""
DEPTH = "depth"
"""Blocks left out, then global pruning: where there are blocks that can be left out."""
_FASTER = 0.85
"""Under `--max-drop`: how much faster than the best so far the next trial aims to be."""


def controls(settings: Settings) -> tuple[str, ...]:
    """Return the roles of the trials that the final measures beside dense network and winner."""
    return (*CONTROLS, SENSITIVITY) if settings.sensitivity else CONTROLS


def warm_starts(settings: Settings, space: SearchSpace) -> tuple[str, ...]:
    """Return the roles of the trials that come before the sampler's, under each budget.

    The best known answer comes first: global pruning. Then come what a sensitivity analysis
    suggests, global pruning without some blocks, and global pruning in every further precision,
    named by it: where int8 alone nearly meets the budget, it keeps nearly all channels. Uniform
    pruning, which hardly ever wins, is the last: a control where there is the time for it.

    Args:
        settings: What the user asked for.
        space: Under the budget; controls are in its first precision.
    """
    sensitivity = (SENSITIVITY,) if settings.sensitivity else ()
    depth = (DEPTH,) if space.blocks else ()
    return ("global", *sensitivity, *depth, *space.precisions[1:], "uniform")


def propose(
    bench: Workbench,
    index: int,
    records: Sequence[RunRecord],
    studies: Mapping[str, OptunaStudy],
    budgets: Sequence[Budget],
) -> tuple[Proposal, optuna.Trial | None]:
    """Return the proposal of trial `index`, and Optuna's trial where its sampler made it.

    Budgets take turns; each begins with its controls.
    """
    turn, budget = index // len(budgets), budgets[index % len(budgets)]
    share = budget.as_share(bench.dense_figures[budget.statistic])
    space = bench.spaces[budget.text]
    known = warm_starts(bench.settings, space)
    if turn < len(known):
        role, params = known[turn], space.defaults()
        if role == SENSITIVITY:
            params["criterion"] = _criterion(bench)
        if role in space.precisions:
            params["precision"] = role
        if role == DEPTH:
            params["depth"] = best_depth(bench, space, share)
        base = _base(bench, params["depth"])
        ladder = _ladder(bench, base, role)
        return Proposal(index, role, budget, share, base, ladder, params, None), None
    trial, params = studies[budget.text].ask(index)
    drawn = {name: params[name] for name in space.distributions() if name in params}
    base = _base(bench, params["depth"])
    ladder = scaled_ladder(base.space, base.space.densities(params))
    if bench.settings.max_drop is None:
        return Proposal(index, "searched", budget, share, base, ladder, params, drawn), trial
    floor_share = bench.floor_shares[params["precision"]]
    aim, limit = _faster_aim(bench, records, budget, share, floor_share)
    return Proposal(index, "searched", budget, aim, base, ladder, params, drawn, limit), trial


def _base(bench: Workbench, depth: int) -> Base:
    """Return the network without the first blocks of the order: so many, or what can be traced."""
    while True:
        try:
            return bench.base(leaving_order(bench)[:depth] if depth else ())
        except TaskError as exc:
            if not depth:
                raise
            bench.progress.note(f"one block more stays: {exc}")
            depth -= 1


def _ladder(bench: Workbench, base: Base, role: str) -> Ladder:
    """Return a warm start's idea at every size."""
    if role == SENSITIVITY:
        rows = timed_here(bench.settings.sensitivity, bench.provenance["fingerprint"])
        return sensitivity_ladder(bench.space, rows)
    if role == "uniform":
        return scaled_ladder(bench.space, dict.fromkeys(bench.space.dense, 1.0))
    return ranked_ladder(base.space, bench.scores(bench.space.criteria[0], base.blocks))


def _criterion(bench: Workbench) -> str:
    """Return what chose the channels in the analysis, where it says something of this network."""
    rows, known = bench.settings.sensitivity, bench.space.criteria
    asked = next(row.criterion for row in rows if row.kind == "group")  # `check_fits`: all alike
    return asked if asked in known else known[0]


def _faster_aim(
    bench: Workbench,
    records: Sequence[RunRecord],
    budget: Budget,
    share: float,
    floor_share: float,
) -> tuple[float, float | None]:
    """Return the share to aim at when the fastest network within a loss is wanted, and the limit.

    The aim is below the fastest that is within the loss, but not below what has been seen to fail:
    halfway then. The limit is that fastest one's share; None while there is none.

    Args:
        bench: The session.
        records: All trials.
        budget: What has to be met.
        share: The budget as a share of the dense network's latency.
        floor_share: The floor's, in the precision that is tried.
    """
    own = [r for r in records if r.budget["text"] == budget.text and r.status == "complete"]
    good = [_share(r) for r in own if is_within_drop(bench, r)]
    if not good:
        return share, None
    failed = max((_share(r) for r in own if _share(r) < min(good)), default=0.0)
    return max(floor_share, min(good) * _FASTER, (min(good) + failed) / 2), min(good)


def is_within_drop(bench: Workbench, record: RunRecord) -> bool:
    """Whether a trial loses no more of the metric on validation than `--max-drop` allows."""
    drop = bench.settings.max_drop
    value: float = record.scores["validation"]["value"]
    return drop is None or value >= bench.dense_validation["value"] - drop - 1e-9


def _share(record: RunRecord) -> float:
    ratio: float = record.latency["retimed"][f"ratio_{record.budget['statistic']}"][0]
    return ratio
