from __future__ import annotations

import ast
import glob
import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.candidate import OnnxModel
from harness.errors import BackendError, ConfigError, DeviceLost
from harness.target import Target
from harness_backends import bundle
from harness_backends.agent import frames, machine, process, runtimes, timing
from harness_backends.bundle import OLDEST_PYTHON, sources
from harness_backends.onnxruntime import OnnxRuntimeBackend, OnnxRuntimeWorker, _by_run
from harness_backends.testing.contract import INPUT, linear_model, model_at, one_batch

SOURCES = dict(sources())
STDLIB = sys.stdlib_module_names


@pytest.mark.parametrize("name", SOURCES)
def test_it_is_written_in_the_grammar_of_the_oldest_python(name: str) -> None:
    ast.parse(SOURCES[name], feature_version=OLDEST_PYTHON)


def test_it_needs_nothing_newer_than_the_oldest_python_has(tmp_path: Path) -> None:
    for name, text in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(text)
    version = ".".join(map(str, OLDEST_PYTHON))
    looked = subprocess.run(
        [Path(sys.executable).with_name("vermin"), "--no-tips", "--violations", f"-t={version}-",
         tmp_path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert looked.returncode == 0, looked.stdout


def test_every_module_is_sent_after_what_it_imports_and_needs_the_standard_library_alone() -> None:
    sent: set[str] = set()
    for name, text in SOURCES.items():
        for node in ast.parse(text).body:
            imported = set()
            if isinstance(node, ast.Import):
                imported = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                own = {f"{node.module}.{alias.name}" for alias in node.names}
                imported = own & set(SOURCES) or {str(node.module)}
            assert {one for one in imported if one.partition(".")[0] not in STDLIB} <= sent, name
        sent.add(name)


def test_only_a_worker_imports_a_runtime() -> None:
    document = json.loads(bundle.document({}))
    assert document["main"] == "harness_backends.agent.supervisor"
    for name, text in SOURCES.items():
        assert not re.search(r"^(import|from) (numpy|onnxruntime)", text, re.M), name


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
    header, blob = frames.pack(np, list(arrays.items()))
    back = frames.unpack(np, header["arrays"], blob)
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(back[name].reshape(np.shape(array)), array)


def test_unpacked_arrays_can_be_written_to() -> None:
    header, blob = frames.pack(np, [("a", np.zeros(3))])
    frames.unpack(np, header["arrays"], blob)["a"][0] = 1.0


def test_frames_follow_each_other() -> None:
    sent = [({"op": "load", "text": "µ\n"}, b"\x00\xff" * 9), ({}, b""), ({"n": 1}, b"x")]
    stream = io.BytesIO()
    mouth = frames.Mouth(stream)
    for header, blob in sent:
        mouth.say(header, blob)
    stream.seek(0)
    assert [frames.read_frame(stream.read) for _ in sent] == sent
    assert frames.read_frame(stream.read) is None


@pytest.mark.parametrize("header", [{"op": "load"}, {"op": "load", "key": "µ"}])
def test_a_frame_cut_anywhere_is_the_end_and_no_half_frame(header: dict[str, Any]) -> None:
    whole = frames.frame(header, b"12345")
    for length in range(len(whole)):
        assert frames.read_frame(io.BytesIO(whole[:length]).read) is None
    assert frames.read_frame(io.BytesIO(whole).read) == (header, b"12345")


@pytest.mark.parametrize(
    "sent",
    [b"\xff" * 16, frames.SIZES.pack(5, 0) + b"no jo", frames.SIZES.pack(4, 0) + b"null"],
    ids=["sizes", "no JSON", "no header"],
)
def test_what_is_no_frame_is_refused(sent: bytes) -> None:
    with pytest.raises(frames.NotTheProtocol):
        frames.read_frame(io.BytesIO(sent).read)


def test_an_ear_reads_what_comes_in_pieces_and_knows_how_long_it_has_heard_nothing() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as out:
        ear = frames.Ear(stream)
        silences: list[float] = []

        def speak() -> None:
            silences.append(ear.silence_s)
            out.write(b"cd")

        threading.Timer(0.05, speak).start()
        out.write(b"ab")
        assert ear.read(4) == b"abcd"
        assert silences[0] > 0
        assert ear.silence_s == 0  # nobody listens


def test_a_block_has_one_figure_per_call_of_each_kind() -> None:
    called = []
    for one_thread in (True, False):
        called.clear()
        block = timing.time_block(np, lambda: called.append(1), 5, one_thread)
        assert block.shape == (3, 5)
        assert block.dtype == np.int64
        assert len(called) == 5
        assert (block >= 0).all()


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_repeated_call_is_so_many_calls(times: int) -> None:
    called: list[int] = []
    timing.repeated(lambda: called.append(1), times)()
    assert len(called) == times


def test_arrivals_are_served_in_order_and_none_before_it_is_due() -> None:
    called = []
    due = [0, 0, 200_000, 2_000_000, 2_000_001, 2_100_000]
    served = timing.serve_arrivals(np, lambda: called.append(1), due)
    assert served.shape == (3, 6)
    assert served.dtype == np.int64
    told, begun, done = served
    assert told.tolist() == due
    assert (begun >= told).all()
    assert (done >= begun).all()
    assert (begun[1:] >= done[:-1]).all()
    assert len(called) == 6


def test_arrivals_that_come_faster_than_they_are_served_wait_their_turn() -> None:
    _, begun, done = timing.serve_arrivals(np, lambda: time.sleep(0.002), [0] * 5)
    assert (begun[1:] >= done[:-1]).all()
    assert begun[-1] >= 4 * 2_000_000


def test_an_arrival_that_comes_late_between_two_looks_at_the_clock_is_served_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = itertools.count(0, 400_000)  # something else has the CPU for most of the time
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(looks))
    told, begun, done = timing.serve_arrivals(np, lambda: None, [0, 1_000_000, 2_500_000])
    assert (begun >= told).all()
    assert (done > begun).all()


def test_no_arrival_is_none_served() -> None:
    assert timing.serve_arrivals(np, lambda: None, []).shape == (3, 0)


def test_the_clock_is_told_with_its_step_and_its_cost() -> None:
    facts = timing.timer_facts(np)
    assert facts["resolution_ns"] >= 1
    assert facts["overhead_ns"] > 0


def event(name: str, op: str, micros: int, cat: str = "Node") -> dict[str, Any]:
    return {"cat": cat, "name": name, "dur": micros, "args": {"op_name": op}}


def test_a_profile_is_read_node_by_node_and_run_by_run() -> None:
    events = [
        {"cat": "Session", "name": "model_run", "dur": 900, "args": {}},
        event("conv1_fence_before", "Conv", 1),
        event("conv1_kernel_time", "Conv", 30),
        event("a/b_kernel_time", "Gemm", 7),
        event("conv1_kernel_time", "Conv", 20),
        event("a/b_kernel_time", "Gemm", 0),
        event("thread_kernel_time", "Conv", 5, cat="Threads"),
        {"ph": "M"},
    ]
    assert runtimes.node_times(events) == [
        {"name": "conv1", "op": "Conv", "us": [30, 20]},
        {"name": "a/b", "op": "Gemm", "us": [7, 0]},
    ]


def test_a_profile_of_nothing_has_no_nodes() -> None:
    assert runtimes.node_times([]) == []


@pytest.mark.parametrize(("us", "runs", "by_run"), [
    ([3, 4], 2, [3, 4]), ([1, 2, 3, 4, 5, 6], 2, [6, 15]), ([3, 3, 3], 2, [4.5, 4.5]),
])  # fmt: skip
def test_a_node_in_a_loop_takes_all_its_executions_in_a_run(
    us: list[int], runs: int, by_run: list[float]
) -> None:
    assert _by_run(us, runs) == pytest.approx([one * 1e-6 for one in by_run])


def test_a_file_that_changes_between_processes_is_refused(tmp_path: Path) -> None:
    model = linear_model(tmp_path / "m.onnx", 2.0)
    model.path.write_bytes(model.path.read_bytes() + b" ")
    with real() as worker, pytest.raises(ConfigError, match=r"m\.onnx was changed"):
        worker.load(model, one_batch())
    model.path.unlink()
    with real() as worker, pytest.raises(ConfigError, match=r"m\.onnx is missing"):
        worker.load(model, one_batch())


def test_an_unreadable_sensor_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "read_text", lambda path: None)
    monkeypatch.setattr(process, "read_text", lambda path: None)
    state = machine.machine_state()
    assert state.pop("clock_s") > 0
    assert set(state.values()) == {None}
    assert process.peak_memory() is None
    facts = machine.machine_facts()
    assert facts["cpu_model"] is None
    assert facts["cpu_count"] >= 1


