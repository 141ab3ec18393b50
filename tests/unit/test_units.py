from __future__ import annotations

import math

import pytest

from harness import units
from harness.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10ms", 0.010),
        (" 10 ms ", 0.010),
        ("800us", 800e-6),
        ("800µs", 800e-6),
        ("1.5s", 1.5),
        (".5ms", 0.5e-3),
        ("2e3ns", 2e-6),
    ],
)
def test_a_latency_is_seconds(text: str, seconds: float) -> None:
    assert math.isclose(units.parse_latency_s(text), seconds)


@pytest.mark.parametrize("text", ["", "ms", "10", "10 min", "1e999ms", "nan ms", "10ms20", "1,5ms"])
def test_what_is_no_latency_is_refused_with_what_was_received(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        units.parse_latency_s(text, "--budget")
    assert repr(text) in str(caught.value)
    assert "--budget" in str(caught.value)


def test_a_missing_unit_is_named_as_the_remedy() -> None:
    with pytest.raises(ConfigError, match="Add a unit"):
        units.parse_latency_s("10")


@pytest.mark.parametrize("text", ["0ms", "-1ms"])
def test_a_latency_is_above_zero(text: str) -> None:
    with pytest.raises(ConfigError, match="above zero"):
        units.parse_latency_s(text)


@pytest.mark.parametrize(("text", "seconds"), [("3min", 180), ("90s", 90), ("2h", 7200)])
def test_a_wall_time_is_seconds(text: str, seconds: float) -> None:
    assert units.parse_wall_s(text) == seconds


def test_a_wall_time_has_no_milliseconds_and_names_its_option() -> None:
    with pytest.raises(ConfigError, match="--time"):
        units.parse_wall_s("10ms")


def test_sizes_are_decimal_or_binary() -> None:
    assert units.parse_size_bytes("2MB") == 2_000_000
    assert units.parse_size_bytes("2MiB") == 2 * 2**20
    assert units.parse_size_bytes("1.5kB") == 1500


def test_points_are_hundredths() -> None:
    assert math.isclose(units.parse_points("1pt"), 0.01)
    assert math.isclose(units.parse_points("2.5 pts"), 0.025)


@pytest.mark.parametrize("text", ["100pt", "1", "1%", "0pt"])
def test_points_are_between_none_and_all(text: str) -> None:
    with pytest.raises(ConfigError, match="--max-drop"):
        units.parse_points(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (538e-6, "0.538 ms"),
        (83.1e-6, "83.1 µs"),
        (0.0123, "12.3 ms"),
        (0.25, "250 ms"),
        (2, "2.00 s"),
    ],
)
def test_latencies_are_shown_with_three_digits(seconds: float, text: str) -> None:
    assert units.format_latency(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (0.01, "below 0.1 s"),
        (0.3, "0.3 s"),
        (0.97, "1 s"),
        (4.4, "4 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3720, "1 h 02 min"),
    ],
)
def test_wall_times_are_shown_for_people(seconds: float, text: str) -> None:
    assert units.format_wall(seconds) == text


def test_sizes_and_counts_are_shown_with_a_prefix() -> None:
    assert units.format_size(1_520_000) == "1.52 MB"
    assert units.format_size(640_000) == "640 kB"
    assert units.format_count(62_100_000) == "62.1 M"
    assert units.format_count(890_000) == "890 k"
    assert units.format_count(12) == "12"


# Metrics


@pytest.mark.parametrize("metric", units.SHARES)
def test_a_drop_of_a_share_is_in_points(metric: str) -> None:
    assert math.isclose(units.parse_drop("1pt", metric), 0.01)
    with pytest.raises(ConfigError, match="percentage points"):
        units.parse_drop("0.01", metric)


@pytest.mark.parametrize(("text", "drop"), [("0.02", 0.02), ("3", 3.0), (" 1e-3 ", 1e-3)])
def test_a_drop_of_another_metric_is_in_its_own_unit(text: str, drop: float) -> None:
    assert math.isclose(units.parse_drop(text, "r2"), drop)


@pytest.mark.parametrize("text", ["1pt", "0", "-0.1", "much", "nan", "1%", ""])
def test_what_is_no_drop_of_another_metric_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        units.parse_drop(text, "neg_mean_absolute_error")
    for part in ("--max-drop", "'neg_mean_absolute_error'", repr(text)):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "share"), [("0.3", 0.3), ("30%", 0.3), ("1", 1.0), ("100%", 1.0), ("1e-3", 1e-3)]
)
def test_a_share_is_a_number_or_per_cent(text: str, share: float) -> None:
    assert math.isclose(units.parse_share(text, "--train-fraction"), share)


@pytest.mark.parametrize("text", ["0", "0%", "1.01", "101%", "-0.1", "half", "nan", "3pt", ""])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        units.parse_share(text, "--train-fraction")
    assert "`--train-fraction`" in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(("text", "least", "count"), [("7", 1, 7), (" 12 ", 1, 12), ("0", 0, 0)])
def test_a_count_is_a_whole_number(text: str, least: int, count: int) -> None:
    assert units.parse_count(text, "--trials", least) == count


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "1e3", "many", "", "²"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="`--trials` must be a whole number from 1"):
        units.parse_count(text, "--trials")


def test_shares_are_shown_in_per_cent_and_others_as_they_are() -> None:
    assert units.format_metric(0.9775, "accuracy") == "97.75 %"
    assert units.format_metric(0.9775, "r2") == "0.9775"
    assert units.format_metric(-12.345678, "neg_mean_absolute_error") == "-12.35"
    assert units.format_metric_range(0.961, 0.987, "f1_macro") == "96.10 to 98.70"
    assert units.format_metric_range(-2.5, 0.98765, "r2") == "-2.5 to 0.9877"


def test_changes_have_a_sign() -> None:
    assert units.format_metric_change(0.005, "accuracy") == "+0.50 pt"
    assert units.format_metric_change(-0.005, "balanced_accuracy") == "-0.50 pt"
    assert units.format_metric_change(-0.00213, "r2") == "-0.00213"
    assert units.format_metric_change(0.0, "r2") == "+0"


def test_metrics_have_names_for_people() -> None:
    assert units.metric_words("balanced_accuracy") == "balanced accuracy"


@pytest.mark.parametrize(
    ("text", "count"), [("80Minstr", 80e6), ("950 instr", 950), ("1.5kinstr", 1500)]
)
def test_instructions_are_counted(text: str, count: float) -> None:
    assert math.isclose(units.parse_instructions(text), count)


@pytest.mark.parametrize("text", ["80", "80M", "80minstr", "0Minstr", "-1Minstr"])
def test_what_is_no_instruction_count_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        units.parse_instructions(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 instr"), (950, "950 instr"), (12_345, "12.3 kinstr"), (81.2e6, "81.2 Minstr"),
     (2.5e9, "2.50 Ginstr")],
)  # fmt: skip
def test_instructions_have_their_unit(count: float, text: str) -> None:
    assert units.format_instructions(count) == text
