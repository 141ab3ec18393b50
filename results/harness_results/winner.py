"""The winner's folder: everything that is needed to ship it, to trust it and to rebuild it."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

from harness.candidate import OnnxModel
from harness.units import (
    format_count,
    format_latency,
    format_metric,
    format_metric_range,
    format_size,
    format_times,
    metric_words,
)
from harness_results.files import disk_errors
from harness_results.picture import draw_search

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness_results.record import RunRecord
    from harness_results.store import StudyFolder

_RUN = '''\
"""Run the network beside this file: python run.py [inputs.npy]"""
import os, sys
from pathlib import Path
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import
import numpy as np, onnxruntime
file = Path(__file__).resolve().with_name("model.onnx")
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
spec = session.get_inputs()[0]  # its batch is fixed: the one that was timed
x = np.load(sys.argv[1], allow_pickle=False) if sys.argv[1:] else np.zeros(spec.shape)
x = x.astype(np.int64 if "int64" in spec.type else np.float32)
rows = np.arange(len(x) + -len(x) % spec.shape[0]) % len(x)  # the last batch is filled up
runs = [session.run(None, {spec.name: x[part]}) for part in rows.reshape(-1, spec.shape[0])]
outputs = [np.concatenate(parts)[: len(x)] for parts in zip(*runs)]
'''
_CLASSES = "print(outputs[0].argmax(axis=1))\n"
_VALUES = "print(dict(zip([o.name for o in session.get_outputs()], outputs)))\n"


def run_py(record: RunRecord) -> str:
    """Return the script beside a winner: it prints classes, or all outputs where there are none."""
    return _RUN + (_CLASSES if record.task["classes"] else _VALUES)


def winner_folder(folder: StudyFolder, budget: str, several: bool) -> Path:
    """Return a winner's folder: `winner/`, or one below it per budget of a front."""
    slug = re.sub(r"[^\w.-]", "", budget.replace("%", "pct"))
    return folder.winner / slug if several else folder.winner


def write_winner(folder: StudyFolder, records: Sequence[RunRecord], budgets: Sequence[str]) -> None:
    """Write `winner/` from the latest finals; an old one is replaced as a whole.

    Args:
        folder: The study.
        records: All its records.
        budgets: Texts of the study's budgets.
    """
    finals = [record for record in records if record.kind == "final"]
    latest = {(record.budget["text"], record.role): record for record in finals}
    won = [latest[b, "winner"] for b in budgets if (b, "winner") in latest]
    won = [record for record in won if record.feasible]
    old, new = folder.path / "winner.old.tmp", folder.path / "winner.new.tmp"
    with disk_errors(folder.path):
        for path in (old, new):
            shutil.rmtree(path, ignore_errors=True)
        if won:
            for record in won:
                target = winner_folder(folder, record.budget["text"], len(budgets) > 1)
                part = new / target.relative_to(folder.winner)
                part.mkdir(parents=True)
                own = {
                    role: latest[record.budget["text"], role]
                    for role in ("dense", "uniform", "global", "winner")
                    if (record.budget["text"], role) in latest
                }
                _fill(part, folder, record, own)
                draw_search(part / "search.png", records, own)
            if folder.winner.exists():
                folder.winner.rename(old)
            new.rename(folder.winner)
        elif folder.winner.exists():
            folder.winner.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def _fill(part: Path, folder: StudyFolder, record: RunRecord, finals: dict[str, RunRecord]) -> None:
    info = record.model
    onnx = OnnxModel(folder.path / info["onnx"], info["sha256"], info["size_bytes"], info["opset"])
    onnx.read()
    shutil.copyfile(onnx.path, part / "model.onnx")
    shutil.copyfile(folder.path / record.model["weights"], part / "weights.safetensors")
    (part / "pruning.json").write_text(json.dumps(pruning_history(record)) + "\n")
    (part / "run.py").write_text(run_py(record))
    (part / "card.md").write_text(_card(record, finals), encoding="utf-8")


def pruning_history(record: RunRecord) -> dict[str, Any]:
    """Return what turns the dense network into this one: per group, the channels removed."""
    return {
        "task": record.task["name"],
        "removed_channels": record.pruning or {},
        "widths": record.candidate["widths"],
        "dense_widths": record.candidate["dense_widths"],
    }