def test_sensors_are_read_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/stat": "cpu  99 99 99 99 99 99 99 99 99 99\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
        "cpu1 10 20 30 40 50 60 70 80 90 100\ncpu10 9 9 9 9 9 9 9 9 9 9\nintr 5",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "3000000",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
        "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "0",
        "/proc/loadavg": "0.25 0.5 1 1/2 3",
        "/proc/pressure/cpu": "some avg10=1.53 avg60=2.03 avg300=1.60 total=186512\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=9",
        "/zone0/temp": "41000",
        "/zone1/temp": "-5000",
    }
    monkeypatch.setattr(machine, "read_text", files.get)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(glob, "glob", lambda pattern: ["/zone1/", "/zone0/"])
    state = machine.machine_state()
    assert (state["governor"], state["max_khz"], state["throttle_count"]) == (
        "performance", 3_000_000, 0,
    )  # fmt: skip
    assert (state["cpu_ticks"], state["steal_ticks"], state["load_1min"]) == (396, 88, 0.25)
    assert (state["stalled_us"], state["temperature_c"], state["khz"]) == (186_512, 41.0, None)


def test_sensors_are_those_of_every_cpu_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for cpu, governor, khz, throttles in (
        (0, "powersave", 1000, 90), (2, "performance", 3000, 4), (3, "performance", 2000, 5),
    ):  # fmt: skip
        folder = f"/sys/devices/system/cpu/cpu{cpu}/"
        files[folder + "cpufreq/scaling_governor"] = governor
        files[folder + "cpufreq/scaling_max_freq"] = str(khz)
        files[folder + "cpufreq/scaling_cur_freq"] = str(khz - 500)
        files[folder + "thermal_throttle/core_throttle_count"] = str(throttles)
    monkeypatch.setattr(machine, "read_text", files.get)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3})
    state = machine.machine_state()
    assert (state["governor"], state["max_khz"], state["khz"], state["throttle_count"]) == (
        "performance", 2000, 1500, 9,
    )  # fmt: skip
    files["/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor"] = "powersave"
    assert machine.machine_state()["governor"] == "performance,powersave"


