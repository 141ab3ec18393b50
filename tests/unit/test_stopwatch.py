from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness_search import stopwatch


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made_up = Clock()
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=made_up.monotonic))
    return made_up


def test_phases_add_up_and_the_rest_is_other(clock: Clock) -> None:
    watch = stopwatch.Stopwatch()
    for seconds in (1.0, 2.0):
        with watch.phase("train"):
            clock.now += seconds
        clock.now += 0.5
    with watch.phase("export"):
        clock.now += 4.0
    assert watch.report() == {"train": 3.0, "export": 4.0, "other": 1.0}


def test_a_phase_that_fails_still_counts(clock: Clock) -> None:
    watch = stopwatch.Stopwatch()

    def fail() -> None:
        clock.now += 1.0
        raise KeyError

    with pytest.raises(KeyError), watch.phase("train"):
        fail()
    assert watch.report()["train"] == 1.0
