from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.candidate import OnnxModel
from harness_search.ladder import Widths
from harness_search.projection import CORRECTIONS, Probe, fit_to_budget

LADDER = [{"a": width} for width in range(1, 21)]


def fit(
    true: Callable[[int], float],
    predicted: Callable[[int], float],
    limit: float = 0.5,
    aim: float | None = None,
    ladder: list[Widths] = LADDER,
    room: float = 0.0,
) -> tuple[Probe, list[Probe]]:
    def measure(widths: Widths) -> Probe:
        share = true(widths["a"])
        return Probe(widths, {}, OnnxModel(Path("m"), "", 1, 17), None, share, share <= limit)

    return fit_to_budget(
        ladder, measure, lambda widths: predicted(widths["a"]),
        lambda known_within: (aim or 0.97 * limit) * (1.0 if known_within else 1 - room),
    )  # fmt: skip


def test_a_model_that_is_right_needs_one_measurement() -> None:
    chosen, tried = fit(lambda w: w / 20, lambda w: w / 20, aim=0.5)
    assert chosen.widths == {"a": 10}
    assert len(tried) == 1


@pytest.mark.parametrize("factor", [0.6, 0.8, 1.25, 1.6])
def test_a_model_that_is_wrong_by_a_factor_is_corrected(factor: float) -> None:
    known = {"factor": factor}

    def true(width: int) -> float:
        known["factor"] = 1.0  # a measurement corrects the model
        return width / 20

    chosen, _ = fit(true, lambda w: known["factor"] * w / 20)
    assert chosen.within
    assert chosen.share >= 0.4


@pytest.mark.parametrize("bias", [0.3, 0.5, 2.0, 4.0])
def test_it_never_measures_more_often_than_promised_nor_a_rung_twice(bias: float) -> None:
    _, tried = fit(lambda w: w / 20, lambda w: bias * w / 20)
    widths = [probe.widths["a"] for probe in tried]
    assert len(widths) <= 1 + CORRECTIONS
    assert len(set(widths)) == len(widths)


def test_the_largest_that_fits_is_taken_of_those_tried() -> None:
    chosen, tried = fit(lambda w: w / 20, lambda w: 1.5 * w / 20)
    assert chosen == max((p for p in tried if p.within), key=lambda p: p.widths["a"])


def test_where_nothing_fits_the_fastest_is_returned_as_not_within() -> None:
    chosen, tried = fit(lambda w: 0.8 + w / 100, lambda w: 0.8 + w / 100)
    assert not chosen.within
    assert chosen.share == min(probe.share for probe in tried)


def test_where_the_model_knows_none_that_fits_the_smallest_is_tried_first() -> None:
    widths: list[float] = []

    def true(width: int) -> float:
        widths.append(width)
        return 0.8 + width / 100

    assert not fit(true, lambda w: 0.9 + w / 100)[0].within
    assert len(widths) == 1  # what is over even without channels needs no second timing


def test_a_model_that_is_too_pessimistic_is_proven_wrong_from_below() -> None:
    chosen, tried = fit(lambda w: w / 40, lambda w: 2.0, limit=0.5)
    assert tried[0].share == min(probe.share for probe in tried)
    assert chosen.within
    assert chosen.share > tried[0].share


def test_an_optimistic_model_is_brought_down_into_the_budget() -> None:
    chosen, _ = fit(lambda w: w / 20, lambda w: 0.1)
    assert not chosen.within or chosen.share <= 0.5
    shares = [probe.share for probe in fit(lambda w: w / 20, lambda w: 0.1)[1]]
    assert shares == sorted(shares, reverse=True)


def test_a_feasible_rung_near_the_aim_ends_it() -> None:
    known = {"scale": 20}

    def true(width: int) -> float:
        known["scale"] = 21  # by now the model would allow the next rung
        return width / 20 + 0.012

    _, tried = fit(true, lambda w: w / known["scale"], limit=0.5, aim=0.48)
    assert [probe.widths["a"] for probe in tried] == [9]


def test_once_a_rung_within_is_known_the_room_for_the_models_error_is_used() -> None:
    chosen, tried = fit(lambda w: w / 20, lambda w: w / 20, aim=0.5, room=0.3)
    assert [probe.widths["a"] for probe in tried] == [7, 10]
    assert chosen.widths == {"a": 10}


def test_a_ladder_of_one_rung_is_measured_once() -> None:
    chosen, tried = fit(lambda w: 0.9, lambda w: 0.9, ladder=[{"a": 1}])
    assert (chosen.within, len(tried)) == (False, 1)
