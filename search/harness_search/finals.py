"""The end of a search: fresh measurements of what is reported, then the test split."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.budget import Decision
from harness.candidate import Candidate, OnnxModel
from harness.errors import CandidateFailed
from harness.measurement.flags import faults
from harness.measurement.plans import final_plan
from harness.provenance import now_utc
from harness_results.record import latency_figures, make_record
from harness_search.optuna_study import judged
from harness_search.proposals import CONTROLS, SENSITIVITY, is_within_drop
from harness_search.recording import common_fields, environment, search_fields
from harness_search.reduction import epochs_on_all, trained_on_all
from harness_search.stopwatch import Stopwatch
from harness_search.tools import samples_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.budget import Budget
    from harness.measurement.types import Measurement
    from harness_results.record import RunRecord
    from harness_search.workbench import Workbench

_RUNNERS_UP = 3
"""Candidates tried after the first misses the budget in its final."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """A model that goes into the final: a trial's, or the dense one.

    Attributes:
        role: `"dense"`, `"uniform"`, `"global"`, `"sensitivity"` or `"winner"`.
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
    final = _Final(bench, budget, len(records))
    dense = Finalist("dense", None, bench.dense)
    controls = [
        Finalist(role, trial, trained_model(bench, trial))
        for role in (*CONTROLS, SENSITIVITY)
        for trial in records
        if trial.role == role and trial.status == "complete" and trial.budget["text"] == budget.text
    ]
    winners = [Finalist("winner", None, bench.dense)] if dense_wins else []
    choices = [] if dense_wins else ranked_candidates(bench, budget, records)
    for chosen in choices[: 1 + _RUNNERS_UP]:
        candidate = Finalist("winner", chosen, trained_model(bench, chosen))
        controls = final.measure(dense, controls, candidate)
        if final.has(candidate) and faults(final.of(candidate).flags):
            controls = final.measure(dense, controls, candidate)  # disturbed: once more
        if final.has(candidate) and final.feasible(candidate):
            winners = [candidate]
            break
        final.reject(candidate)
    if not final.measured:
        controls = final.measure(dense, controls, None)
    if winners and winners[0].trial is not None:
        final.on_all_samples = trained_on_all(bench, winners[0].trial)
    final.score_on_test([dense, *controls, *winners])
    # Dense last: its record says that the set is whole.
    return [final.write(finalist) for finalist in (*winners, *reversed(controls), dense)]