def _card(record: RunRecord, finals: dict[str, RunRecord]) -> str:
    figures, metric = record.latency["final"], record.task["metric"]
    statistic, machine = record.budget["statistic"], record.environment["machine"]
    latency, ratio = figures[f"{statistic}_s"], figures[f"ratio_{statistic}"]
    candidate, versions = record.candidate, record.versions
    rows = "\n".join(_row(role, r) for role, r in finals.items())
    widths = "\n".join(
        f"| {name} | {dense} | {candidate['widths'][name]} | {candidate['ratios'][name]:.0%} |"
        for name, dense in candidate["dense_widths"].items()
    )
    return f"""\
# {record.task["name"]} on {record.target["name"]} within {record.budget["text"]}

{_score(record)} {metric_words(metric)} on the {record.scores["test"]["n"]} samples of the test
split (95 % intervals), which this study had then read {format_times(record.search["test_reads"])},
at a {statistic} of {format_latency(latency[0])}
({format_latency(latency[1])} to {format_latency(latency[2])}),
{ratio[0]:.1%} of the dense model's ({ratio[1]:.1%} to {ratio[2]:.1%}).

| model | {statistic} | of dense | {metric_words(metric)} | MACs | parameters | size |
|---|---|---|---|---|---|---|
{rows}

## What it is

Task `{record.task["name"]}` (data SHA-256 `{record.task["data_sha256"][:16]}`, dense network
`{record.task["model_sha256"][:16]}`); {_how(candidate)}.
{_training(record)}
Precision {candidate["precision"]}.

| group | dense channels | kept | pruned |
|---|---|---|---|
{widths}

## How it was measured

{record.target["backend"]} {versions["runtime"]}, threads {record.target["threads"]}, batch
{record.target["batch"]}, on {machine["cpu_model"]} with {machine["cpu_count"]} cores.
{figures["n_calls"]} calls in {figures["n_processes"]} fresh processes, interleaved with the dense
model; intervals are over processes. Flags: {", ".join(record.flags) or "none"}.
Fingerprint `{record.environment["fingerprint"]}`, model SHA-256 `{record.model["sha256"][:16]}`.

## How to use it

{_inputs(record)}

`model.onnx` takes a batch of {record.target["batch"]} at a time, as it was timed.
`python run.py inputs.npy` runs it on any number of prepared samples, batch by batch.
`weights.safetensors` with `pruning.json` rebuild the torch network:
`harness replay {record.run_id}` does that and checks that it gives the same outputs.
"""


def _how(candidate: dict[str, Any]) -> str:
    if candidate["criterion"] is None:
        return "the dense model itself: it was already within the budget"
    softened = candidate["temperature"]
    return (
        f"criterion {candidate['criterion']}, distilled "
        + ("" if softened is None else f"at temperature {softened:.3g} ")
        + f"with weight {candidate['kd_weight']:.3g}"
    )


def _score(record: RunRecord) -> str:
    test, metric = record.scores["test"], record.task["metric"]
    interval = format_metric_range(test["lo"], test["hi"], metric)
    return f"{format_metric(test['value'], metric)} ({interval})"


def _training(record: RunRecord) -> str:
    training = record.training
    if training is None:
        return ""
    part = "" if training["samples"] == training["of"] else f" ({training['reduction']})"
    return (
        f"Trained on {training['samples']} of {training['of']} samples{part}, "
        f"{training['epochs']} epochs."
    )


def _inputs(record: RunRecord) -> str:
    """Return how a sample is prepared, and what the outputs stand for."""
    inputs, classes = record.task["inputs"], record.task["classes"]
    shape, scale = "x".join(map(str, inputs["shape"])), inputs["scale"]
    text = f"Inputs: {inputs['dtype']}, {shape} for one sample"
    if scale is not None:
        text += (
            f"; prepared as (x * {scale['factor']:.6g} - mean) / std with mean "
            f"{_numbers(scale['mean'])} and std {_numbers(scale['std'])}"
        )
    if classes:
        text += f". The largest output names the class, in this order: {', '.join(classes)}"
    return text + "."


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _row(role: str, record: RunRecord) -> str:
    figures, statistic = record.latency["final"], record.budget["statistic"]
    latency, ratio = figures[f"{statistic}_s"], figures[f"ratio_{statistic}"]
    return (
        f"| {role} | {format_latency(latency[0])} ({format_latency(latency[1])} to "
        f"{format_latency(latency[2])}) | {ratio[0]:.1%} ({ratio[1]:.1%} to {ratio[2]:.1%}) | "
        f"{_score(record)} | "
        f"{format_count(record.model['macs'])} | {format_count(record.model['params'])} | "
        f"{format_size(record.model['size_bytes'])} |"
    )
