"""`harness bench` and `harness doctor`: what they print and write, with a made-up clock.

The made-up latency grows with the file's size, so larger files are slower by construction.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.measurement.reference import SHA256
from harness_backends.registry import BACKENDS
from harness_backends.testing.fake import FakeBackend, fake_latency_ns
from support.cli import TARGETS_TOML

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "targets.toml").write_text(TARGETS_TOML)
    monkeypatch.setenv("HARNESS_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(BACKENDS, "fake", FakeBackend.PATH)
    return tmp_path


def call(*args: str, code: int = 0) -> Result:
    ended = CliRunner().invoke(app, list(args), env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert ended.exit_code == code, ended.output
    return ended


def model(path: Path, weights: int, batch: int | str = 1) -> Path:
    """Write a model that adds constants; `weights` of them make the file large."""
    helper = onnx.helper
    info = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (batch, weights))
            for name in "xy"]  # fmt: skip
    constant = onnx.numpy_helper.from_array(np.ones((1, weights), np.float32), "c")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["y"])], "g", info[:1], info[1:], [constant]
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.fixture
def small(base: Path) -> Path:
    return model(base / "small.onnx", 1_000)


@pytest.fixture
def large(base: Path) -> Path:
    return model(base / "large.onnx", 3_000)


def bench(*args: Any, code: int = 0) -> str:
    return call("bench", *map(str, args), "--target", "fake", code=code).stdout


def as_json(*args: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bench(*args, "--json"))
    return found


def test_one_file_has_figures_start_up_memory_and_the_frozen_reference(small: Path) -> None:
    found = as_json(small)
    (timed,) = found["models"]
    expected_s = fake_latency_ns(small.stat().st_size) * 1e-9
    value, low, high = timed["p50_s"]
    assert low <= value <= high
    assert abs(value / expected_s - 1) < 0.01
    assert timed["n_processes"] == 5
    assert timed["session_create_s"] == [0.01, 0.01, 0.01]
    assert timed["peak_mem_bytes"] == [2.0**26] * 3
    assert timed["inputs"] == {"x": {"shape": [1, 1000], "dtype": "float32", "fed": "random"}}
    assert timed["n_startups"] == 3
    assert timed["compared"] is None
    assert found["reference"]["p50_s"][0] > 0
    assert found["scenario"] == "single_stream"


def test_two_files_are_compared_in_words(small: Path, large: Path, base: Path) -> None:
    twin = base / "twin.onnx"
    twin.write_bytes(small.read_bytes())
    found = as_json(small, large, twin)
    assert found["reference"] is None
    verdicts = [timed["compared"] and timed["compared"]["verdict"] for timed in found["models"]]
    assert verdicts == [None, "slower", "not resolved"]
    ratio = fake_latency_ns(large.stat().st_size) / fake_latency_ns(small.stat().st_size)
    assert found["models"][1]["compared"]["ratio_p50"][0] == pytest.approx(ratio, rel=0.01)
    assert "faster" in bench(large, small)
    text = bench(small, large)
    assert re.search(r"takes \d\.\d{3} of the time of .*small\.onnx \(.* to .*\): slower", text)


def test_the_same_file_twice_is_two_models(small: Path) -> None:
    assert [timed["path"] for timed in as_json(small, small)["models"]] == [str(small)] * 2


def test_a_markdown_table_has_a_row_per_file(small: Path, large: Path) -> None:
    lines = bench(small, large, "--table").splitlines()
    assert lines[1].replace("| ", "").replace(" |", "").split() == ["---"] * 7
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert "slower" in lines[3]
    assert len(lines) == 4


def test_a_short_time_is_one_process(small: Path) -> None:
    (timed,) = as_json(small, "--time", "1s")["models"]
    assert timed["n_processes"] == 1
    assert timed["n_sittings"] >= 6
    assert timed["session_create_s"] is None
    assert "sittings" in bench(small, "--time", "1s")


def test_whole_batches_are_counted_as_samples_per_second(base: Path) -> None:
    path = model(base / "open.onnx", 500, "N")
    found = as_json(path, "--scenario", "offline", "--set", "batch=8")
    (timed,) = found["models"]
    assert found["scenario"] == "offline"
    assert timed["inputs"]["x"]["shape"] == [8, 500]
    assert timed["throughput"]["batch"] == 8
    rate = 8 / (fake_latency_ns(path.stat().st_size) * 1e-9)
    assert timed["throughput"]["per_s"][0] == pytest.approx(rate, rel=0.01)
    assert "samples/s" in bench(path, "--scenario", "offline", "--set", "batch=8")


def test_batches_that_differ_compare_as_samples_per_second_only(base: Path) -> None:
    one, eight = model(base / "one.onnx", 500, 1), model(base / "eight.onnx", 500, 8)
    assert (
        "batches of 1, 8" in call("bench", str(one), str(eight), "--target", "fake", code=2).stderr
    )
    timed = as_json(one, eight, "--scenario", "offline")["models"][1]
    ratio = fake_latency_ns(one.stat().st_size) / fake_latency_ns(eight.stat().st_size)
    assert timed["throughput"]["ratio"][0] == pytest.approx(8 * ratio, rel=0.01)


def test_arriving_requests_wait_for_each_other(small: Path) -> None:
    service_s = fake_latency_ns(small.stat().st_size) * 1e-9
    slow = as_json(small, "--scenario", "server", "--rate", "100")
    busy = as_json(small, "--scenario", "server", "--rate", str(round(0.8 / service_s)))
    assert slow["scenario"] == busy["scenario"] == "server"
    assert slow["p50_s"][0] == pytest.approx(service_s, rel=0.05)
    assert busy["p90_s"][0] > 2 * service_s
    assert busy["busy"] == pytest.approx(0.8, abs=0.1)
    assert slow["p999_s"] is None  # 1500 requests don't tell
    assert "overloaded" not in busy["flags"]


def test_more_requests_than_can_be_served_are_flagged(small: Path) -> None:
    service_s = fake_latency_ns(small.stat().st_size) * 1e-9
    rate = str(round(1.5 / service_s))
    assert "overloaded" in as_json(small, "--scenario", "server", "--rate", rate)["flags"]
    assert "queue grew" in bench(small, "--scenario", "server", "--rate", rate)


def test_the_profile_names_every_node(small: Path) -> None:
    (node,) = as_json(small, "--profile")["profile"]
    assert (node["op"], len(node["runs_s"])) == ("Add", 60)
    assert re.search(r"Add\s+1\s+.*100\.0%", bench(small, "--profile"))


def test_samples_and_plots_are_written_where_asked(small: Path, large: Path, base: Path) -> None:
    bench(small, large, "--samples", base / "s.npz", "--plot", base / "p.png")
    with np.load(base / "s.npz") as kept:
        assert {f"{i}.4.{key}" for i in (0, 1) for key in ("wall_ns", "sitting")} <= set(kept.files)
    assert (base / "p.png").read_bytes().startswith(b"\x89PNG")
    asked = ("--samples", base / "r.npz", "--plot", base / "r.svg")
    bench(small, "--scenario", "server", "--rate", "500", *asked)
    with np.load(base / "r.npz") as kept:
        assert kept["0.0.latency_s"].size == 1500
    assert "<svg" in (base / "r.svg").read_text()


def test_a_reference_off_its_history_is_flagged(
    small: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(6):
        assert "reference_drift" not in as_json(small, "--time", "1s")["models"][0]["flags"]
    monkeypatch.setattr("harness_backends.testing.fake.FIXED_NS", 400_000)
    assert "reference_drift" in as_json(small, "--time", "1s")["models"][0]["flags"]


def test_the_frozen_reference_is_the_frozen_file(small: Path, base: Path) -> None:
    import hashlib

    bench(small, "--time", "1s")
    data = (base / "cache" / "reference.onnx").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256
    (base / "cache" / "reference.onnx").write_bytes(data[:100])
    bench(small, "--time", "1s")
    assert (base / "cache" / "reference.onnx").read_bytes() == data


def test_the_doctor_says_what_it_found(base: Path) -> None:
    ended = call("doctor", "--target", "fake", "--pairs", "3", "--plot", str(base / "w.png"))
    text = ended.stdout
    assert "called different in 0 of 3 pairs" in text
    assert "found in 1 of 1" in text
    assert "verdict" in text
    assert (base / "w.png").stat().st_size > 0


def test_the_doctors_json_is_whole(base: Path) -> None:
    found = json.loads(call("doctor", "--target", "fake", "--pairs", "2", "--json").stdout)
    assert found["test"]["false_alarms"]["of"] == 2
    assert found["test"]["planted_ratios"] == [pytest.approx(1.05, rel=0.01)]
    assert found["fitness"] in ("fit", "fit with care")
    assert {curve["operator"] for curve in found["curves"]} >= {"conv3x3", "conv1x1", "linear"}


def test_the_doctor_refuses_what_it_can_not_examine() -> None:
    assert "no host" in call("doctor", "--target", "jetson", code=2).stderr
    assert "'0'" in call("doctor", "--target", "fake", "--threads", "0", code=2).stderr
