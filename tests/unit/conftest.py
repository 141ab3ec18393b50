from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from harness.measurement.types import Estimate, LatencyStats
from harness_results.record import RunRecord, make_record

if TYPE_CHECKING:
    from collections.abc import Callable

DENSE = {"conv1": 32, "conv2": 48}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def _stats(**changes: Any) -> LatencyStats:
    one = Estimate(1.0, 1.0, 1.0)
    values: dict[str, Any] = {
        "p50": one, "p90": one, "p99": None, "p999": None, "p50_raw": 1.0, "p90_raw": 1.0,
        "p99_raw": None, "p999_raw": None, "least": 1.0, "ratio_p50": None,
        "ratio_p90": None, "n_calls": 10, "n_clean": 10, "n_rounds": 10, "n_sittings": 5,
        "n_processes": 1, "contended": 0.0,
    }  # fmt: skip
    return LatencyStats(**{**values, **changes})


@pytest.fixture
def stats() -> Callable[..., LatencyStats]:
    return _stats


def _trial(
    index: int,
    *,
    role: str = "searched",
    status: str = "complete",
    suggestion: dict[str, Any] | None = None,
    widths: dict[str, int] | None = None,
    value: float = 0.9,
    loss: float = 0.3,
    ratio: tuple[float, float, float] = (0.45, 0.44, 0.46),
    budget: str = "50%",
    flags: tuple[str, ...] = (),
    size_bytes: int = 1000,
) -> RunRecord:
    figures = {f"ratio_{s}": list(ratio) for s in ("p50", "p90")}
    figures |= {f"{s}_s": [value * 1e-3 for value in ratio] for s in ("p50", "p90")}
    chosen = suggestion or {}
    done = status == "complete"
    return make_record(
        "2026-01-31T12:00:00Z", study="s", kind="trial", role=role, index=index, status=status,
        reason=None, feasible=done, task={}, target={},
        budget={"kind": "share", "value": float(budget[:-1]) / 100, "statistic": "p50",
                "text": budget},
        suggestion=suggestion,
        candidate={"widths": widths or DENSE, "dense_widths": DENSE, "ratios": {},
                   "criterion": chosen.get("criterion", "l2"),
                   "temperature": chosen.get("temperature", 4.0),
                   "kd_weight": chosen.get("kd_weight", 0.7), "precision": "fp32", "blocks": []},
        pruning={}, probes=[],
        latency={} if status == "failed" else {
            "probe": figures, **({"retimed": figures} if done else {})},
        scores={"validation": {"value": value, "loss": loss}} if done else {},
        parity=None, model={"size_bytes": size_bytes}, training=None, flags=list(flags), search={},
        versions={}, environment={}, git={}, timings_s={},
    )  # fmt: skip


@pytest.fixture
def trial_record() -> Callable[..., RunRecord]:
    return _trial
