"""`--remeasure`: a study whose machine or runtime changed is timed again, model by model."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.budget import Budget, Decision
from harness.compression.quantisation.precision import PROBE_CALIBRATION, Precision
from harness.errors import CandidateFailed, ExportError
from harness.measurement.plans import probe_plan
from harness.provenance import now_utc
from harness_results.record import latency_figures, make_record
from harness_search.finals import trained_model
from harness_search.floors import measure_floors
from harness_search.recording import environment, share_of_dense
from harness_search.tools import samples_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.errors import HarnessError
    from harness_results.record import RunRecord
    from harness_search.workbench import Workbench


def remeasure_study(bench: Workbench, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Time the floors and every trial's file on the present setup; return the new records.

    Each trial keeps its number and training and gets new latencies. What computes in integers is
    scored again, too: another CPU may saturate where the old one didn't. Old records, those of the
    floors and finals among them, move to `records/superseded/`, unchanged.
    """
    for record in _stale(records):
        bench.folder.supersede(record)
    fresh = measure_floors(bench)
    for record in _latest_trials(records):
        if record.status == "failed":
            fresh.append(record)
            continue
        try:
            fresh.append(_timed_again(bench, record))
        except (CandidateFailed, ExportError) as exc:
            if isinstance(exc, CandidateFailed) and exc.subject == "dense":
                raise
            fresh.append(_failed(bench, record, exc))
        bench.folder.supersede(record)
    return fresh


def _latest_trials(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return one record per trial: a kill while measuring again can leave the old and the new."""
    latest = {r.index: r for r in sorted(records, key=lambda r: r.date_utc) if r.kind == "trial"}
    return [latest[index] for index in sorted(latest, key=lambda i: i or 0)]


def _stale(records: Sequence[RunRecord]) -> list[RunRecord]:
    kept = {record.run_id for record in _latest_trials(records)}
    return [record for record in records if record.run_id not in kept]


def _timed_again(bench: Workbench, record: RunRecord) -> RunRecord:
    doing = bench.target.quantity.doing
    bench.progress.phase(f"trial {record.index}: {doing} its network again on this setup")
    if record.status == "complete":
        model = trained_model(bench, record)
    else:  # never trained: latency depends on the architecture alone, so build that again
        base = bench.base(record.candidate["blocks"])
        smaller = base.pruned(bench.network, bench.example[:1], record.pruning or {})
        precision = Precision(record.candidate["precision"], PROBE_CALIBRATION)
        model = bench.export(smaller, bench.model_path("probe.onnx"), precision)
    budget = Budget(**record.budget)
    measured = bench.timed({"candidate": model}, budget, probe_plan(bench.target))
    within = budget.decide(measured["candidate"].stats) is Decision.FEASIBLE
    phase = "retimed" if record.status == "complete" else "probe"
    widths, share = record.candidate["widths"], share_of_dense(measured, "candidate", budget)
    figures = latency_figures(measured["candidate"])
    changes: dict[str, Any] = {
        "latency": {"probe": figures, phase: figures},
        "probes": [{"widths": widths, "share": share, "within": within, "timed": True}],
        "flags": sorted(
            {*measured["candidate"].flags, *({"parity_failed"} & set(record.flags))}
        ),
        "feasible": within and record.status == "complete",
        "environment": environment(bench, measured["candidate"].environment),
        "versions": dict(bench.provenance["versions"]),
        "target": {**record.target, "backend_version": bench.facts["runtime_version"]},
    }  # fmt: skip
    if record.status == "complete" and record.candidate["precision"] not in ("fp32", "fp16"):
        split = bench.task.data.validation
        changes["scores"] = {"validation": asdict(bench.score(bench.outputs(model, split), split))}
    new = _changed(record, changes)
    bench.folder.write(new, samples_of(phase, measured, "candidate"))
    return new


def _failed(bench: Workbench, record: RunRecord, exc: HarnessError) -> RunRecord:
    """Record that a trial can't be timed here."""
    new = _changed(record, {
        "status": "failed", "reason": f"{type(exc).__name__}: {exc}", "feasible": None,
        "latency": {}, "probes": [],
    })  # fmt: skip
    bench.folder.write(new, {})
    return new


def _changed(record: RunRecord, changes: dict[str, Any]) -> RunRecord:
    """Return a record of now with other values."""
    kept = {k: v for k, v in asdict(record).items() if k not in ("schema", "run_id", "date_utc")}
    return make_record(now_utc(), **{**kept, **changes})
