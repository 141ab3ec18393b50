"""Sensitivity analysis: what pruning each group alone costs in accuracy and saves in time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.compression.pruning.importance import silent_groups
from harness.errors import ConfigError
from harness.training import torch_kept
from harness_backends.registry import open_backend
from harness_results.files import disk_errors, locked
from harness_results.sensitivity_plot import draw_sensitivity
from harness_results.sensitivity_table import (
    SensitivityFolder,
    SensitivityRow,
    read_sensitivity,
    untimed,
    write_sensitivity,
)
from harness_results.store import check_writable
from harness_search import baseline
from harness_search.analysis import Analysis, SensitivityResult
from harness_search.cuts import block_cuts, group_cuts
from harness_search.engine import set_up
from harness_search.identity import accept_setup, check_identity
from harness_search.preflight import check_results_apart
from harness_search.sensitivity_rows import Measurer, affords_all, lacks
from harness_search.settings import folder_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.tasks.base import Task
    from harness_search.cuts import Cut
    from harness_search.progress import Progress
    from harness_search.settings import Settings
    from harness_search.workbench import Workbench


@torch_kept()
def sensitivity(
    settings: Settings, task: Task, analysis: Analysis, progress: Progress
) -> SensitivityResult:
    """Prune group by group, each alone, or go on where an interrupted analysis stopped.

    Residual blocks that can be left out are, one by one, after the groups.

    The dense network is trained or taken from the cache as in a search. Nothing is trained after
    pruning, and batch norms keep the dense network's statistics: the figures rank groups, they
    don't say what a network reaches once it is trained again.

    Args:
        settings: Target, seed, groups, blocks, results folder; the budget has no part in it.
        task: Model and data.
        analysis: What to try.
        progress: Told what is going on.

    Raises:
        HarnessError: See `harness.errors`; rows that were written before stay.
    """
    started = time.monotonic()
    check_results_apart(settings.results, task)
    open_backend(settings.target)  # before anything is written: is there such a target here?
    folder = SensitivityFolder(settings.results, _name(settings, task, analysis))
    # Which blocks can be left out together doesn't matter here.
    bench = set_up(replace(settings, blocks=()), task, folder, progress, started)
    _check_criterion(bench, analysis)
    cuts = [*group_cuts(bench.space, analysis.ratios), *block_cuts(bench, settings.blocks)]
    if not cuts:
        raise ConfigError(
            f"No ratio of {_shown(analysis.ratios)} removes a whole granule of "
            f"{bench.settings.target.granule} channels from any group. Give larger `--ratios`, or "
            "lower the granule with `--set granule=N`."
        )
    notes = (*bench.notes, *_left_out(bench, cuts), *_silent(bench, analysis, cuts))
    for note in notes:
        progress.note(f"note: {note}")
    check_writable(settings.results)
    with disk_errors(folder.path), _lock(folder):
        known = _known(bench, folder, analysis)
        folder.sweep()
        progress.start(folder.study, None, None, bench.elapsed_s(), [])
        _measure_missing(bench, folder, analysis, cuts, known)
        rows = tuple(read_sensitivity(folder.table))
        title = f"{task.name} on {settings.target.name}, channels by {analysis.criterion}"
        picture = draw_sensitivity(folder.picture, rows, title)
    return SensitivityResult(
        folder.study, folder.path, folder.table, folder.picture if picture else None, rows,
        task.objective.metric.name, bench.settings, analysis, bench.elapsed_s(), notes,
    )  # fmt: skip


def _name(settings: Settings, task: Task, analysis: Analysis) -> str:
    if settings.study is not None:
        return settings.study
    return folder_name(f"{task.name}-{settings.target.name}-{analysis.criterion}-s{settings.seed}")


def _lock(folder: SensitivityFolder) -> Any:
    folder.create()
    busy = (
        f"Sensitivity analysis {folder.study!r} is being worked on by another process. Wait for "
        "it, or give another `--study NAME`."
    )
    return locked(folder.lock, wait=False, busy=busy)


def _check_criterion(bench: Workbench, analysis: Analysis) -> None:
    if analysis.criterion not in bench.space.criteria:
        raise ConfigError(
            f"`--criterion` must be one of {', '.join(bench.space.criteria)}, which say something "
            f"of this network. Received: {analysis.criterion!r}."
        )


def _left_out(bench: Workbench, cuts: Sequence[Cut]) -> list[str]:
    """Return a line that names the groups of which nothing is removed."""
    missing = [name for name in bench.space.dense if name not in {cut.name for cut in cuts}]
    if not missing:
        return []
    return [f"nothing is removed from {', '.join(missing)}: excluded, or too narrow for the "
            f"granule of {bench.settings.target.granule} channels"]  # fmt: skip


def _silent(bench: Workbench, analysis: Analysis, cuts: Sequence[Cut]) -> list[str]:
    """Return a line that names the groups which the criterion says nothing of."""
    cut = {one.name for one in cuts if one.kind == "group"}
    silent = silent_groups(bench.network, bench.graph, analysis.criterion)
    names = [name for name in silent if name in cut]
    if not names:
        return []
    return [f"the criterion {analysis.criterion} says nothing of {', '.join(names)}: which of "
            "their channels go is arbitrary. Another `--criterion` may say more"]  # fmt: skip


def _identity(bench: Workbench, analysis: Analysis) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what must not change between sessions, and what may if all is timed again.

    Ratios and timing are no part of it: a later session may add to both.
    """
    task, made, settings = bench.task, bench.provenance, bench.settings
    facts = made["task"]
    identity = {
        "task": task.name, "data_sha256": facts["data_sha256"],
        "model_sha256": facts["model_sha256"], "objective": task.objective.description,
        "augmentation": repr(task.data.train.augmentation), "teacher": repr(task.recipe.teacher()),
        "target": settings.target.options(), "granule": settings.target.granule,
        "seed": settings.seed, "groups": dict(bench.space.dense),
        "criterion": analysis.criterion, "samples": analysis.samples,
    }  # fmt: skip
    setup = {
        "fingerprint": made["fingerprint"], "torch": made["versions"]["torch"],
        "runtime": made["versions"]["runtime"],
    }  # fmt: skip
    return identity, setup


