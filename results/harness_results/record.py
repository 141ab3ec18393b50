"""One immutable record per trial and per final: everything that a row is made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import ConfigError
from harness.measurement.intervals import per_call
from harness.quantity import INSTRUCTIONS, Quantity, quantity_on

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.measurement.types import Estimate, Measurement, Spread

SCHEMA = 5


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What was done and measured for one candidate; SI units, None is unknown.

    Attributes:
        schema: Version of this layout.
        run_id: UTC time and eight digits of the content's hash.
        study: Name of the study.
        kind: `"trial"`, `"final"`, `"rejected"` (missed the budget in its final) or `"floor"`.
        role: `"dense"`, `"uniform"`, `"global"`, `"sensitivity"`, `"searched"`, `"winner"`,
            `"rejected"`, `"floor"`, `"depth"` (global pruning without some blocks), a
            precision's name (global pruning in it), or `"longer"` (an earlier trial's network,
            trained on).
        index: The trial's number in its study; for a final, of the trial that it finishes.
        status: `"complete"`, `"over_budget"`, `"over_size"` or `"failed"`.
        reason: Why it is not complete.
        feasible: Whether the latest measurement meets the budget; None where none was made.
        task: `name`, `metric` (a user's own as `name#1a2b3c`, with a part of its identity),
            `data_sha256`, `model_sha256` (of the dense network's structure and initial weights),
            `splits` (their `origin`, and the samples of each), `inputs`
            (`shape` of a sample, `scale` that prepares it), `columns` of a table (`name`,
            `categories`, what a `missing` number becomes) in the order of their features, `classes`
            by number, `targets` (names of what is predicted), `notes` on model and data, and
            `source` (what the task was made from; empty where it was given as objects).
        target: Options of the target and the backend's version.
        budget: `text`, `kind`, `value`, `statistic`.
        suggestion: Parameters as the sampler gave them; None for what it didn't.
        candidate: `widths` (0 where a group went with its block), `dense_widths`, `ratios`
            (realised), `criterion`, `temperature`, `kd_weight`, `precision`, `blocks` (those that
            were left out).
        pruning: Channels removed per group; None for the dense model.
        probes: Every architecture that was tried untrained on the way: `widths`, `share` of the
            dense model's latency, `within` the limits, `timed` (else the share is predicted).
        latency: Figures by phase, of times or, where the target is emulated, of instructions
            (`p50_instructions` in place of `p50_s`): `probe` (before training), `retimed` (after),
            `final`; `dense`
            is the dense model's beside the floor, `whole` the dense network's in the floor's
            precision.
        scores: By split (`validation`, `test`): `value` of the metric with its 95 % interval `lo`
            to `hi`, `loss`, `n`.
        parity: Largest relative error, samples whose class differs, samples compared.
        model: `onnx` and `weights` (paths in the study's folder; None where only the latency of
            the untrained network was wanted), `sha256`, `size_bytes`,
            `opset`, `params`, `macs`.
        training: `epochs`, `lr`, `batch`, `optimizer`, `bfloat16`, `seed`; `samples` trained on
            `of` how many, chosen by `reduction`; of a network that was trained on, the number of
            the trial that it `continues` and that one's `epochs_before`; in finals `train_s`
            (wall), and where the winner was trained on a part `on_all_samples`: its test `score`,
            `epochs` and `train_s` when trained on all. None where nothing was trained.
        flags: Of the latest measurement.
        search: `seed`, `trials` and `elapsed_s` of the study so far, `test_reads` (how often the
            study had read the test split by then, under any budget, this record's reading
            included).
        versions: Of the packages that matter.
        environment: `fingerprint`, `machine`, and its state before and after each process's
            timing.
        git: `commit` and `dirty` of the working folder.
        timings_s: Wall seconds per phase.
        date_utc: When the record was made, ISO 8601.
    """

    schema: int
    run_id: str
    study: str
    kind: str
    role: str
    index: int | None
    status: str
    reason: str | None
    feasible: bool | None
    task: dict[str, Any]
    target: dict[str, Any]
    budget: dict[str, Any]
    suggestion: dict[str, Any] | None
    candidate: dict[str, Any]
    pruning: dict[str, list[int]] | None
    probes: list[dict[str, Any]]
    latency: dict[str, dict[str, Any]]
    scores: dict[str, dict[str, Any]]
    parity: dict[str, Any] | None
    model: dict[str, Any]
    training: dict[str, Any] | None
    flags: list[str]
    search: dict[str, Any]
    versions: dict[str, str]
    environment: dict[str, Any]
    git: dict[str, Any]
    timings_s: dict[str, float]
    date_utc: str

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        text = json.dumps(asdict(self), indent=1, allow_nan=False)
        return text.encode() + b"\n"

    @property
    def quantity(self) -> Quantity:
        """What calls were measured in: time, or instructions on an emulated CPU."""
        return quantity_on(self.target["emulated_cpu"])

    def figures(self) -> dict[str, Any] | None:
        """Return the latest latency figures; None where nothing was timed."""
        return next(
            (self.latency[p] for p in ("final", "retimed", "probe") if p in self.latency), None
        )