def ranked_candidates(
    bench: Workbench, budget: Budget, records: Sequence[RunRecord]
) -> list[RunRecord]:
    """Return the trials that may win under a budget, best first, by validation alone."""
    able = [
        r
        for r in records
        if r.status == "complete"
        and not faults(r.flags)
        and judged(r.latency["retimed"], r.budget | asdict(budget))[2] <= budget.value
        and (bench.settings.max_size_bytes or r.model["size_bytes"]) >= r.model["size_bytes"]
        and is_within_drop(bench, r)
    ]
    if bench.settings.max_drop is not None:
        ratio = f"ratio_{budget.statistic}"  # paired, so it carries over from minute to minute
        return sorted(able, key=lambda r: (r.latency["retimed"][ratio][0], r.index))
    return sorted(
        able,
        key=lambda r: (
            -r.scores["validation"]["value"], r.scores["validation"]["loss"], r.index,
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
    model.read()
    return model


def _name(finalist: Finalist) -> str:
    """Return the name of the measurement: a trial that has two roles is measured once."""
    return "dense" if finalist.trial is None else f"trial-{finalist.trial.index:04d}"


class _Final:
    """The final of one budget: what was measured and scored, and how it is recorded."""

    def __init__(self, bench: Workbench, budget: Budget, trials: int) -> None:
        self.bench, self.budget, self.trials = bench, budget, trials
        self.watch = Stopwatch()
        self.reads = bench.folder.test_reads()
        self.rejected = 0
        self.measured: dict[str, Measurement] = {}
        self.failures: dict[str, str] = {}
        self.scores: dict[str, dict[str, Any]] = {}
        self.on_all_samples: tuple[OnnxModel, float] | None = None
        self.score_on_all: dict[str, Any] | None = None

    def measure(
        self, dense: Finalist, controls: Sequence[Finalist], candidate: Finalist | None
    ) -> list[Finalist]:
        """Time models together in fresh processes; return the controls that could be timed.

        A model that the runtime fails on is left out, and the others are timed without it. A
        control's failure is recorded here, the candidate's by `reject`.
        """
        trials = [*controls, *([candidate] if candidate is not None else [])]
        out: list[Finalist] = []
        plan = final_plan(self.bench.target)
        while True:
            text = f"final measurement of {1 + len(trials)} models, fresh processes"
            self.bench.progress.phase(text)
            try:
                with self.watch.phase("timing"):
                    models = {_name(f): f.model for f in trials}
                    self.measured = self.bench.timed(models, self.budget, plan)
                for control in out:
                    self.write(replace(control, role="rejected"))
                return [one for one in trials if one is not candidate]
            except CandidateFailed as exc:
                if exc.subject == _name(dense):
                    raise
                self.failures[exc.subject] = str(exc)
                self.bench.progress.note(f"left out of the final: {exc}")
                same = candidate is not None and _name(candidate) == exc.subject
                out += [c for c in controls if _name(c) == exc.subject and not same]
                trials = [one for one in trials if _name(one) != exc.subject]

    def has(self, finalist: Finalist) -> bool:
        """Whether a finalist could be timed."""
        return _name(finalist) in self.measured

    def of(self, finalist: Finalist) -> Measurement:
        """Return a finalist's measurement."""
        return self.measured[_name(finalist)]

    def feasible(self, finalist: Finalist) -> bool:
        """Whether a finalist is within the budget and the size limit."""
        limit = self.bench.settings.max_size_bytes or finalist.model.size_bytes
        within = self.budget.decide(self.of(finalist).stats) is Decision.FEASIBLE
        return within and finalist.model.size_bytes <= limit

    def reject(self, finalist: Finalist) -> None:
        """Record a candidate that missed the budget in its final, or that the runtime failed on."""
        self.write(replace(finalist, role="rejected"))
        self.rejected += 1

    def score_on_test(self, finalists: Sequence[Finalist]) -> None:
        """Score every distinct model on the test split: the only place that reads it."""
        self.bench.progress.phase("scoring on the test split")
        self.reads = self.bench.folder.count_test_read()
        with self.watch.phase("score"):
            split = self.bench.task.data.test
            for finalist in finalists:
                if _name(finalist) not in self.scores:
                    outputs = self.bench.outputs(finalist.model, split)
                    self.scores[_name(finalist)] = asdict(self.bench.score(outputs, split))
            if self.on_all_samples is not None:
                outputs = self.bench.outputs(self.on_all_samples[0], split)
                self.score_on_all = asdict(self.bench.score(outputs, split))

    def write(self, finalist: Finalist) -> RunRecord:
        """Record a finalist."""
        bench, budget, trial = self.bench, self.budget, finalist.trial
        measurement = self.measured.get(_name(finalist))
        flags = {"parity_failed"} & set(trial.flags if trial else ())
        figures: dict[str, Any] = {}
        states: Mapping[str, Any] = {}
        if finalist.role == "winner" and self.rejected:
            flags.add("runner_up")
        candidate = Candidate(bench.space.dense)
        if trial is not None:
            told = trial.candidate
            candidate = Candidate(
                told["widths"], told["criterion"], told["temperature"], told["kd_weight"],
                told["precision"], tuple(told["blocks"]),
            )  # fmt: skip
        own = trial.model["weights"] if trial else "models/dense.safetensors"
        limit = budget.limit(self.measured["dense"].stats.figure(budget.statistic).value)
        if measurement is not None:
            flags |= set(measurement.flags)
            figures = {"final": latency_figures(measurement, limit)}
            states = measurement.environment
        reason = self.failures.get(_name(finalist)) if measurement is None else None
        scores = {"validation": trial.scores["validation"] if trial else bench.dense_validation}
        if _name(finalist) in self.scores:
            scores["test"] = self.scores[_name(finalist)]
        record = make_record(
            now_utc(),
            **common_fields(bench, budget, candidate, finalist.model, bench.folder.path / own),
            kind="rejected" if finalist.role == "rejected" else "final", role=finalist.role,
            index=trial.index if trial else None, reason=reason,
            status="complete" if reason is None else "failed",
            feasible=None if measurement is None else self.feasible(finalist),
            suggestion=trial.suggestion if trial else None,
            pruning=trial.pruning if trial else None, probes=[],
            latency=figures, scores=scores,
            parity=trial.parity if trial else bench.dense_parity,
            training=self._training(finalist), flags=sorted(flags),
            environment=environment(bench, states),
            timings_s=self.watch.report(), search=search_fields(bench, self.trials, self.reads),
        )  # fmt: skip
        taken = {} if measurement is None else samples_of("final", self.measured, _name(finalist))
        bench.folder.write(record, taken)
        return record

    def _training(self, finalist: Finalist) -> dict[str, Any] | None:
        """Return how a finalist was trained, and for the winner what less data cost."""
        if finalist.trial is None or finalist.trial.training is None:
            return None
        own = {**finalist.trial.training, "train_s": finalist.trial.timings_s.get("train")}
        if finalist.role == "winner" and self.on_all_samples is not None:
            own["on_all_samples"] = {
                "score": self.score_on_all, "train_s": self.on_all_samples[1],
                "epochs": epochs_on_all(self.bench.task),
            }  # fmt: skip
        return own
