"""The search from beginning to end: preflight, floor, teacher, trials, finals."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError

from harness.compression.pruning.importance import applicable_criteria
from harness.errors import ConfigError, ResultsError
from harness.measurement.flags import faults
from harness.training import torch_kept
from harness_backends.registry import open_backend
from harness_results import leaderboard
from harness_results.files import disk_errors, locked
from harness_results.store import StudyFolder, all_records, check_writable, finals_of_whole_sets
from harness_results.trials import write_trials
from harness_results.winner import write_winner
from harness_search import baseline
from harness_search.allowance import affords_another, is_short
from harness_search.bases import smallest_base
from harness_search.finals import run_finals
from harness_search.floors import recorded_floors
from harness_search.granule import find_granule
from harness_search.identity import accept_setup, begun_with, check_identity, mark_remeasuring
from harness_search.longer import planned, train_longer
from harness_search.optuna_study import OptunaStudy, judged
from harness_search.preflight import check_results_apart, notes, prunable_graph
from harness_search.proposals import propose
from harness_search.reach import fastest, space_within, take_floors
from harness_search.remeasure import remeasure_study
from harness_search.sensitivity_ladder import check_fits, seed_notes
from harness_search.space import search_space
from harness_search.tools import Tools, open_tools
from harness_search.trial import run_trial
from harness_search.workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from harness.budget import Budget
    from harness.tasks.base import Task
    from harness_results.record import RunRecord
    from harness_search.progress import Progress
    from harness_search.settings import Settings


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """How a search ended under one budget.

    Attributes:
        budget: What had to be met.
        finals: By role: `"dense"`, `"uniform"`, `"global"`, `"sensitivity"`, `"winner"`; absent
            where there is none.
        nearest: Where there is no winner, the fastest network that was measured.
        below_floor: Whether even the smallest network is over the budget.
        dense_wins: Whether the dense model is within it, so that nothing was pruned.
    """

    budget: Budget
    finals: dict[str, RunRecord]
    nearest: RunRecord | None
    below_floor: bool
    dense_wins: bool

    @property
    def winner(self) -> RunRecord | None:
        """The winner's final, feasible; flagged or not."""
        record = self.finals.get("winner")
        return record if record is not None and record.feasible else None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """How a search ended.

    Attributes:
        folder: Where everything is.
        floor: The fastest floor's record.
        trials: All trials.
        budgets: One result per budget.
        elapsed_s: Wall seconds, all sessions together.
        teacher_s: Of these in this session, spent on the dense model.
        settings: What was asked for.
        notes: What a user should know of model and data.
    """

    folder: StudyFolder
    floor: RunRecord
    trials: list[RunRecord]
    budgets: list[BudgetResult]
    elapsed_s: float
    teacher_s: float
    settings: Settings
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 a feasible model was found; 1 none was; 3 it was, but its measurement can't be trusted.

        Instructions counted on an emulated CPU can be: the winner is the winner of these.
        """
        winners = [result.winner for result in self.budgets if result.winner is not None]
        if any(not faults(record.flags) for record in winners):
            return 0
        done = [record for record in self.trials if record.status != "failed"]
        return 3 if winners or (self.trials and not done) else 1


@torch_kept()
def search(
    settings: Settings, task: Task, progress: Progress, remeasure: bool = False
) -> SearchResult:
    """Search, or go on where an interrupted search of the same study stopped.

    Raises:
        HarnessError: See `harness.errors`; what was recorded before stays whole.
    """
    started = time.monotonic()
    if settings.trials is None and settings.time_s is None:
        raise ConfigError("A search needs a limit: give `trials`, `time_s`, or both.")
    check_results_apart(settings.results, task)
    open_backend(settings.target)  # before anything is written: is there such a target here?
    folder = StudyFolder(settings.results, settings.study_name(task.name))
    bench = set_up(settings, task, folder, progress, started)
    for note in bench.notes:
        progress.note(f"note: {note}")
    _check_existing(settings.results)
    check_writable(settings.results)
    with _written_whole(folder), _study_lock(folder):
        changed = _check(bench, remeasure)
        folder.sweep()
        records = _whole_sets(folder)
        bench.spent_s = max((r.search["elapsed_s"] for r in records), default=0.0)
        baseline.export_dense(bench, "untrained")
        progress.start(folder.study, settings.time_s, settings.trials, bench.elapsed_s(), records)
        if changed:
            mark_remeasuring(folder)
            records = remeasure_study(bench, records)
            accept_setup(folder, *_identity(bench))
        return _run(bench, records)


def _check_existing(results: Path) -> None:
    """Read every table and record that is there, so that a corrupt one is named before the work.

    Raises:
        ConfigError: If one is corrupt.
    """
    with disk_errors(results):
        if (results / leaderboard.FILE).exists():
            leaderboard.read(results / leaderboard.FILE)
        for _ in all_records(results):
            pass


def set_up(
    settings: Settings, task: Task, folder: StudyFolder, progress: Progress, started: float
) -> Workbench:
    """Find the task's prunable groups, ask the target what it is; write only to caches.

    Seeds torch and lets it use all cores: call it within `torch_kept`.
    """
    begun = begun_with(folder)
    tools = open_tools(settings.target, settings.seed, task, progress, begun.get("scored"))
    progress.phase("finding the prunable groups")
    graph = prunable_graph(tools.network, task)
    known = begun.get("granule")
    granule = find_granule(
        tools.backend,
        tools.facts,
        known if isinstance(known, int) else None,
        tools.device_lock,
        progress,
    )
    target = replace(tools.target, granule=granule)
    precisions = settings.precisions or tools.backend.precisions
    settings = replace(settings, target=target, precisions=precisions)
    criteria = applicable_criteria(tools.network, graph)
    space = search_space(graph, granule, settings, criteria, task.objective.uses_temperature)
    if settings.sensitivity:
        check_fits(settings.sensitivity, space)
    with tools.lock.shared():
        example = tools.example[:1]
        smallest, whole = smallest_base(tools.network, graph, example, space, settings)
        fewer = applicable_criteria(smallest.network(tools.network), smallest.graph)
    criteria = tuple(name for name in criteria if name in fewer)
    space = replace(space, blocks=smallest.blocks, criteria=criteria)
    seeded = seed_notes(settings.sensitivity, space, tools.provenance["fingerprint"])
    shared = {one.name: getattr(tools, one.name) for one in fields(Tools) if one.init}
    return Workbench(
        **{**shared, "target": target}, settings=settings, folder=folder, graph=graph, space=space,
        started=started, bases={smallest.blocks: smallest},
        notes=(*notes(tools.task, graph, tools.network), *whole, *seeded),
    )  # fmt: skip


@contextmanager
def _written_whole(folder: StudyFolder) -> Iterator[None]:
    """Say clearly that a disk is full or fails, wherever it is noticed."""
    try:
        with disk_errors(folder.path):
            yield
    except StorageInternalError as exc:
        raise ResultsError(
            f"{folder.database} could not be written ({exc.__cause__ or exc}). All records are "
            "whole: free some space and run the same command to go on."
        ) from exc


@contextmanager
def _study_lock(folder: StudyFolder) -> Iterator[None]:
    folder.create()
    busy = (
        f"Study {folder.study!r} is being worked on by another process. Wait for it, or give "
        "another `--study NAME`."
    )
    with locked(folder.lock, wait=False, busy=busy):
        yield


def _identity(bench: Workbench) -> tuple[dict[str, Any], dict[str, Any]]:
    made = bench.provenance
    setup = {
        "fingerprint": made["fingerprint"], "torch": made["versions"]["torch"],
        "runtime": made["versions"]["runtime"],
    }  # fmt: skip
    task, facts = bench.task, made["task"]
    identity = {
        "task": task.name, "data_sha256": facts["data_sha256"],
        "scored": [len(task.data.validation), len(task.data.test)],
        "model_sha256": facts["model_sha256"], "objective": task.objective.description,
        "augmentation": repr(task.data.train.augmentation), "reduction": asdict(task.reduction),
        "recipe": asdict(task.recipe), **bench.settings.identity(), "space": bench.space.digest(),
    }  # fmt: skip
    return identity, setup


def _check(bench: Workbench, remeasure: bool) -> bool:
    return check_identity(bench.folder, *_identity(bench), remeasure)


def _whole_sets(folder: StudyFolder) -> list[RunRecord]:
    """Return a study's records; finals whose set a kill left incomplete are put aside."""
    records = folder.read()
    whole = finals_of_whole_sets(records)
    for record in records:
        if record.kind == "final" and record not in whole:
            folder.supersede(record)
    return [record for record in records if record.kind != "final"] + whole