@pytest.mark.parametrize(
    ("text", "now", "since_start"),
    [
        ("0", [], []),
        ("50005", ["under-voltage", "throttled"], ["under-voltage", "throttled"]),
        ("0x80000", [], ["soft temperature limit"]),
        ("broken", None, None),
        (None, None, None),
    ],
)
def test_a_raspberry_pi_says_what_holds_it_back(
    monkeypatch: pytest.MonkeyPatch, text: str | None, now: Any, since_start: Any
) -> None:
    monkeypatch.setattr(machine, "read_text", {machine.THROTTLED: text}.get)
    state = machine.machine_state()
    assert (state["throttled"], state["throttled_since_start"]) == (now, since_start)


def test_a_jetson_says_its_power_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
        "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        machine.CPUS + "online": "0-3",
        machine.CPUS + "present": "0-5",
    }
    monkeypatch.setattr(machine, "read_text", files.get)
    state, facts = machine.machine_state(), machine.machine_facts()
    assert (state["power_mode"], state["cpus_online"], state["cpus_present"]) == (
        "0002", "0-3", "0-5",
    )  # fmt: skip
    assert facts["device_model"] == "NVIDIA Jetson Orin Nano Developer Kit"


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "sensor").write_text(" 5\n")
    assert machine.read_text(str(tmp_path / "sensor")) == "5"
    assert machine.read_text(str(tmp_path / "absent")) is None


def test_the_peak_of_the_memory_is_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    status = "Name:\tpython\nVmPeak:\t  99 kB\nVmHWM:\t  2048 kB\nVmRSS:\t 12 kB"
    monkeypatch.setattr(process, "read_text", lambda path: status)
    assert process.peak_memory() == 2048 * 1024


# The real agent, with the real runtime in it.


def real(**options: Any) -> OnnxRuntimeWorker:
    return OnnxRuntimeBackend(Target("here", "onnxruntime", **options)).open()


def process_file(worker: OnnxRuntimeWorker, name: str) -> str:
    return Path(f"/proc/{worker.facts['pid']}/{name}").read_text()


def matmul_model(path: Path, width: int) -> OnnxModel:
    """Write a model of two nodes that multiplies `[1, 4]` with `[4, width]`."""
    weights = np.full((4, width), 0.5, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [INPUT, "weights"], ["wide"], "multiply"),
            helper.make_node("ReduceMax", ["wide"], ["output"], "reduce", axes=[1]),
        ],
        "wide",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return model_at(path)


def test_the_agent_stays_on_the_cpus_that_it_is_given() -> None:
    last = max(os.sched_getaffinity(0))
    with real(affinity=(last,)) as worker:
        assert f"Cpus_allowed_list:\t{last}\n" in process_file(worker, "status")


