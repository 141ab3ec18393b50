"""The best candidates under each budget, trained on with the time that is left.

Short trainings find out which network is worth a long one. Then the best three are trained on, for
equally many epochs, and the best of all for the rest. What is planned is written down before it
begins, and a training that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from harness.atomic import write_atomic
from harness.errors import ConfigError
from harness_search.allowance import LONGER, is_short, longer_until_s, trains_longer
from harness_search.finals import ranked_candidates
from harness_search.trial import Proposal, checkpoint_of, run_longer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.budget import Budget
    from harness_results.record import RunRecord
    from harness_results.store import StudyFolder
    from harness_search.workbench import Workbench

FILE = "longer.json"
_ROUNDS = ((3, 0.4), (1, 1.0))
"""How many candidates are trained on together, and with which part of the time that is left."""
_MARGIN = 0.05
"""Of the time, for what the estimate doesn't know."""


@dataclass(frozen=True, slots=True)
class Leg:
    """A training that is planned.

    Attributes:
        index: Its trial's number.
        continues: The number of the trial whose network it trains on.
        budget: The budget's text.
        epochs: How many more.
        round: Which round of the budget's it belongs to, from 0.
    """

    index: int
    continues: int
    budget: str
    epochs: int
    round: int


def train_longer(
    bench: Workbench, trials: Sequence[RunRecord], budgets: Sequence[Budget]
) -> list[RunRecord]:
    """Train the best candidates on while the time lasts; return all trials.

    Args:
        bench: The session.
        trials: All trials of the study.
        budgets: Those that are searched.

    Raises:
        ConfigError: If the study's plan is corrupt.
    """
    made = {record.index or 0: record for record in trials}
    path = bench.folder.path / FILE
    legs = _read(path)
    for leg in legs:
        if leg.index in made:  # a kill may have left it
            checkpoint_of(bench, leg.index).unlink(missing_ok=True)
    for place, budget in enumerate(budgets):
        while trains_longer(bench):
            todo = [leg for leg in legs if leg.budget == budget.text and leg.index not in made]
            todo = [leg for leg in todo if leg.continues in made]
            if not todo:
                todo = _next_round(bench, budget, made, legs, len(budgets) - place)
                legs += todo
                write_atomic(path, json.dumps([asdict(leg) for leg in legs]).encode() + b"\n")
            for leg in todo:
                record = _run(bench, budget, leg, made[leg.continues])
                made[leg.index] = record
                bench.progress.trial_done(record)
            if not todo:
                break
    return [made[index] for index in sorted(made)]


def planned(folder: StudyFolder) -> set[int]:
    """Return the numbers of the trials that are planned, run or not.

    Raises:
        ConfigError: If the study's plan is corrupt.
    """
    return {leg.index for leg in _read(folder.path / FILE)}


def _run(bench: Workbench, budget: Budget, leg: Leg, source: RunRecord) -> RunRecord:
    told = source.candidate
    base = bench.base(told["blocks"])
    widths = {name: told["widths"][name] for name in base.space.dense}
    share = budget.as_share(bench.dense_figures[budget.statistic])
    proposal = Proposal(leg.index, LONGER, budget, share, base, [widths], told, None)
    return run_longer(bench, proposal, source, leg.epochs)


def _next_round(
    bench: Workbench,
    budget: Budget,
    made: dict[int, RunRecord],
    legs: Sequence[Leg],
    budgets_left: int,
) -> list[Leg]:
    """Return the next round's trainings, none where nothing is left to do or to train on."""
    known = [leg for leg in legs if leg.budget == budget.text]
    last = max(known, key=lambda leg: leg.index, default=None)
    newer = any(
        is_short(record) and (last is None or index > last.index) for index, record in made.items()
    )
    first = 0 if newer or last is None else last.round + 1
    trials = list(made.values())
    left_s = longer_until_s(bench, trials, len(bench.settings.budgets)) - bench.elapsed_s()
    left_s *= (1 - _MARGIN) / budgets_left
    ranked = ranked_candidates(bench, budget, trials)
    taken = made.keys() | {leg.index for leg in legs}
    free = (i for i in itertools.count() if i not in taken)
    least = bench.task.recipe.trial_epochs
    for number, (count, part) in enumerate(_ROUNDS):
        chosen = _different(ranked)[:count]
        last_round = number == len(_ROUNDS) - 1
        if number < first or not chosen or (len(chosen) == 1 and not last_round):
            continue
        epochs = [_epochs(bench, made, record, part * left_s / len(chosen)) for record in chosen]
        # A round of several has to tell more of them than the short trainings did.
        if min(epochs) >= (1 if last_round else least):
            return [
                Leg(next(free), record.index or 0, budget.text, min(epochs), number)
                for record in chosen
            ]
    return []


def _different(ranked: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the best of each network that was trained: not one that was trained on, beside it."""
    found: dict[str, RunRecord] = {}
    for record in ranked:
        told = record.candidate
        key = json.dumps([told["widths"], told["blocks"], told["precision"]])
        found.setdefault(key, record)
    return list(found.values())


def _epochs(bench: Workbench, made: dict[int, RunRecord], record: RunRecord, seconds: float) -> int:
    """Return for how many epochs a trial's network can be trained on in a time."""
    assert record.training is not None  # it is complete
    took = record.timings_s
    per_epoch = took["train"] / record.training["epochs"]
    if is_short(record) and bench.task.data.train.augmentation is not None:
        # The teacher sees every view, too; in a longer training that was part of it.
        short = [one for one in made.values() if is_short(one)]
        teaching = max(one.timings_s.get("teacher_outputs", 0.0) for one in short)
        per_epoch += teaching / bench.task.recipe.trial_epochs
    around = sum(took.get(phase, 0.0) for phase in ("export", "score", "timing"))
    return max(0, int((seconds - around) / per_epoch))


def _read(path: Path) -> list[Leg]:
    if not path.exists():
        return []
    try:
        return [Leg(**one) for one in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError) as exc:
        raise ConfigError(
            f"{path} is corrupt: {exc}. It says which candidates are being trained on: remove it, "
            "and that is planned anew."
        ) from exc