def _known(
    bench: Workbench, folder: SensitivityFolder, analysis: Analysis
) -> dict[Any, SensitivityRow]:
    """Return the rows of earlier sessions, by key; without times where the machine has changed.

    Raises:
        ConfigError: If the folder's analysis is another one, or the machine has changed and nobody
            asked to time everything again.
    """
    identity, setup = _identity(bench, analysis)
    changed = check_identity(folder, identity, setup, analysis.remeasure)
    rows = read_sensitivity(folder.table) if folder.table.exists() else []
    if changed:
        rows = [
            replace(untimed(row), reason=None if row.val_acc_change is not None else row.reason)
            for row in rows
        ]
        write_sensitivity(folder.table, rows)
        accept_setup(folder, identity, setup)  # last: a kill before it leaves the old setup's rows
    return {row.key: row for row in rows}


def _measure_missing(
    bench: Workbench,
    folder: SensitivityFolder,
    analysis: Analysis,
    cuts: Sequence[Cut],
    known: dict[Any, SensitivityRow],
) -> None:
    """Measure what isn't known or failed: middle cuts first, which tell if all can be timed."""
    groups = [("group", name) for name in bench.space.dense]  # also of earlier ratios
    blocks = [(cut.kind, cut.name) for cut in cuts if cut.kind == "block"]
    place = {name: i for i, name in enumerate([*groups, *blocks])}
    first, rest = [c for c in cuts if c.middle], [c for c in cuts if not c.middle]
    measurer: Measurer | None = None
    for part in (first, rest):
        middle = [known[cut.key] for cut in first if cut.key in known]
        timed = analysis.timing and (part is first or affords_all(len(cuts), middle))
        for cut in part:
            row = known.get(cut.key)
            if row is not None and not lacks(row, timed):
                continue
            if measurer is None:
                baseline.prepare_teacher(bench)
                measurer = Measurer(bench, analysis.criterion, analysis.samples)
            bench.progress.phase(cut.describe())
            bench.progress.advance(sum(one.key in known for one in cuts), len(cuts))
            known[cut.key] = measurer.measure(cut, row, timed)
            rows = sorted(
                known.values(), key=lambda r: (place.get((r.kind, r.name), len(place)), r.ratio)
            )
            write_sensitivity(folder.table, rows)


def _shown(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:.0%}" for ratio in ratios)
