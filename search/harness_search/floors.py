"""The smallest network of the space, timed in every precision beside the dense one, untrained.

It lacks all blocks that may be left out, and has one granule of channels everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.budget import Decision
from harness.candidate import Candidate
from harness.compression.pruning.prune import last_channels
from harness.compression.quantisation.precision import FP32, PROBE_CALIBRATION, Precision
from harness.errors import CandidateFailed, ExportError
from harness.measurement.plans import probe_plan
from harness.provenance import now_utc
from harness_results.record import latency_figures, make_record
from harness_search.recording import common_fields, environment, search_fields
from harness_search.stopwatch import Stopwatch
from harness_search.tools import samples_of

if TYPE_CHECKING:
    from harness.candidate import OnnxModel
    from harness.measurement.types import Measurement
    from harness_results.record import RunRecord
    from harness_search.workbench import Workbench


@dataclass(frozen=True, slots=True)
class _Files:
    """Two files of one precision: of the dense network (None in float32) and of the floor."""

    dense: OnnxModel | None
    floor: OnnxModel


def measure_floors(bench: Workbench) -> list[RunRecord]:
    """Time the floor, and in other precisions than float32 the dense network, too; record them.

    All are timed together against the dense float32 network. The budget recorded is the tightest
    one. A precision that the network can't be exported in, or that the runtime fails on, is
    recorded as failed, with the reason.

    Returns:
        One record per precision, in the order of the space's.

    Raises:
        ExportError: If it can be exported in none, or not in float32 where that is asked for.
        CandidateFailed: If the runtime fails on the dense float32 network, or on its floor.
    """
    doing = bench.target.quantity.doing
    bench.progress.phase(f"{doing} the dense model and the floor, the smallest network")
    watch = Stopwatch()
    failed: dict[str, str] = {}
    base = bench.base(bench.space.blocks)
    history = last_channels(base.graph, base.space.floor())
    with watch.phase("export"):
        files = _exported(bench, history, failed)
    with watch.phase("timing"):
        measured = _timed(bench, files, failed)
    timings = watch.report()
    return [
        _failed(bench, name, history, failed[name])
        if name in failed
        else _recorded(bench, name, files[name], history, measured, timings)
        for name in bench.space.precisions
    ]


def _exported(
    bench: Workbench, history: dict[str, list[int]], failed: dict[str, str]
) -> dict[str, _Files]:
    """Return the files by precision; what can't be exported goes into `failed`."""
    base = bench.base(bench.space.blocks)
    smallest = base.pruned(bench.network, bench.example[:1], history)
    files: dict[str, _Files] = {}
    for name in bench.space.precisions:
        precision, dense = Precision(name, PROBE_CALIBRATION), None
        try:
            if name != FP32.name:
                path = bench.model_path(f"untrained-{name}.onnx")
                dense = bench.export(bench.network, path, precision)
            floor = bench.export(smallest, bench.model_path(f"floor-{name}.onnx"), precision)
        except ExportError as exc:
            failed[name] = f"ExportError: {exc}"
            if name == FP32.name or len(failed) == len(bench.space.precisions):
                raise
            continue
        files[name] = _Files(dense, floor)
    return files


def _timed(
    bench: Workbench, files: dict[str, _Files], failed: dict[str, str]
) -> dict[str, Measurement]:
    """Time all files together; those that the runtime fails on go into `failed`."""
    while True:
        known = {name: one for name, one in files.items() if name not in failed}
        models = {f"{name} floor": one.floor for name, one in known.items()}
        models |= {f"{name} dense": one.dense for name, one in known.items() if one.dense}
        try:
            return bench.timed(models, bench.settings.budgets[0], probe_plan(bench.target))
        except CandidateFailed as exc:
            name = exc.subject.split()[0]
            if name not in known or name == FP32.name or len(known) == 1:
                raise
            failed[name] = f"CandidateFailed: {exc}"


def _recorded(
    bench: Workbench,
    name: str,
    files: _Files,
    history: dict[str, list[int]],
    measured: dict[str, Measurement],
    timings: dict[str, float],
) -> RunRecord:
    budget, found = bench.settings.budgets[0], measured[f"{name} floor"]
    latency = {"probe": latency_figures(found), "dense": latency_figures(measured["dense"])}
    samples = samples_of("probe", measured, f"{name} floor")
    if files.dense is not None:
        whole = measured[f"{name} dense"]
        latency["whole"] = latency_figures(whole)
        samples["whole.candidate"] = whole.samples
    limit = bench.settings.max_size_bytes
    within = budget.decide(found.stats) is Decision.FEASIBLE
    feasible = within and (limit is None or files.floor.size_bytes <= limit)
    record = _record(
        bench, name, files.floor, history, status="complete", reason=None, feasible=feasible,
        latency=latency, flags=list(found.flags), timings_s=timings,
        environment=environment(bench, found.environment),
    )  # fmt: skip
    bench.folder.write(record, samples)
    return record


def _failed(bench: Workbench, name: str, history: dict[str, list[int]], reason: str) -> RunRecord:
    record = _record(
        bench, name, None, history, status="failed", reason=reason, feasible=None, latency={},
        flags=[], timings_s={}, environment=environment(bench, {}),
    )  # fmt: skip
    bench.folder.write(record, {})
    return record


def _record(
    bench: Workbench,
    name: str,
    model: OnnxModel | None,
    history: dict[str, list[int]],
    **fields: Any,
) -> RunRecord:
    base = bench.base(bench.space.blocks)
    widths = base.widths(base.space.floor(), bench.space.dense)
    candidate = Candidate(widths, precision=name, blocks=base.blocks)
    return make_record(
        now_utc(), **common_fields(bench, bench.settings.budgets[0], candidate, model, None),
        kind="floor", role="floor", index=None, suggestion=None, pruning=history, probes=[],
        scores={}, parity=None, training=None, search=search_fields(bench, 0), **fields,
    )  # fmt: skip


def recorded_floors(bench: Workbench, records: list[RunRecord]) -> list[RunRecord]:
    """Return the floors' records of a study in the order of the precisions, or measure them now.

    Args:
        bench: The session.
        records: Of the study. Floors that a kill left incomplete are put aside.
    """
    known = {r.candidate["precision"]: r for r in records if r.kind == "floor"}
    if known.keys() == set(bench.space.precisions):
        return [known[name] for name in bench.space.precisions]
    for record in known.values():
        bench.folder.supersede(record)
    return measure_floors(bench)
