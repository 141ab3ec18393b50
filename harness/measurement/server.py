"""The server scenario: tail latency while requests arrive at random, at a given mean rate.

One call after the other is a closed loop: its figures are service times, and no queue ever forms.
Requests that arrive whether or not the last one was answered wait for each other, and what a user
sees is waiting plus service. Arrivals are Poisson; one model instance serves them in order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import ConfigError
from harness.measurement import flags as flag
from harness.measurement.intervals import QUANTILES, least_calls, pooled_quantile
from harness.measurement.persevering import persevere
from harness.units import format_latency

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from harness.measurement.types import Estimate, OpenWorker, Subject

_PROCESSES = 5
_WARM_UP_CALLS, _WARM_UP_S = 10, 0.2
_OVERLOADED = 0.95
"""Share of the time busy from which a queue of random arrivals doesn't settle in a few seconds."""
_MOST_REQUESTS, _MOST_S = 200_000, 60.0
"""Requests a process, and seconds by which the last one may be late."""


@dataclass(frozen=True, slots=True)
class ServerResult:
    """Latency from arrival to answer, seconds.

    Attributes:
        rate: Requests per second, as asked.
        achieved: Requests answered per second.
        busy: Share of the time in which a request was being served.
        quantiles: `p50`, `p90`, `p99`, `p999`: value with its 95 % interval over processes; None
            below their least number of requests.
        service_p50_s: Median time of service alone.
        n_requests: In all.
        n_processes: Fresh processes.
        flags: As of any measurement; `overloaded` where the queue can't settle.
        latencies_s: Per process, in order of arrival.
        environment: Runtime version and the machine's state before and after each process.
    """

    rate: float
    achieved: float
    busy: float
    quantiles: Mapping[str, Estimate | None]
    service_p50_s: float
    n_requests: int
    n_processes: int
    flags: tuple[str, ...]
    latencies_s: tuple[NDArray[np.float64], ...]
    environment: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Served:
    """What one process served: int64 `[3, n]`, due, begun, done; and on what machine."""

    arrivals: NDArray[np.int64]
    states: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def boot_id(self) -> str | None:
        found: str | None = self.facts.get("machine", {}).get("boot_id")
        return found


def measure_server(
    open_worker: OpenWorker,
    subject: Subject,
    rate: float,
    seconds: float,
    exclusive: Callable[[], AbstractContextManager[None]],
    seed: int = 0,
) -> ServerResult:
    """Serve Poisson arrivals in five fresh processes.

    Args:
        open_worker: Starts a fresh timing process.
        subject: The model.
        rate: Mean requests per second.
        seconds: How long each process is served requests.
        exclusive: Gives a context manager that keeps other work off the machine.
        seed: Of the arrivals.

    Raises:
        ConfigError: If that makes fewer than 11 requests a process, or too many to keep.
        BackendError: If the runtime refuses the model, or its process dies.
    """
    expected = rate * seconds
    if not least_calls(0.5) <= expected <= _MOST_REQUESTS:
        raise ConfigError(
            f"{rate:g} requests a second for {seconds:g} s are about {expected:.0f} requests; "
            f"expected {least_calls(0.5)} to {_MOST_REQUESTS}. Change `--rate` or `--time`."
        )
    rng = np.random.default_rng(seed)
    taken: list[_Served] = []
    while len(taken) < _PROCESSES:
        gaps = rng.exponential(1e9 / rate, max(1, math.ceil(expected)))
        due = np.cumsum(gaps).astype(np.int64)
        work = partial(_serve, open_worker, subject, due, (rate, seconds), exclusive)
        taken.append(persevere(work))
        # Another start of the machine may have other clocks: what came before is left out.
        taken = [one for one in taken if one.boot_id == taken[-1].boot_id]
    flags = set().union(*(flag.of_states(**one.states) for one in taken))
    arrivals = [one.arrivals for one in taken]
    latencies = tuple((done - due) * 1e-9 for due, _, done in arrivals)
    service = np.concatenate([(done - begun) * 1e-9 for _, begun, done in arrivals])
    span_s = sum(float(done[-1]) * 1e-9 for _, _, done in arrivals)
    busy = float(service.sum()) / span_s
    if busy > _OVERLOADED:
        flags.add("overloaded")
    return ServerResult(
        rate=rate,
        achieved=service.size / span_s,
        busy=busy,
        quantiles={name: _quantile(latencies, q) for name, q in QUANTILES.items()},
        service_p50_s=float(np.median(service)),
        n_requests=service.size,
        n_processes=len(taken),
        flags=tuple(sorted(flags)),
        latencies_s=latencies,
        environment={
            "runtime_version": taken[-1].facts["runtime_version"],
            "processes": [one.states for one in taken],
        },
    )


def _serve(
    open_worker: OpenWorker,
    subject: Subject,
    due: NDArray[np.int64],
    asked: tuple[float, float],
    exclusive: Callable[[], AbstractContextManager[None]],
) -> _Served:
    """Warm the model up in a fresh process and serve one series of arrivals.

    Args:
        open_worker: Starts the process.
        subject: The model.
        due: int64 `[n]`, nanoseconds after the beginning, ascending.
        asked: Mean requests per second, and for how many seconds.
        exclusive: Keeps other work off the machine.

    Raises:
        ConfigError: If the model can't serve so many.
    """
    with exclusive(), open_worker() as worker:
        session = worker.load(subject.model, subject.inputs, subject.repeat)
        calls = max(_WARM_UP_CALLS, math.ceil(_WARM_UP_S / session.first_inference_s))
        (block,) = worker.time([(session, calls)])
        _check_rate(*asked, float(np.median(block.wall_ns)) * 1e-9)
        before = worker.state()
        served = worker.arrive(session, due)
        return _Served(served, {"before": before, "after": worker.state()}, worker.facts)


def _check_rate(rate: float, seconds: float, service_s: float) -> None:
    if seconds * (rate * service_s - 1) > _MOST_S:
        raise ConfigError(
            f"One request takes about {format_latency(service_s)}, so {rate:g} a second can't be "
            f"served: the model manages about {1 / service_s:.3g}. Lower `--rate`."
        )


def _quantile(latencies_s: tuple[NDArray[np.float64], ...], quantile: float) -> Estimate | None:
    """Return a quantile with its interval over processes: one after the other, requests queue."""
    if sum(one.size for one in latencies_s) < least_calls(quantile):
        return None
    return pooled_quantile([[one] for one in latencies_s], quantile, 0.95)
