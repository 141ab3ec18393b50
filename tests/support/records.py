"""Records as a search writes them, without a search."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from harness_results.record import RunRecord, make_record
from harness_results.store import StudyFolder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DENSE = {"conv1": 32, "conv2": 48}
PRUNED = {"conv1": 20, "conv2": 32}
DENSE_S = 31e-6


def triple(value: float, half_width: float = 0.01) -> list[float]:
    """Return `[value, low, high]`, the half-width relative."""
    return [value, value * (1 - half_width), value * (1 + half_width)]


def figures(ratio: float = 0.47, **overrides: Any) -> dict[str, Any]:
    """Return the latency figures of a network that takes `ratio` of the dense one's time."""
    latency = ratio * DENSE_S
    made = {
        "p50_s": triple(latency), "p90_s": triple(latency * 1.1), "p99_s": triple(latency * 1.3),
        "p999_s": triple(latency * 1.6), "p50_raw_s": latency * 1.01, "p90_raw_s": latency * 1.12,
        "p99_raw_s": latency * 1.4, "p999_raw_s": latency * 1.7, "min_s": latency * 0.98,
        "ratio_p50": triple(ratio), "ratio_p90": triple(ratio * 1.02), "n_calls": 15000,
        "n_clean": 14900, "n_rounds": 150, "n_sittings": 50, "n_processes": 5,
        "contended": 1 / 150, "raw_within_budget": 0.995, "session_create_s": triple(0.01),
        "first_inference_s": triple(3e-5), "peak_mem_bytes": None, "n_startups": 3,
        "energy_j": None, "flags": [],
    }  # fmt: skip
    return made | overrides


def task_facts(**overrides: Any) -> dict[str, Any]:
    """Return what a record says of the tiny task."""
    made = {
        "name": "tiny", "metric": "accuracy", "data_sha256": "da" * 32, "model_sha256": "de" * 32,
        "splits": {"origin": "made up", "train": 320, "validation": 50, "test": 90},
        "inputs": {
            "shape": [1, 8, 8], "dtype": "float32",
            "scale": {"mean": [0.5], "std": [0.25], "factor": 1 / 255},
        },
        "columns": [], "classes": ["slow", "middle", "fast"], "targets": [], "notes": [],
        "source": {"task": "tiny"},
    }  # fmt: skip
    return made | overrides


def training(**overrides: Any) -> dict[str, Any]:
    """Return what a record says of how a candidate was trained."""
    made = {
        "epochs": 1, "lr": 0.05, "batch": 32, "optimizer": "sgd", "bfloat16": False, "seed": 7,
        "samples": 320, "of": 320, "reduction": "random",
    }  # fmt: skip
    return made | overrides