def make_record(date_utc: str, **values: Any) -> RunRecord:
    """Return a record with its id, from every other field.

    Args:
        date_utc: ISO 8601 with a `Z`, to the second.
        values: The fields of `RunRecord` other than schema, run_id and date_utc.
    """
    # Through JSON and back, so that the hash is that of what a reader will see.
    content = json.loads(
        json.dumps({"schema": SCHEMA, "date_utc": date_utc, **values}, allow_nan=False)
    )
    return RunRecord(run_id=_run_id(content), **content)


def read_record(path: Path) -> RunRecord:
    """Return the record in a file.

    Raises:
        ConfigError: If the file is no record of this schema, or its content doesn't match its id.
    """
    remedy = "Restore the file, or move it away: its trial will then be done again."
    try:
        content = json.loads(path.read_bytes())
        version = content.get("schema")
    except (OSError, ValueError, AttributeError) as exc:
        raise ConfigError(f"{path} is corrupt: {exc}. {remedy}") from exc
    if version != SCHEMA:
        raise ConfigError(f"{path}: expected schema {SCHEMA}, received {version!r}. {remedy}")
    expected = {field.name for field in fields(RunRecord)}
    if content.keys() != expected:
        wrong = ", ".join(sorted(content.keys() ^ expected))
        raise ConfigError(f"{path} is corrupt: missing or unknown fields ({wrong}). {remedy}")
    run_id = content.pop("run_id")
    try:
        expected_id = _run_id(content)
    except (ValueError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{path} is corrupt: {exc}. {remedy}") from exc
    if run_id != expected_id:
        raise ConfigError(f"{path} was changed after it was written: its hash differs. {remedy}")
    return RunRecord(run_id=run_id, **content)


def _run_id(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    stamp = content["date_utc"].replace("-", "").replace(":", "")
    return f"{stamp}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def latency_figures(measurement: Measurement, limit: float | None = None) -> dict[str, Any]:
    """Return a measurement's figures for a record: `[value, low, high]` where it has an interval.

    Keys say the unit: `p50_s`, or `p50_instructions` where instructions were counted; nothing that
    was timed under emulation is told. Session creation, first inference and peak memory are
    `[median, lowest, highest]`.

    Args:
        measurement: What was measured.
        limit: The budget in seconds or instructions, for the share of raw calls within it; None
            for none.
    """
    stats, startup, key = measurement.stats, measurement.startup, measurement.stats.quantity.key
    counted = stats.quantity is INSTRUCTIONS
    raw = np.concatenate([per_call(sample).ravel() for sample in measurement.samples])

    def triple(estimate: Estimate | None) -> list[float] | None:
        return None if estimate is None else [estimate.value, estimate.lo, estimate.hi]

    def spread(name: str) -> list[float] | None:
        values: Spread | None = getattr(startup, name, None)
        return None if values is None else [values.median, values.lowest, values.highest]

    return {
        key("p50"): triple(stats.p50),
        key("p90"): triple(stats.p90),
        key("p99"): triple(stats.p99),
        key("p999"): triple(stats.p999),
        key("p50_raw"): stats.p50_raw,
        key("p90_raw"): stats.p90_raw,
        key("p99_raw"): stats.p99_raw,
        key("p999_raw"): stats.p999_raw,
        key("min"): stats.least,
        "ratio_p50": triple(stats.ratio_p50),
        "ratio_p90": triple(stats.ratio_p90),
        "n_calls": stats.n_calls,
        "n_clean": None if counted else stats.n_clean,
        "n_rounds": stats.n_rounds,
        "n_sittings": stats.n_sittings,
        "n_processes": stats.n_processes,
        "contended": None if counted else stats.contended,
        "raw_within_budget": None if limit is None else float((raw <= limit).mean()),
        "session_create_s": spread("session_create_s"),
        "first_inference_s": spread("first_inference_s"),
        "peak_mem_bytes": spread("peak_memory_bytes"),
        "n_startups": None if startup is None else startup.n_processes,
        "energy_j": None,
        "flags": list(measurement.flags),
    }
