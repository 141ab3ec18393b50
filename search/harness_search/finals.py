"""The end of a search: fresh measurements of what is reported, and the test split, once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.budget import Decision
from harness.candidate import Candidate, OnnxModel
from harness.measurement.flags import is_blocked
from harness.measurement.rounds import FINAL
from harness.provenance import now_utc
from harness_results.record import latency_figures, make_record
from harness_search.optuna_study import judged
from harness_search.proposals import CONTROLS, is_within_drop
from harness_search.stopwatch import Stopwatch
from harness_search.trial import common_fields, environment, search_fields
from harness_search.workbench import samples_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.budget import Budget
    from harness.measurement.types import Measurement
    from harness_results.record import RunRecord
    from harness_search.workbench import Workbench

_RUNNERS_UP, _REPEATS = 3, 1
"""Candidates tried after the first misses the budget, and repetitions of a disturbed final."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """A model that goes into the final: a trial's, or the dense one.

    Attributes:
        role: `"dense"`, `"uniform"`, `"global"` or `"winner"`.
        trial: The trial's record; None for the dense model.
        model: The file.
    """

    role: str
    trial: RunRecord | None
    model: OnnxModel


def run_finals(
    bench: Workbench, budget: Budget, records: Sequence[RunRecord], dense_wins: bool
) -> list[RunRecord]:
    """Measure and record dense, controls and winner under one budget; the dense record comes last.

    The winner's final shares no sample with the search. If it misses the budget there, the next
    feasible candidate is taken and its row says so.

    Args:
        bench: The session.
        budget: What to meet.
        records: All trials of the study.
        dense_wins: Whether the dense model itself is within the budget, so that it is the winner.
    """
    watch = Stopwatch()
    choices = [] if dense_wins else ranked_candidates(bench, budget, records)
    controls = [
        Finalist(role, trial, trained_model(bench, trial))
        for role in CONTROLS
        for trial in records
        if trial.role == role and trial.status == "complete" and trial.budget["text"] == budget.text
    ]
    dense = Finalist("dense", None, bench.dense)
    skipped = disturbed = 0
    while True:
        chosen = choices[skipped] if skipped < len(choices) else None
        winner = (
            [] if chosen is None else [Finalist("winner", chosen, trained_model(bench, chosen))]
        )
        finalists = [dense, *controls, *winner]
        if dense_wins:
            finalists.append(Finalist("winner", None, bench.dense))
        bench.progress.phase(f"final measurement of {len(finalists)} models, fresh processes")
        with watch.phase("timing"):
            measured = _measure(bench, budget, finalists)
        if chosen is None:
            break
        verdict = measured[_name(winner[0])]
        if is_blocked(verdict.flags) and disturbed < _REPEATS:
            disturbed += 1  # a disturbed final says little of the candidate: measure again
            continue
        if budget.decide(verdict.stats) is Decision.FEASIBLE or skipped == _RUNNERS_UP:
            break
        skipped += 1
    scores = _score_on_test(bench, finalists, watch)
    reads = 1 + bench.folder.test_reads(budget.text)
    written = []
    for finalist in reversed(finalists):  # dense last: it says that the set is whole
        record = _record(bench, budget, finalist, measured, scores, skipped, watch, records, reads)
        bench.folder.write(record, samples_of("final", measured, _name(finalist)))
        written.append(record)
    return written


def ranked_candidates(
    bench: Workbench, budget: Budget, records: Sequence[RunRecord]
) -> list[RunRecord]:
    """Return the trials that may win under a budget, best first, by validation alone."""
    able = [
        r
        for r in records
        if r.status == "complete"
        and not is_blocked(r.flags)
        and judged(r.latency["retimed"], r.budget | asdict(budget))[2] <= budget.value
        and (bench.settings.max_size_bytes or r.model["size_bytes"]) >= r.model["size_bytes"]
        and is_within_drop(bench, r)
    ]
    if bench.settings.max_drop is not None:
        return sorted(able, key=lambda r: (r.latency["retimed"]["p50_s"][0], r.index))
    return sorted(
        able,
        key=lambda r: (
            -r.accuracy["validation"]["accuracy"], r.accuracy["validation"]["loss"], r.index,
        ),
    )  # fmt: skip


def trained_model(bench: Workbench, record: RunRecord) -> OnnxModel:
    """Return the file of a record, checked to be the one that was recorded.

    Raises:
        ConfigError: If it is missing or was changed.
    """
    info = record.model
    model = OnnxModel(
        bench.folder.path / info["onnx"], info["sha256"], info["size_bytes"], info["opset"],
        info["params"], info["macs"],
    )  # fmt: skip
    model.verify()
    return model


def _name(finalist: Finalist) -> str:
    """Return the name of the measurement: a trial that has two roles is measured once."""
    return "dense" if finalist.trial is None else f"trial-{finalist.trial.index:04d}"


def _measure(
    bench: Workbench, budget: Budget, finalists: Sequence[Finalist]
) -> dict[str, Measurement]:
    models = {_name(f): f.model for f in finalists if f.trial is not None}
    return bench.timed(models, budget, FINAL)


def _score_on_test(
    bench: Workbench, finalists: Sequence[Finalist], watch: Stopwatch
) -> dict[str, dict[str, Any]]:
    """Score every distinct model on the test split: the only place that reads it."""
    bench.progress.phase("scoring on the test split, once")
    scores: dict[str, dict[str, Any]] = {}
    with watch.phase("score"):
        split = bench.task.test()
        for finalist in finalists:
            name = _name(finalist)
            if name not in scores:
                outputs = bench.outputs(finalist.model, split)
                scores[name] = asdict(bench.score(outputs, split))
    return scores


def _record(
    bench: Workbench,
    budget: Budget,
    finalist: Finalist,
    measured: Mapping[str, Measurement],
    scores: Mapping[str, dict[str, Any]],
    skipped: int,
    watch: Stopwatch,
    records: Sequence[RunRecord],
    reads: int,
) -> RunRecord:
    name, trial = _name(finalist), finalist.trial
    measurement = measured[name]
    flags = set(measurement.flags) | ({"parity_failed"} & set(trial.flags if trial else ()))
    if finalist.role == "winner" and skipped:
        flags.add("runner_up")
    validation: dict[str, Any] = bench.dense_validation
    candidate = Candidate(bench.space.dense)
    if trial is not None:
        validation = trial.accuracy["validation"]
        told = trial.candidate
        candidate = Candidate(
            told["widths"], told["criterion"], told["temperature"], told["kd_weight"]
        )
    weights = bench.folder.path / (trial.model["weights"] if trial else "models/dense.safetensors")
    dense_s = measured["dense"].stats.latency(budget.statistic).value
    limit_s = budget.value if budget.kind == "time" else budget.value * dense_s
    size_limit = bench.settings.max_size_bytes or finalist.model.size_bytes
    return make_record(
        now_utc(),
        **common_fields(bench, budget, candidate, finalist.model, weights),
        kind="final", role=finalist.role, index=trial.index if trial else None,
        status="complete", reason=None,
        feasible=budget.decide(measurement.stats) is Decision.FEASIBLE
        and finalist.model.size_bytes <= size_limit,
        suggestion=trial.suggestion if trial else None, pruning=trial.pruning if trial else None,
        probes=[], latency={"final": latency_figures(measurement, limit_s)},
        accuracy={"validation": validation, "test": scores[name]},
        parity=trial.parity if trial else None, training=trial.training if trial else None,
        flags=sorted(flags), environment=environment(bench, measurement.environment),
        timings_s=watch.report(), search=search_fields(bench, len(records), reads),
    )  # fmt: skip