def record(
    kind: str = "final",
    role: str = "winner",
    *,
    index: int | None = 0,
    budget: str = "50%",
    statistic: str = "p50",
    ratio: float = 0.47,
    test: tuple[float, float, float] = (0.90, 0.85, 0.94),
    validation: float = 0.92,
    status: str = "complete",
    date: str = "2026-01-31T12:00:00Z",
    **overrides: Any,
) -> RunRecord:
    """Return a record with an honest id.

    Args:
        kind: `"trial"`, `"final"` or `"floor"`.
        role: As in `RunRecord`.
        index: The trial's number.
        budget: Its text, a share or milliseconds.
        statistic: What the budget bounds.
        ratio: Latency as a share of the dense model's.
        test: The metric on the test split with its interval, for a final.
        validation: The metric on validation, for a trial that is complete and for a final.
        status: As in `RunRecord`.
        date: When it was made.
        overrides: Whole fields, in place of the made-up ones.
    """
    is_share = budget.endswith("%")
    widths = DENSE if role == "dense" else PRUNED
    removed = {name: list(range(widths[name], DENSE[name])) for name in DENSE}
    name = "dense" if role == "dense" else f"trial-{index or 0:04d}"
    searched = role not in ("dense", "floor")
    complete = status == "complete"
    phases = {"trial": ("probe", "retimed") if complete else ("probe",), "final": ("final",)}
    scores: dict[str, Any] = {}
    if kind != "floor" and complete:
        scores["validation"] = {
            "value": validation, "lo": validation - 0.05, "hi": validation + 0.05,
            "loss": 0.3, "n": 50,
        }  # fmt: skip
    if kind == "final":
        scores["test"] = {"value": test[0], "lo": test[1], "hi": test[2], "loss": 0.3, "n": 90}
    value = float(budget.rstrip("%ms")) / (100 if is_share else 1000)
    fields: dict[str, Any] = {
        "study": "tiny-fake-50pct-p50-s0", "kind": kind, "role": role,
        "index": None if role == "dense" else index, "status": status, "reason": None,
        "feasible": ratio * 1.01 <= 0.5,
        "task": task_facts(),
        "target": {
            "name": "fake", "backend": "fake", "threads": 1, "affinity": [], "batch": 1,
            "shapes": {}, "provider": "CPUExecutionProvider", "provider_options": {},
            "session_config": {}, "emulated_cpu": "", "granule": 4,
            "scenario": "single_stream", "backend_version": "1.0",
        },
        "budget": {"kind": "share" if is_share else "time", "value": value,
                   "statistic": statistic, "text": budget},
        "suggestion": None,
        "candidate": {
            "widths": widths, "dense_widths": DENSE,
            "ratios": {group: 1 - widths[group] / DENSE[group] for group in DENSE},
            "criterion": "l2" if searched else None,
            "temperature": 4.0 if searched else None,
            "kd_weight": 0.7 if searched else None, "precision": "fp32", "blocks": [],
        },
        "pruning": None if role == "dense" else removed,
        "probes": [],
        "latency": {phase: figures(ratio) for phase in phases.get(kind, ("probe", "dense"))},
        "scores": scores,
        "parity": {"max_error": 2e-7, "argmax_differs": 0, "n": 50, "passed": True},
        "model": {
            "onnx": f"models/{name}.onnx", "weights": f"models/{name}.safetensors",
            "sha256": hashlib.sha256(f"{index} onnx".encode()).hexdigest(),
            "size_bytes": 25308, "opset": 17, "params": 6143, "macs": 103776,
        },
        "training": training() if searched else None,
        "flags": [],
        "search": {"seed": 0, "trials": 3, "elapsed_s": 12.5, "test_reads": int(kind == "final")},
        "versions": {"python": "3.11.7", "runtime": "1.0"},
        "environment": {
            "fingerprint": "609fd5c6ea.2d1ce66016",
            "machine": {"cpu_model": "made up", "cpu_count": 2, "memory_bytes": 2**30},
            "runtime_version": "1.0",
            "processes": [{"before": {"governor": "fake"}, "after": {"governor": "fake"}}] * 5,
        },
        "git": {"commit": "c0ffee", "dirty": False},
        "timings_s": {"timing": 0.5, "train": 1.25},
    }  # fmt: skip
    return make_record(date, **(fields | overrides))


def finals() -> dict[str, RunRecord]:
    """Return a set of finals by role: a dense model over the budget, three that meet it."""
    return {
        "dense": record(role="dense", ratio=1.0, test=(0.95, 0.91, 0.98)),
        "uniform": record(role="uniform", index=0, test=(0.80, 0.74, 0.85)),
        "global": record(role="global", index=1, test=(0.82, 0.76, 0.87)),
        "winner": record(role="winner", index=2, test=(0.90, 0.86, 0.94)),
    }


def store(results: Path, records: Iterable[RunRecord]) -> StudyFolder:
    """Write records and the models that they name into their study; return its folder."""
    folder = StudyFolder(results, "none")
    for one in records:
        folder = StudyFolder(results, one.study)
        folder.create()
        folder.write(one, {})
        for key in ("onnx", "weights"):
            if one.model.get(key):
                (folder.path / one.model[key]).write_bytes(f"{one.index} {key}".encode())
    return folder
