from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.candidate import OnnxModel
from harness.errors import ConfigError
from harness.measurement.server import ServerResult, measure_server
from harness.measurement.types import Block, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUBJECT = Subject(OnnxModel(Path("m.onnx"), "", 1, 17), {})
QUIET = {"governor": "performance", "max_khz": 1, "throttle_count": 0}


class Worker:
    """Serves every request in the same time, one after the other."""

    def __init__(self, service_ns: int, arrivals: list[Any]) -> None:
        self.facts = {"runtime_version": "7"}
        self.service_ns, self.arrivals = service_ns, arrivals

    def load(self, model: OnnxModel, inputs: Any, repeat: int = 1) -> Any:
        return SimpleNamespace(session_create_s=0.1, first_inference_s=self.service_ns * 1e-9)

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        return [Block(*(np.full(calls, self.service_ns),) * 3) for _, calls in schedule]

    def arrive(self, session: Any, due_ns: Any) -> Any:
        self.arrivals.append(due_ns)
        begun, free = [], 0
        for due in due_ns.tolist():
            begun.append(max(due, free))
            free = begun[-1] + self.service_ns
        return np.stack([due_ns, np.array(begun), np.array(begun) + self.service_ns])

    def state(self) -> dict[str, Any]:
        return dict(QUIET)


def served(
    rate: float,
    seconds: float = 20.0,
    service_ms: float = 1.0,
    arrivals: list[Any] | None = None,
) -> ServerResult:
    @contextmanager
    def open_worker() -> Iterator[Any]:
        yield Worker(round(service_ms * 1e6), arrivals if arrivals is not None else [])

    return measure_server(open_worker, SUBJECT, rate, seconds, nullcontext)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_mean_wait_is_that_of_a_queue_of_random_arrivals_and_fixed_service(load: float) -> None:
    """Pollaczek and Khinchine: an M/D/1 queue waits load / (2 (1 - load)) services on average."""
    found = served(1000 * load)
    latency_s = np.concatenate(found.latencies_s)
    expected_s = 1e-3 * (1 + load / (2 * (1 - load)))
    assert float(latency_s.mean()) == pytest.approx(expected_s, rel=0.08)
    assert found.busy == pytest.approx(load, abs=0.03)
    assert found.flags == ()


def test_quantiles_ascend_and_need_their_least_number_of_requests() -> None:
    many, few = served(500), served(20, seconds=1.0)
    values = [many.quantiles[name] for name in ("p50", "p90", "p99", "p999")]
    assert all(one is not None for one in values)
    assert [one.value for one in values if one] == sorted(one.value for one in values if one)
    assert few.n_requests == 100
    assert [name for name, one in few.quantiles.items() if one is None] == ["p99", "p999"]


def test_a_rate_beyond_what_can_be_served_is_flagged_and_its_queue_grows() -> None:
    found = served(1300, seconds=2.0)
    assert "overloaded" in found.flags
    first, *_, last = found.latencies_s[0]
    assert last > 100 * first
    assert found.achieved < 1.05 * 1000


def test_arrivals_are_poisson_and_differ_between_processes() -> None:
    arrivals: list[Any] = []
    served(100, arrivals=arrivals)
    gaps_s = [np.diff(due) * 1e-9 for due in arrivals]
    assert len({float(gaps.sum()) for gaps in gaps_s}) == 5
    for gaps in gaps_s:  # a Poisson process's gaps are exponential: their deviation is their mean
        assert float(gaps.mean()) == pytest.approx(0.01, rel=0.1)
        assert float(gaps.std()) == pytest.approx(0.01, rel=0.15)


@pytest.mark.parametrize("rate", [0.5, 1e6])
def test_too_few_or_too_many_requests_are_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="Change `--rate` or `--time`"):
        served(rate, seconds=1.0)


def test_a_rate_far_beyond_what_the_model_manages_is_refused_with_what_it_does() -> None:
    with pytest.raises(ConfigError, match=r"manages about 10\b"):
        served(1000, seconds=3.0, service_ms=100.0)


def test_the_rate_asked_is_the_rate_of_arrivals() -> None:
    found = served(250)
    assert found.n_requests == 5 * math.ceil(250 * 20)
    assert found.achieved == pytest.approx(250, rel=0.05)
