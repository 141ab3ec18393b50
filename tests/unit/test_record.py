"""Records: an id that is their content's hash, and no way to read a changed one."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.measurement.types import (
    Estimate,
    LatencySample,
    LatencyStats,
    Measurement,
    Spread,
    Startup,
)
from harness_results.record import latency_figures, read_record
from support.records import figures, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_id_is_utc_time_and_eight_hex_digits() -> None:
    made = record(date="2026-01-31T12:00:09Z")
    assert re.fullmatch(r"20260131T120009Z-[0-9a-f]{8}", made.run_id)


def test_the_same_content_gives_the_same_id() -> None:
    assert record().run_id == record().run_id


@pytest.mark.parametrize(
    "change", [{"feasible": False}, {"flags": ["steal"]}, {"study": "b"}, {"index": 9}]
)
def test_any_other_content_gives_another_id(change: dict[str, Any]) -> None:
    assert record(**change).run_id != record().run_id


def test_a_record_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        record().feasible = False  # type: ignore[misc]


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    made = record()
    path = tmp_path / f"{made.run_id}.json"
    path.write_bytes(made.to_json())
    assert read_record(path) == made


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    made = record(timings_s={"train": 0.1 + 0.2, "tiny": 5e-324})
    (tmp_path / "r.json").write_bytes(made.to_json())
    assert read_record(tmp_path / "r.json").timings_s == {"train": 0.1 + 0.2, "tiny": 5e-324}


def test_tuples_are_kept_as_a_reader_will_see_them() -> None:
    assert record(flags=("steal",)).flags == ["steal"]


def test_the_file_is_plain_json_with_unknown_as_null() -> None:
    read = json.loads(record(role="dense").to_json())
    assert read["index"] is None
    assert read["latency"]["final"]["energy_j"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        record(timings_s={"train": value})


def write(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads(record().to_json())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(feasible=not c["feasible"]),
        lambda c: c["scores"]["test"].update(value=0.99),
        lambda c: c["latency"]["final"]["p50_s"].reverse(),
        lambda c: c.update(run_id=c["run_id"][:-1] + "x"),
        lambda c: c.update(run_id=None),
        lambda c: c["search"].update(elapsed_s=float("nan")),
        lambda c: c.update(date_utc=5),
        lambda c: c.pop("flags"),
        lambda c: c.update(colour="red"),
    ],
    ids=["verdict", "score", "order", "id", "no id", "NaN", "date", "missing", "unknown"],
)
def test_an_edited_record_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = write(tmp_path / "edited.json", change)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_record(path)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"3"])
def test_what_is_no_record_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="corrupt"):
        read_record(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_record_is_refused(tmp_path: Path, share: float) -> None:
    data = record().to_json()
    path = tmp_path / "r.json"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ConfigError, match="corrupt"):
        read_record(path)


@pytest.mark.parametrize("schema", [1, 3, 4, 99])
def test_another_schema_is_named(tmp_path: Path, schema: int) -> None:
    path = write(tmp_path / "r.json", lambda c: c.update(schema=schema))
    with pytest.raises(ConfigError, match=f"expected schema 5, received {schema}"):
        read_record(path)


def test_the_latest_figures_are_the_final_ones() -> None:
    probe, again, final = figures(0.3), figures(0.4), figures(0.5)
    every = {"probe": probe, "retimed": again, "final": final}
    assert record(latency=every).figures() == final
    assert record(latency={"probe": probe, "retimed": again}).figures() == again
    assert record(latency={"probe": probe}).figures() == probe
    assert record(latency={}).figures() is None


def measurement(startup: Startup | None = None) -> Measurement:
    # Two rounds of three calls, the first left out: the raw calls take 1, 2, 3 and 3 ms.
    wall = np.array([[9e6, 1e6, 2e6], [9e6, 3e6, 3e6]]).astype(np.int64)
    sample = LatencySample(wall, wall, np.zeros_like(wall), np.arange(2))
    stats = LatencyStats(
        p50=Estimate(2e-3, 1.9e-3, 2.1e-3), p90=None, p99=None, p999=None, p50_raw=2e-3,
        p90_raw=None, p99_raw=None, p999_raw=None, least=1e-3,
        ratio_p50=Estimate(0.5, 0.4, 0.6), ratio_p90=None, n_calls=4, n_clean=4, n_rounds=2,
        n_sittings=2, n_processes=1, contended=0.0,
    )  # fmt: skip
    return Measurement(stats, startup, ("steal",), (sample,), {})


def test_figures_are_in_seconds_with_their_interval() -> None:
    made = latency_figures(measurement())
    assert made["p50_s"] == [2e-3, 1.9e-3, 2.1e-3]
    assert made["ratio_p50"] == [0.5, 0.4, 0.6]
    assert made["flags"] == ["steal"]
    assert (made["n_rounds"], made["n_sittings"]) == (2, 2)
    unknown = ("p90_s", "p99_s", "p999_s", "p90_raw_s", "p99_raw_s", "p999_raw_s", "ratio_p90",
               "energy_j")  # fmt: skip
    assert {made[key] for key in unknown} == {None}


def test_start_up_figures_are_median_and_range() -> None:
    startup = Startup(Spread(0.2, 0.1, 0.9), Spread(0.02, 0.01, 0.03), Spread(5.5, 5, 6), 2)
    made = latency_figures(measurement(startup))
    assert made["session_create_s"] == [0.2, 0.1, 0.9]
    assert made["first_inference_s"] == [0.02, 0.01, 0.03]
    assert made["peak_mem_bytes"] == [5.5, 5, 6]


def test_start_up_figures_that_were_not_taken_are_unknown() -> None:
    bare = latency_figures(measurement(Startup(Spread(1, 1, 1), Spread(1, 1, 1), None, 3)))
    assert (bare["session_create_s"], bare["peak_mem_bytes"]) == ([1, 1, 1], None)
    keys = ("session_create_s", "first_inference_s", "peak_mem_bytes")
    assert {latency_figures(measurement())[key] for key in keys} == {None}


def test_figures_can_be_recorded() -> None:
    startup = Startup(Spread(0.2, 0.1, 0.9), Spread(0.02, 0.01, 0.03), Spread(5.5, 5, 6), 2)
    made = latency_figures(measurement(startup), 1e-3)
    assert record(latency={"final": made}).figures() == made
    assert made.keys() == figures().keys()


@pytest.mark.parametrize(("limit_s", "share"), [(0.5e-3, 0.0), (2e-3, 0.5), (3e-3, 1.0)])
def test_the_share_of_raw_calls_within_the_budget(limit_s: float, share: float) -> None:
    made = latency_figures(measurement(), limit_s)
    assert made["raw_within_budget"] == share


def test_without_a_limit_the_share_is_unknown() -> None:
    assert latency_figures(measurement())["raw_within_budget"] is None