def _run(bench: Workbench, records: list[RunRecord]) -> SearchResult:
    settings, trials = bench.settings, [record for record in records if record.kind == "trial"]
    floors = take_floors(bench, recorded_floors(bench, records), trials)
    for budget in settings.budgets:
        space = space_within(bench, floors, budget, trials)
        if space is not None:
            bench.spaces[budget.text] = space
    floor = fastest(floors)
    reachable = [b for b in settings.budgets if b.text in bench.spaces]
    open_budgets = [b for b in reachable if not baseline.dense_suffices(bench, floor, b)]
    teacher_s = sum(baseline.prepare_teacher(bench).values()) if reachable else 0.0
    if open_budgets:
        trials = _run_trials(bench, trials, open_budgets)
        trials = train_longer(bench, trials, open_budgets)
        write_trials(bench.folder, trials)
    results = [_finish(bench, b, records, trials, floor, reachable, open_budgets)
               for b in settings.budgets]  # fmt: skip
    leaderboard.rebuild(settings.results)
    everything = bench.folder.read()
    write_winner(bench.folder, everything, [result.budget.text for result in results])
    return SearchResult(
        bench.folder, floor, trials, results, bench.elapsed_s(), teacher_s, settings, bench.notes
    )


def _run_trials(
    bench: Workbench, trials: list[RunRecord], budgets: Sequence[Budget]
) -> list[RunRecord]:
    """Run trials until the number or the time asked for is reached; return all."""
    several = len(bench.settings.budgets) > 1
    studies = {
        b.text: OptunaStudy(
            bench.folder.database, f"{bench.folder.study}{'/' + b.text if several else ''}",
            bench.spaces[b.text], bench.settings.seed,
        )
        for b in budgets
    }  # fmt: skip
    for text, study in studies.items():
        study.restore([r for r in trials if r.budget["text"] == text and is_short(r)])
    for record in trials:
        for entry in record.probes:
            if entry["timed"]:
                model = bench.latency_models.get(record.candidate["precision"])
                if model is not None:  # its trials may all have failed
                    graph = bench.base(record.candidate["blocks"]).graph
                    model.add(graph.macs(entry["widths"]), entry["share"])
    write_trials(bench.folder, trials)
    done = {record.index for record in trials} | planned(bench.folder)
    while affords_another(bench, trials, budgets):
        index = next(i for i in itertools.count() if i not in done)
        proposal, asked = propose(bench, index, trials, studies, budgets)
        record = run_trial(bench, proposal)
        done.add(index)
        trials = sorted([*trials, record], key=lambda r: r.index or 0)
        studies[proposal.budget.text].tell(asked, record)
        write_trials(bench.folder, trials)
        bench.progress.trial_done(record)
    return trials


def _finish(
    bench: Workbench,
    budget: Budget,
    records: Sequence[RunRecord],
    trials: Sequence[RunRecord],
    floor: RunRecord,
    reachable: Sequence[Budget],
    open_budgets: Sequence[Budget],
) -> BudgetResult:
    """Return the result under one budget, from this study's finals or from new ones."""
    if budget not in reachable:
        return BudgetResult(budget, {}, floor, below_floor=True, dense_wins=False)
    dense_wins = budget not in open_budgets
    finals = [
        r
        for r in records
        if r.kind == "final"
        and (r.budget["text"], r.search["trials"]) == (budget.text, len(trials))
    ]
    if not finals:
        finals = run_finals(bench, budget, trials, dense_wins)
    by_role = {record.role: record for record in finals}
    nearest = None
    if "winner" not in by_role or not by_role["winner"].feasible:
        timed = [r for r in trials if r.figures() is not None]
        nearest = min(timed, key=lambda r: _judged(r, budget), default=floor)
    return BudgetResult(budget, by_role, nearest, below_floor=False, dense_wins=dense_wins)


def _judged(record: RunRecord, budget: Budget) -> float:
    figures = record.figures()
    assert figures is not None  # only timed trials are asked
    return judged(figures, asdict(budget))[0]
