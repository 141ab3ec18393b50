"""How many samples a device can score: all, or as many as its pace affords.

A board computes a network's outputs itself, since its arithmetic is not this machine's, and a slow
one, or an emulator, would take hours for a large split. The same samples are taken for every
candidate, so that candidates are compared on equal terms; every score says of how many it is.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from harness.atomic import write_atomic
from harness.folders import cache_folder
from harness.measurement.persevering import persevere

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.data.split import Data, Split
    from harness_search.tools import Tools

VALIDATION_S, TEST_S = 60.0, 300.0
"""Aimed longest time of scoring one network: in every trial, and once for what is reported."""
LEAST = 512
"""Samples that are scored however long it takes: fewer tell hardly anything of an accuracy."""
_TRIED = 16


def affordable_data(
    tools: Tools, begun: Sequence[int] | None = None
) -> tuple[Data, tuple[str, ...]]:
    """Return the task's data with what of it the device can score, and what a user should know.

    Args:
        tools: Of a device that is far or slow; the dense network may be untrained.
        begun: How many validation and test samples the work was begun with; None for new work.

    Raises:
        BackendError: If its runtime refuses the dense network.
    """
    data = tools.task.data
    splits = {"validation": data.validation, "test": data.test}
    counts = _counts(tools, splits) if begun is None else dict(zip(splits, begun, strict=True))
    notes = tuple(
        f"{name} scores are of {counts[name]} of {len(split)} samples, drawn once: "
        f"{tools.target.name} is slow"
        for name, split in splits.items()
        if counts[name] < len(split)
    )
    validation, test = (
        _sample(split, min(counts[name], len(split)), tools.seed("scored", name))
        for name, split in splits.items()
    )
    return replace(data, validation=validation, test=test), notes


def _counts(tools: Tools, splits: Mapping[str, Split]) -> dict[str, int]:
    sample_s = _seconds_per_sample(tools)
    limits = {"validation": VALIDATION_S, "test": TEST_S}
    return {name: affordable(len(split), sample_s, limits[name]) for name, split in splits.items()}


def affordable(total: int, sample_s: float, limit_s: float) -> int:
    """Return how many of `total` samples can be scored: all, or a power of two.

    Args:
        total: Samples in the split.
        sample_s: What one takes, seconds.
        limit_s: What all may take, seconds.
    """
    most = max(LEAST, int(limit_s / sample_s))
    return total if most >= total else 1 << (most.bit_length() - 1)


def _sample(split: Split, count: int, seed: int) -> Split:
    if count == len(split):
        return split
    rng = torch.Generator().manual_seed(seed)
    return split.take(torch.randperm(len(split), generator=rng)[:count].sort().values)


def _seconds_per_sample(tools: Tools) -> float:
    """Return what the dense network takes per sample there, as it was when first asked.

    It is kept, so that the same command scores the same samples again.
    """
    network = tools.provenance["task"]["model_sha256"][:16]
    path = cache_folder() / "pace" / f"{tools.provenance['fingerprint']}.{network}.json"
    with suppress(OSError, ValueError, LookupError, TypeError):
        return float(json.loads(path.read_bytes())["sample_s"])
    found = _tried(tools)
    with suppress(OSError):  # a cache is a convenience
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"sample_s": found}).encode() + b"\n")
    return found


def _tried(tools: Tools) -> float:
    """Send samples and fetch their outputs; return seconds per sample."""
    tools.progress.phase("finding out how many samples the device can score")
    inputs, batch = tools.inputs(), tools.target.batch
    rows = torch.arange(-(-_TRIED // batch) * batch) % len(tools.task.data.validation)
    samples = tools.task.data.validation.batch(rows).numpy()
    with TemporaryDirectory() as folder:
        model = tools.export(tools.network, Path(folder) / "dense.onnx")

        def run() -> float:
            with tools.device_lock.shared(), tools.backend.open() as worker:
                session: Any = worker.load(model, inputs)
                began = time.perf_counter()
                session.infer(dict.fromkeys(inputs, samples))
                return (time.perf_counter() - began) / len(samples)

        return persevere(run)
