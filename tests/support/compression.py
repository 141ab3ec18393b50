"""A compression's report, made up."""

from __future__ import annotations

from typing import Any

from harness_results.compression_report import SCHEMA, Report

RECIPE = {
    "teacher_epochs": 0, "trial_epochs": 1, "batch": 32, "teacher_lr": 0.1, "trial_lr": 0.05,
    "weight_decay": 1e-4, "optimizer": "sgd",
}  # fmt: skip


def side(p50: float) -> dict[str, Any]:
    score = {"value": 0.9, "lo": 0.8, "hi": 0.95, "loss": 0.3, "n": 90}
    return {
        "params": 100, "nonzeros": 100, "macs": 1000, "size_bytes": 4000, "precision": "fp32",
        "scores": {"validation": score, "test": score}, "parity": {"passed": True},
        "latency": {
            "p50_s": [p50, p50, p50], "ratio_p50": [0.5, 0.4, 0.6], "n_calls": 300,
            "n_processes": 5, "peak_mem_bytes": None,
        },
    }  # fmt: skip


def report(**given: Any) -> Report:
    change = {"value": 0.0, "lo": -0.01, "hi": 0.01}
    values: dict[str, Any] = {
        "schema": SCHEMA, "run": "r", "date_utc": "2026-01-01T00:00:00Z",
        "task": {"name": "t", "metric": "accuracy"},
        "target": {"name": "cpu", "backend": "x", "backend_version": "1", "threads": 1, "batch": 1,
                   "emulated_cpu": ""},
        "steps": [], "before": side(2e-3), "after": side(1e-3),
        "training": {"recipe": RECIPE, "reduction": {"fraction": 1.0, "method": "random"}},
        "files": {}, "change": {"validation": change, "test": change}, "flags": [],
        "test_reads": 1, "seed": 0, "versions": {},
        "environment": {"machine": {"cpu_model": "c", "cpu_count": 2}}, "git": {},
    }  # fmt: skip
    return Report(**{**values, **given})
