"""From a sensitivity analysis to a ladder: channels go first where they cost least per time saved.

With `L_g(r)` the rise of the loss and `S_g(r)` the time saved when the share `r` of group `g`'s
channels is removed alone, both linear between the measured shares and `(0, 0)`, carried on with the
last slope beyond them, and never falling, the next granule is taken from the group where

    (L_g(r') - L_g(r)) / (S_g(r') - S_g(r))

is least, `r` being the share removed so far and `r'` that with one granule more. Steps that save
nothing come last. That the costs of several groups add up is an assumption (the first order of a
Taylor expansion); training and measurement decide.

The allocation by measured sensitivity follows Li et al. (2017), "Pruning filters for efficient
ConvNets"; ranking by the loss per unit of latency follows Shen et al. (2022), "Structural pruning
via latency-saliency knapsack" (HALP).
"""

from __future__ import annotations

import heapq
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import ConfigError
from harness_results.sensitivity_table import has_time, read_sensitivity, untimed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness_results.sensitivity_table import SensitivityRow
    from harness_search.ladder import Ladder
    from harness_search.space import SearchSpace

Curve = tuple[list[float], list[float]]
"""Shares removed, ascending, and what was measured there."""
Step = tuple[bool, float, float]
"""Whether it saves nothing, its cost, and minus what it saves: less is taken first."""


def read_analysis(path: str | Path | None) -> tuple[SensitivityRow, ...]:
    """Return the rows of an analysis that is to seed a search; none where no file is given.

    Raises:
        ConfigError: If the file is no table of a sensitivity analysis, or holds none.
    """
    if path is None:
        return ()
    rows = tuple(read_sensitivity(Path(path)))
    if not rows:
        raise ConfigError(
            f"`--sensitivity` must hold rows. Received: {path}, an empty table. Run `harness "
            "sensitivity` to its end."
        )
    return rows


def check_fits(rows: Sequence[SensitivityRow], space: SearchSpace) -> None:
    """Check that an analysis is of a network with a search's groups.

    Raises:
        ConfigError: If a group is unknown or of another width, nothing is known of one that may be
            pruned, or several criteria chose the channels.
    """
    groups = [row for row in rows if row.kind == "group"]
    for row in groups:
        if space.dense.get(row.name) != row.width:
            has = space.dense.get(row.name, "none of this name")
            raise ConfigError(
                f"`--sensitivity` must be of this network. Its group {row.name!r} has {row.width} "
                f"channels; in this network: {has}. Make one with `harness sensitivity`."
            )
    criteria = sorted({row.criterion or "none" for row in groups})
    if len(criteria) > 1:
        raise ConfigError(
            f"`--sensitivity` must be of one importance criterion. Received rows of "
            f"{', '.join(criteria)}. Make one with `harness sensitivity`."
        )
    known = {row.name for row in groups if row.val_loss_change is not None}
    missing = [name for name, w in space.allowed.items() if len(w) > 1 and name not in known]
    if missing:
        raise ConfigError(
            f"`--sensitivity` says nothing of the group{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)}. Run `harness sensitivity` for all of them, or leave them whole "
            "with `--exclude`."
        )


def timed_here(rows: Sequence[SensitivityRow], fingerprint: str) -> tuple[SensitivityRow, ...]:
    """Return an analysis without what was timed elsewhere: losses hold anywhere, times don't.

    Args:
        rows: Of the analysis.
        fingerprint: Of the machine, its runtime and the target's options, here.
    """
    return tuple(row if row.fingerprint == fingerprint else untimed(row) for row in rows)


