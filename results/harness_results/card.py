"""The winner's card: what it is, how it was measured, how it is used."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from harness.quantity import emulation_note
from harness.units import (
    format_count,
    format_metric,
    format_metric_range,
    format_size,
    format_times,
    metric_words,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness_results.record import RunRecord


def card(record: RunRecord, finals: dict[str, RunRecord], results: Path) -> str:
    """Return a winner's card, as Markdown.

    Args:
        record: The winner's final.
        finals: The finals under its budget by role, itself among them.
        results: The results folder.
    """
    figures, metric = record.latency["final"], record.task["metric"]
    statistic, machine = record.budget["statistic"], record.environment["machine"]
    ratio, quantity = figures[f"ratio_{statistic}"], record.quantity
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
at a {statistic} of {quantity.interval(quantity.of(figures, statistic))},
{ratio[0]:.1%} of the dense model's ({ratio[1]:.1%} to {ratio[2]:.1%}).
{_emulated(record)}
{_titles(record)}
|---|---|---|---|---|---|---|---|
{rows}

## What it is

Task `{record.task["name"]}` (data SHA-256 `{record.task["data_sha256"][:16]}`, dense network
`{record.task["model_sha256"][:16]}`); {_how(candidate)}.
{_training(record)}
{_precision(record)}

{_blocks(candidate)}| group | dense channels | kept | pruned |
|---|---|---|---|
{widths}{_notes(record)}

## How it was measured

{record.target["backend"]} {versions["runtime"]}, threads {record.target["threads"]}, batch
{record.target["batch"]}, on {machine["cpu_model"]} with {machine["cpu_count"]} cores.
{figures["n_calls"]} calls in {figures["n_processes"]} fresh processes, interleaved with the dense
model; intervals are over processes. Flags: {", ".join(record.flags) or "none"}.
Fingerprint `{record.environment["fingerprint"]}`, model SHA-256 `{record.model["sha256"][:16]}`.

## How to use it

{_inputs(record)}

`model.onnx` takes a batch of {record.target["batch"]} at a time, as it was measured.
`python run.py inputs.npy` runs it on any number of prepared samples, batch by batch.
`weights.safetensors` with `pruning.json` rebuild the torch network, in fp32:
{_replay(record, results)} does that and checks that {_checked(record)}.
"""


def replay_command(record: RunRecord, results: Path) -> str:
    """Return what rebuilds a record's network: a command, or Python where only objects make it.

    Args:
        record: Of the network.
        results: The results folder.
    """
    elsewhere = str(results) != "results"
    if record.task["source"]:
        option = f" --results {shlex.quote(str(results))}" if elsewhere else ""
        return f"harness replay {record.run_id}{option}"
    option = f", results={str(results)!r}" if elsewhere else ""
    return f"harness.replay({record.run_id!r}, model, data, ...{option})"


def _replay(record: RunRecord, results: Path) -> str:
    command = f"`{replay_command(record, results)}`"
    if record.task["source"]:
        return command
    return f"{command} in Python, with the objects and options that the search was given,"


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


def _emulated(record: RunRecord) -> str:
    """Return what instruction counts are; empty where times were measured."""
    note = emulation_note(record.target["emulated_cpu"])
    return note and f"\n**{note}**\n"


def _training(record: RunRecord) -> str:
    training = record.training
    if training is None:
        return ""
    part = "" if training["samples"] == training["of"] else f" ({training['reduction']})"
    before = training.get("epochs_before", 0)
    on = f", then, as one of the best, {training['epochs']} more" if before else ""
    return (
        f"Trained on {training['samples']} of {training['of']} samples{part}, "
        f"{before or training['epochs']} epochs{on}."
    )


def _blocks(candidate: dict[str, Any]) -> str:
    if not candidate["blocks"]:
        return ""
    return f"Residual blocks left out: {', '.join(candidate['blocks'])}.\n\n"


def _precision(record: RunRecord) -> str:
    precision = record.candidate["precision"]
    if precision in ("fp32", "fp16"):
        return f"Precision {precision}."
    how = "at every call" if precision == "int8-dynamic" else "by training samples"
    return (
        f"Precision {precision}: 8-bit weights per channel, ranges of activations found {how}; "
        "trained in fp32."
    )


def _checked(record: RunRecord) -> str:
    if record.candidate["precision"] in ("fp32", "fp16"):
        return "it gives the same outputs"
    return "it is as far from the file, which rounds to integers, as it was"


def _notes(record: RunRecord) -> str:
    """Return what a user should know of model and data, as a list."""
    notes = "".join(f"\n- {note}" for note in record.task["notes"])
    return notes and f"\n\nOf model and data:\n{notes}"


def _inputs(record: RunRecord) -> str:
    """Return how a sample x is prepared, and what the outputs stand for."""
    inputs, classes = record.task["inputs"], record.task["classes"]
    shape, scale = "x".join(map(str, inputs["shape"])), inputs["scale"]
    text = f"Inputs: {inputs['dtype']}, {shape} for one sample"
    if scale is not None:
        text += (
            f"; prepared as (x * {scale['factor']:.6g} - mean) / std with mean "
            f"{_numbers(scale['mean'])} and std {_numbers(scale['std'])}"
        )
        if len(scale["mean"]) > 1 and len(inputs["shape"]) > 1:
            text += " by channel"
        if scale["factor"] != 1:
            text += ", x being pixels from 0 to 255"
    if classes:
        text += f". The largest output names the class, in this order: {', '.join(classes)}"
    if record.task["targets"]:
        text += f". What is predicted: {', '.join(record.task['targets'])}"
    return f"{text}.{_features(record.task['columns'])}"


def _features(columns: Sequence[dict[str, Any]]) -> str:
    """Return a table of which features are made of which column; empty where there are none."""
    rows, first = [], 0
    for column in columns:
        texts = column["categories"]
        if texts:
            made = f"1 for the cell's text, else 0, in this order: {', '.join(texts)}"
        else:
            made = f"the number, 1 for true; {column['missing']:.9g} where it is missing"
        last = first + max(1, len(texts)) - 1
        numbers = f"{first}" if last == first else f"{first} to {last}"
        rows.append(f"| {numbers} | {_cell(column['name'])} | {_cell(made)} |")
        first = last + 1
    if not rows:
        return ""
    head = "x has these features:\n\n| feature | column | value |\n|---|---|---|\n"
    return f"\n\n{head}" + "\n".join(rows)


def _cell(text: str) -> str:
    """Return a text that can't end a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _titles(record: RunRecord) -> str:
    figure = f"{record.budget['statistic']} {record.quantity.noun}"
    metric = metric_words(record.task["metric"])
    return f"| model | {figure} | of dense | {metric} | MACs | parameters | size | precision |"


def _row(role: str, record: RunRecord) -> str:
    figures, statistic = record.latency["final"], record.budget["statistic"]
    ratio, quantity = figures[f"ratio_{statistic}"], record.quantity
    return (
        f"| {role} | {quantity.interval(quantity.of(figures, statistic))} | "
        f"{ratio[0]:.1%} ({ratio[1]:.1%} to {ratio[2]:.1%}) | {_score(record)} | "
        f"{format_count(record.model['macs'])} | {format_count(record.model['params'])} | "
        f"{format_size(record.model['size_bytes'])} | {record.candidate['precision']} |"
    )
