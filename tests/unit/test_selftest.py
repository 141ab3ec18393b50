from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.candidate import OnnxModel
from harness.measurement.selftest import SelfTest, Share, self_test
from harness.measurement.types import Block, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUBJECT = Subject(OnnxModel(Path("m.onnx"), "", 1, 17), {})


class Worker:
    def __init__(self, rng: np.random.Generator, noise: float, bias: float) -> None:
        self.facts = {"runtime_version": "7"}
        self.rng, self.noise, self.bias, self.loaded = rng, noise, bias, 0

    def load(self, model: Any, inputs: Any, repeat: int = 1) -> Any:
        self.loaded += 1
        ns = 200_000 * repeat * (self.bias if self.loaded == 2 else 1.0)
        return SimpleNamespace(session_create_s=1e-3, first_inference_s=1e-3, ns=ns)

    def reload(self, session: Any) -> None:
        pass

    def time(self, schedule: Sequence[tuple[Any, int]]) -> list[Block]:
        def block(session: Any, calls: int) -> Block:
            wall = session.ns * self.rng.lognormal(0.0, self.noise, calls)
            return Block(np.round(wall).astype(np.int64), wall, np.zeros(calls, np.int64))

        return [block(session, calls) for session, calls in schedule]

    def state(self) -> dict[str, Any]:
        return {"governor": "performance", "max_khz": 1, "throttle_count": 0}


def examined(noise: float = 0.01, bias: float = 1.0, pairs: int = 8) -> tuple[SelfTest, list[int]]:
    rng, seen = np.random.default_rng(3), []

    @contextmanager
    def open_worker() -> Iterator[Any]:
        yield Worker(rng, noise, bias)

    result = self_test(
        open_worker, SUBJECT, nullcontext, pairs, 1.0, lambda done, total: seen.append(done)
    )
    return result, seen


def test_a_quiet_machine_finds_what_is_planted_and_nothing_else() -> None:
    result, seen = examined()
    assert (result.false_alarms.of, result.found.of) == (8, 4)
    assert result.false_alarms.count <= 1
    assert result.found.count == 4
    assert result.planted == 1.05
    assert np.median(result.planted_ratios) == pytest.approx(1.05, rel=0.005)
    assert seen == list(range(1, 13))


def test_a_machine_that_favours_one_of_two_sessions_is_found_out() -> None:
    result, _ = examined(bias=1.03)
    assert result.false_alarms.count >= 6
    assert result.false_alarms.lo > 0.05


def test_more_noise_resolves_less() -> None:
    calm, wild = (examined(noise)[0] for noise in (0.01, 0.1))
    assert calm.half_width < wild.half_width
    assert calm.resolves > calm.half_width


def test_half_the_difference_takes_four_times_as_long() -> None:
    share = Share(0, 1, 0.0, 1.0)
    test = SelfTest(3.0, share, 1.05, share, (0.01,), (1.05,))
    assert test.seconds_for(test.resolves) == pytest.approx(3.0)
    assert test.seconds_for(test.resolves / 2) == pytest.approx(12.0)
    assert test.resolves == pytest.approx(0.01 * (1 + 1.2816 / 1.96), rel=1e-3)
    assert math.isfinite(test.half_width)