def seed_notes(
    rows: Sequence[SensitivityRow], space: SearchSpace, fingerprint: str
) -> tuple[str, ...]:
    """Return what a user should know of an analysis that fits: which times are not taken.

    Args:
        rows: Of the analysis; nothing is said where there are no times at all.
        space: Allowed widths.
        fingerprint: Of the machine, its runtime and the target's options, here.
    """
    here = timed_here(rows, fingerprint)
    missing = [name for name in _free(space) if name not in _timed(here)]
    if not missing or all(row.saved is None for row in rows):
        return ()
    elsewhere = {f"{r.target} ({r.fingerprint})" for r in rows if r.fingerprint is not None}
    elsewhere -= {f"{r.target} ({r.fingerprint})" for r in here}
    if elsewhere:
        return (
            f"the sensitivity analysis was timed on {', '.join(sorted(elsewhere))}; this target's "
            f"fingerprint is {fingerprint}: another machine, runtime or option. Its losses are "
            "used, its times are not: multiply-accumulates stand in for the time saved in all "
            "groups. Run `harness sensitivity` with this search's target and options for times "
            "that count",
        )
    return (
        f"the sensitivity analysis has no undisturbed time for {', '.join(missing)}, so "
        "multiply-accumulates stand in for the time saved in all groups. Where it was disturbed, "
        "run the `harness sensitivity` command again and seed a new study",
    )


def _free(space: SearchSpace) -> list[str]:
    return [name for name, widths in space.allowed.items() if len(widths) > 1]


def _timed(rows: Sequence[SensitivityRow]) -> set[str]:
    """Return the groups of which some pruning was judged and timed undisturbed."""
    known = (row for row in rows if row.kind == "group" and row.val_loss_change is not None)
    return {row.name for row in known if has_time(row)}


def sensitivity_ladder(space: SearchSpace, rows: Sequence[SensitivityRow]) -> Ladder:
    """Return the networks that keep most of the groups that lose most per time saved.

    Args:
        space: Allowed widths.
        rows: Of an analysis that fits (`check_fits`), without times taken elsewhere (`timed_here`).
            Times that were disturbed don't count. Where there is none for a group, what is saved is
            multiply-accumulates, for all groups alike.
    """
    free = _free(space)
    known = [row for row in rows if row.kind == "group" and row.val_loss_change is not None]
    timed = _timed(known).issuperset(free)
    steps = {name: _steps(space, name, [r for r in known if r.name == name], timed)
             for name in free}  # fmt: skip
    queue = [(steps[name][0], place, name, 0) for place, name in enumerate(free)]
    heapq.heapify(queue)
    current = dict(space.dense)
    rungs = [current]
    while queue:
        _, place, name, done = heapq.heappop(queue)
        current = {**current, name: space.allowed[name][-2 - done]}
        rungs.append(current)
        if done + 1 < len(steps[name]):
            heapq.heappush(queue, (steps[name][done + 1], place, name, done + 1))
    return rungs[::-1]


def _steps(
    space: SearchSpace, name: str, rows: Sequence[SensitivityRow], timed: bool
) -> list[Step]:
    """Return the costs of a group's steps, from the dense width down."""
    loss = _curve(rows, lambda row: row.val_loss_change)
    saved = _curve(rows, _time_saved if timed else (lambda row: row.macs_saved))
    removed = [1 - width / space.dense[name] for width in reversed(space.allowed[name])]
    found = []
    for before, after in pairwise(removed):
        rise = _at(loss, after) - _at(loss, before)
        saving = _at(saved, after) - _at(saved, before)
        nothing = saving <= 0
        found.append((nothing, rise if nothing else rise / saving, -saving))
    return found


def _time_saved(row: SensitivityRow) -> float | None:
    return row.saved[0] if row.saved is not None and has_time(row) else None


def _curve(
    rows: Sequence[SensitivityRow], value: Callable[[SensitivityRow], float | None]
) -> Curve:
    """Return a curve through nothing removed and all that was measured, which never falls."""
    points = {row.ratio: found for row in rows if (found := value(row)) is not None}
    removed = [0.0, *sorted(points)]
    values = [0.0, *(float(points[ratio]) for ratio in removed[1:])]
    return removed, np.maximum.accumulate(values).tolist()


def _at(curve: Curve, ratio: float) -> float:
    """Return a curve's value: linear between its points, beyond the last with the last slope."""
    removed, values = curve
    if ratio <= removed[-1]:
        return float(np.interp(ratio, removed, values))
    slope = (values[-1] - values[-2]) / (removed[-1] - removed[-2])
    return values[-1] + slope * (ratio - removed[-1])
