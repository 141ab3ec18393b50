from __future__ import annotations

import ast
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness_backends import agent

SOURCE = Path(agent.__file__).read_text(encoding="utf-8")


def test_it_is_written_in_the_grammar_of_python_3_8() -> None:
    ast.parse(SOURCE, feature_version=(3, 8))


def test_it_needs_only_the_standard_library_to_start() -> None:
    imported = set()
    for node in ast.parse(SOURCE).body:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "arrays",
    [
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3)},
        {"a": np.array([1, 2], np.int64), "b": np.array([[True], [False]])},
        {"scalar": np.float64(2.5)},
        {"none": np.zeros((0, 3), np.float32), "after": np.array([7], np.uint8)},
        {"turned": np.arange(6, dtype=np.int16).reshape(2, 3).T},
        {"half": np.array([0.5], np.float16)},
        {},
    ],
    ids=["one", "two", "scalar", "empty", "strided", "half", "nothing"],
)
def test_arrays_survive_the_way(arrays: dict[str, Any]) -> None:
    header, blob = agent.pack(np, list(arrays.items()))
    back = agent.unpack(np, header["arrays"], blob)
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(back[name].reshape(np.shape(array)), array)


def test_unpacked_arrays_can_be_written_to() -> None:
    header, blob = agent.pack(np, [("a", np.zeros(3))])
    agent.unpack(np, header["arrays"], blob)["a"][0] = 1.0


def test_frames_follow_each_other() -> None:
    stream = io.BytesIO()
    sent = [({"op": "load", "text": "µ\n"}, b"\x00\xff" * 9), ({}, b""), ({"n": 1}, b"x")]
    for header, blob in sent:
        agent.write_frame(stream, header, blob)
    stream.seek(0)
    assert [agent.read_frame(stream) for _ in sent] == sent
    assert agent.read_frame(stream) is None


def test_a_frame_cut_anywhere_is_the_end_and_no_half_frame() -> None:
    stream = io.BytesIO()
    agent.write_frame(stream, {"op": "load"}, b"12345")
    whole = stream.getvalue()
    for length in range(len(whole)):
        assert agent.read_frame(io.BytesIO(whole[:length])) is None


def test_a_block_has_one_figure_per_call_of_each_kind() -> None:
    called = []
    for one_thread in (True, False):
        called.clear()
        block = agent.time_block(np, lambda: called.append(1), 5, one_thread)
        assert block.shape == (3, 5)
        assert block.dtype == np.int64
        assert len(called) == 5
        assert (block >= 0).all()


def test_an_unreadable_sensor_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "read_text", lambda path: None)
    assert set(agent.machine_state().values()) == {None}
    facts = agent.machine_facts()
    assert facts["cpu_model"] is None
    assert facts["cpu_count"] >= 1


def test_sensors_are_read_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/stat": "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "3000000",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
        "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "0",
        "/proc/loadavg": "0.25 0.5 1 1/2 3",
    }
    monkeypatch.setattr(agent, "read_text", files.get)
    state = agent.machine_state()
    assert (state["governor"], state["max_khz"], state["throttle_count"]) == (
        "performance", 3_000_000, 0,
    )  # fmt: skip
    assert (state["cpu_ticks"], state["steal_ticks"], state["load_1min"]) == (360, 80, 0.25)


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "sensor").write_text(" 5\n")
    assert agent.read_text(str(tmp_path / "sensor")) == "5"
    assert agent.read_text(str(tmp_path / "absent")) is None