def test_an_affinity_for_a_cpu_that_is_not_there_is_refused() -> None:
    for cpus in ((1000,), (min(os.sched_getaffinity(0)), 1000)):
        with pytest.raises(ConfigError, match=re.escape(f"affinity {list(cpus)}")):
            real(affinity=cpus).close()


def test_the_agent_is_the_first_to_go_when_memory_runs_out() -> None:
    with real() as worker:
        assert process_file(worker, "oom_score_adj") == "1000\n"
    assert Path("/proc/self/oom_score_adj").read_text() != "1000\n"


@pytest.mark.parametrize("use", ["load", "profile"])
def test_an_unknown_provider_is_refused_with_the_known_ones(use: str, tmp_path: Path) -> None:
    model = linear_model(tmp_path / "m.onnx", 2.0)
    message = r"m\.onnx on target 'here'.*'MagicProvider'.*CPUExecutionProvider"
    with real(provider="MagicProvider") as worker:
        with pytest.raises(BackendError, match=message) as caught:
            worker.load(model, one_batch()) if use == "load" else worker.profile(
                model, one_batch(), 1
            )
        assert not isinstance(caught.value, DeviceLost)
        assert worker.state()["clock_s"] > 0


def test_options_reach_the_runtime(tmp_path: Path) -> None:
    model = linear_model(tmp_path / "m.onnx", 2.0)
    known = {"session.intra_op.allow_spinning": "0"}
    with real(session_config=known, provider_options={"use_arena": "1"}, threads=2) as worker:
        out = worker.load(model, one_batch()).infer(one_batch())
        assert out[0].tolist() == [[2.0] * 4]
    with (
        real(session_config={"session.intra_op_thread_affinities": "x"}, threads=2) as worker,
        pytest.raises(BackendError, match=r"m\.onnx on target 'here'"),
    ):
        worker.load(model, one_batch())


def test_a_large_model_has_a_higher_peak_than_a_tiny_one(tmp_path: Path) -> None:
    def peak(width: int) -> int:
        with real() as worker:
            session = worker.load(matmul_model(tmp_path / f"{width}.onnx", width), one_batch())
            worker.time([(session, 4)])
            found = worker.peak_memory_bytes()
        assert found is not None
        return found

    assert peak(15_000_000 // 4) - peak(4) > 30 * 2**20


def test_a_reload_takes_the_times_anew_and_keeps_the_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with real() as worker:
        session = worker.load(linear_model(path, 2.0), one_batch())
        path.unlink()
        for _ in range(3):
            session.session_create_s = session.first_inference_s = -1.0
            worker.reload(session)
            assert session.session_create_s > 0
            assert session.first_inference_s > 0
            assert session.infer(one_batch())[0].tolist() == [[2.0] * 4]


def test_a_reload_of_one_session_leaves_the_others(tmp_path: Path) -> None:
    with real() as worker:
        two = worker.load(linear_model(tmp_path / "2.onnx", 2.0), one_batch())
        three = worker.load(linear_model(tmp_path / "3.onnx", 3.0), one_batch())
        worker.reload(two)
        assert three.infer(one_batch())[0][0, 0] == 3.0
        assert two.infer(one_batch())[0][0, 0] == 2.0
        assert [len(block.wall_ns) for block in worker.time([(three, 2), (two, 5)])] == [2, 5]


def test_the_runtimes_profile_lists_the_nodes(tmp_path: Path) -> None:
    with real() as worker:
        nodes = worker.profile(matmul_model(tmp_path / "m.onnx", 10_000), one_batch(), 5)
    assert [(node.op, len(node.runs_s)) for node in nodes] == [("MatMul", 5), ("ReduceMax", 5)]
    assert "multiply" in nodes[0].name
    assert sum(nodes[0].runs_s) > 0


def test_a_profile_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    model = linear_model(tmp_path / "m.onnx", 2.0)
    with real() as worker:
        worker.load(model, one_batch())
        worker.profile(model, one_batch(), 2)
        assert list(tmp_path.iterdir()) == [tmp_path / "m.onnx"]


def test_requests_arrive_at_the_real_runtime(tmp_path: Path) -> None:
    due = np.array([0, 0, 1_000_000, 3_000_000], np.int64)
    with real() as worker:
        session = worker.load(linear_model(tmp_path / "m.onnx", 2.0), one_batch())
        told, begun, done = worker.arrive(session, due)
    assert told.tolist() == due.tolist()
    assert (begun >= told).all()
    assert (done > begun).all()
    assert (begun[1:] >= done[:-1]).all()
