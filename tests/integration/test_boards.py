"""The product against a board behind a real sshd: an emulated ARM Python that runs ONNX Runtime.

What is timed under emulation is no latency: these tests look at everything but the milliseconds.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from harness.candidate import OnnxModel
from harness.compression.quantisation.convert import converted, takes_full_range
from harness.compression.quantisation.precision import Precision
from harness.errors import (
    BackendUnavailable,
    CandidateFailed,
    ConnectionLost,
    DeviceLost,
    DeviceUnreachable,
)
from harness.export import export_onnx
from harness.measurement import hostlock
from harness.measurement.hostlock import HostLock
from harness.measurement.persevering import persevere
from harness.measurement.rounds import Plan, measure
from harness.measurement.types import Measurement, Subject
from harness.target import Target
from harness_backends.base import Backend
from harness_backends.emulation.root import ArmRoot
from harness_backends.onnxruntime import OnnxRuntimeBackend
from harness_backends.testing.contract import (
    INPUT,
    BackendContract,
    linear_model,
    model_at,
    one_batch,
)
from harness_backends.transport import device as device_module
from harness_backends.transport import link, ssh
from support.board.loopback import Loopback
from support.board.machine import Board

TARGET = Target("pi", "onnxruntime", hosts=("board",))
BRIEF = Plan(processes=(2,), sittings=(6,), half_width=0.5, limit_s=0.1)
_MADE: list[OnnxRuntimeBackend] = []


def on_the_board() -> OnnxRuntimeBackend:
    """Return a backend whose connection ends with the test, whatever a traceback still holds."""
    _MADE.append(OnnxRuntimeBackend(TARGET))
    return _MADE[-1]


@contextmanager
def found(board: Loopback) -> Iterator[Loopback]:
    """Have ssh find a board; at the end nothing may be running there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", board.environment["PATH"])
        patch.setattr(hostlock, "FOLDER", board.board.home / "tmp")  # a machine of its own
        yield board
        for backend in _MADE:
            for device in backend._devices:
                if device._link is not None:
                    device._link.close()
        _MADE.clear()
        assert board.board.wait_until_idle(30) == []


@pytest.fixture
def reached(ssh_board: Loopback) -> Iterator[Loopback]:
    """A board of the test's own."""
    with found(ssh_board) as board:
        yield board


class TestOverSsh(BackendContract):
    """The contract of every backend, over ssh; one worker for all, since each takes seconds."""

    @pytest.fixture(scope="class")
    @classmethod
    def worker(cls, arm_root: ArmRoot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        board = Board(tmp_path_factory.mktemp("contract") / "board", arm_root)
        with (
            closing(board),
            closing(Loopback(board)) as loopback,
            found(loopback),
            on_the_board().open() as worker,
        ):
            yield worker


def timed(
    backend: Backend, tmp_path: Path, plan: Plan = BRIEF, **files: Any
) -> dict[str, Measurement]:
    models = {"dense": linear_model(tmp_path / "dense.onnx", 2.0), **files}
    subjects = {name: Subject(model, one_batch()) for name, model in models.items()}
    lock = backend.device_lock(HostLock(tmp_path))
    return measure(backend.open, subjects, "dense", plan, lock.exclusive)


@contextmanager
def when(ready: Callable[[], bool], act: Callable[[], None]) -> Iterator[None]:
    """Act in the background as soon as something is the case; it has to happen."""
    acted = threading.Event()

    def wait() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if ready():
                act()
                acted.set()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    yield
    thread.join()
    assert acted.is_set()


# What goes right.


def test_a_board_says_what_it_is_and_infers(reached: Loopback, tmp_path: Path) -> None:
    with on_the_board().open() as worker:
        machine = worker.facts["machine"]
        assert machine["architecture"] == "aarch64"
        assert machine["device_model"] == "Raspberry Pi 5 Model B Rev 1.0"
        assert machine["cpu_model"] == "Cortex-A76"
        state = worker.state()
        assert (state["governor"], state["max_khz"], state["throttled"]) == (
            "ondemand", 2_400_000, [],
        )  # fmt: skip
        session = worker.load(linear_model(tmp_path / "m.onnx", 3.0), one_batch())
        inputs = np.arange(40, dtype=np.float32).reshape(10, 4)
        np.testing.assert_array_equal(session.infer({INPUT: inputs})[0], 3 * inputs)


def test_a_model_and_samples_go_over_the_line_once(reached: Loopback, tmp_path: Path) -> None:
    kept = reached.board.home / ".cache/latency-harness/sent"
    backend, model = on_the_board(), linear_model(tmp_path / "m.onnx", 3.0)
    for _ in range(2):
        with backend.open() as worker:
            worker.load(model, one_batch()).infer(one_batch())
    assert sorted(path.stat().st_size for path in kept.iterdir()) == sorted(
        (model.path.stat().st_size, one_batch()[INPUT].nbytes)
    )
    used = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    with backend.open() as worker:
        worker.load(model, one_batch())
    assert (kept / model.sha256).stat().st_mtime_ns > used[model.sha256]


def test_nothing_is_left_running_when_the_search_ends(reached: Loopback) -> None:
    backend = OnnxRuntimeBackend(TARGET)
    worker = backend.open()
    assert len(reached.board.pids()) >= 2
    del worker, backend
    assert reached.board.wait_until_idle(20) == []


def test_what_rc_files_print_is_skipped(reached: Loopback) -> None:
    reached.board.change(noise="Welcome to Board OS 12\nYou have mail.\n" * 20)
    with on_the_board().open() as worker:
        assert worker.facts["machine"]["architecture"] == "aarch64"


def test_two_clients_never_time_at_once(reached: Loopback, tmp_path: Path) -> None:
    backends = [on_the_board(), on_the_board()]
    locks = [backend.device_lock(HostLock(tmp_path)) for backend in backends]
    inside, overlaps = [0], [0]

    def work(number: int) -> None:
        for _ in range(4):
            with locks[number].exclusive():
                inside[0] += 1
                overlaps[0] += inside[0] > 1
                time.sleep(0.05)
                inside[0] -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [0]


def test_a_board_that_is_held_back_and_cores_that_are_off_are_flagged(
    reached: Loopback, tmp_path: Path
) -> None:
    backend, board, once = on_the_board(), reached.board, replace(BRIEF, processes=(1,))
    assert not {"throttled", "cores_offline"} & set(timed(backend, tmp_path, once)["dense"].flags)
    board.throttle(0x1)
    board.take_cores_offline("0-1")
    flags = timed(backend, tmp_path, once)["dense"].flags
    assert {"throttled", "cores_offline"} <= set(flags)
    assert "frequency_capped" not in flags


# What goes wrong on the way.


def test_a_link_that_is_cut_while_timing_costs_the_process_in_flight(
    reached: Loopback, tmp_path: Path
) -> None:
    backend, board = on_the_board(), reached.board
    first = backend._devices[0].link()
    with when(lambda: len(board.pids()) > 3, reached.kill_connections):
        measured = timed(backend, tmp_path)["dense"]
    assert measured.stats.n_processes == 2
    assert backend._devices[0].link() is not first


def test_a_cut_link_ends_what_ran_there_and_frees_the_lock(
    reached: Loopback, tmp_path: Path
) -> None:
    backend = on_the_board()
    lock = backend.device_lock(HostLock(tmp_path))
    with lock.exclusive():
        worker = backend.open()
        reached.kill_connections()
        assert reached.board.wait_until_idle(20) == []
        with pytest.raises(ConnectionLost, match="connection to board was lost"):
            worker.state()
        other = on_the_board().device_lock(HostLock(tmp_path))
        with other.exclusive():
            pass


def test_a_line_that_falls_silent_is_noticed_and_what_ran_there_ends(
    reached: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither side hears of the other's end: both have to find out by themselves."""
    monkeypatch.setattr(ssh, "WATCHDOG_S", 5.0)
    monkeypatch.setitem(ssh._OPTIONS, "ServerAliveInterval", "1")
    monkeypatch.setattr(link, "PING_S", 1.0)
    worker = on_the_board().open()
    reached.freeze_connections()
    worker.channel.timeout_s = 300.0  # it is the silence that is noticed, before that
    with pytest.raises(ConnectionLost, match="connection to board was lost"):
        worker.state()
    assert reached.board.wait_until_idle(30) == []
    reached.kill_connections()


def test_a_board_that_is_started_anew_is_waited_for_and_measured_from_the_beginning(
    reached: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_PAUSE_S", 0.2)
    backend, board = on_the_board(), reached.board
    with backend.open() as worker:
        first = worker.facts["machine"]["boot_id"]

    def restart() -> None:
        reached.stop()
        reached.reboot()
        time.sleep(1.5)
        reached.start()

    with when(lambda: len(board.pids()) > 3, restart):
        measured = timed(backend, tmp_path)["dense"]
    assert measured.stats.n_processes == 2
    with backend.open() as worker:
        assert worker.facts["machine"]["boot_id"] != first


def test_a_board_that_stays_away_ends_the_work_with_what_to_do(
    reached: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "PATIENCE_S", 0.5)
    monkeypatch.setattr(device_module, "_PAUSE_S", 0.2)
    backend = on_the_board()
    with backend.open():
        reached.kill_connections()
        reached.stop()
    with pytest.raises(DeviceUnreachable, match="board: it is there, but no ssh server answers"):
        backend.open()


def test_another_board_under_the_same_name_is_refused(
    reached: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_the_board()
    with backend.open():
        pass
    reached.board.write("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    reached.kill_connections()
    with pytest.raises(DeviceUnreachable, match="another machine: device_model Raspberry Pi 5"):
        persevere(backend.open)


# What goes wrong before it begins.


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("change_host_key", "host key is not the one that ssh knows"),
        ("forget_host", "its host key is not known here. Run `ssh board` once"),
        ("refuse_key", "it refused the login. Run `ssh-copy-id board` once"),
        ("stop", "no ssh server answers"),
    ],
)
def test_a_board_that_can_not_be_reached_is_told_with_what_to_do(
    reached: Loopback, fault: str, words: str
) -> None:
    getattr(reached, fault)()
    with pytest.raises(DeviceUnreachable, match=words):
        on_the_board().open()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"python": False}, "python3 on board can't be used: .*not found.* --python PATH"),
        ({"python_version": (3, 6, 9)}, "Python 3.8 or newer is needed, this is 3.6.9"),
        (
            {"runtime": False},
            "No module named 'numpy'. Install .* for it there.*--python PATH",
        ),
        ({"runtime_version": "1.10.0"}, "ONNX Runtime 1.10.0 on board is too old.*1.12 or newer"),
    ],
    ids=["no python", "old python", "no runtime", "old runtime"],
)
def test_what_is_missing_on_a_board_is_told_with_what_to_do(
    reached: Loopback, change: dict[str, Any], words: str
) -> None:
    reached.board.change(**change)
    with pytest.raises(BackendUnavailable, match=words):
        on_the_board().open()


def test_the_oldest_python_that_is_taken_is_taken(reached: Loopback) -> None:
    reached.board.change(python_version=(3, 8, 10))
    with on_the_board().open() as worker:
        assert worker.facts["python"] == "3.8.10"


# What goes wrong on the board itself.


def test_a_full_disk_is_told_and_the_board_goes_on(reached: Loopback, tmp_path: Path) -> None:
    reached.board.change(disk_bytes=200_000)
    large = tmp_path / "large.onnx"
    large.write_bytes(os.urandom(600_000))
    with on_the_board().open() as worker:
        with pytest.raises(DeviceUnreachable, match=r"could not keep 0\.6 MB .*Free some space"):
            worker.load(model_at(large), one_batch())
        small = worker.load(linear_model(tmp_path / "m.onnx", 2.0), one_batch())
        assert small.infer(one_batch())[0][0, 0] == 2.0


def test_a_cpu_that_lacks_an_instruction_costs_the_model_and_the_next_one_runs(
    reached: Loopback, tmp_path: Path
) -> None:
    """The board says that it has dot products, as its files are a newer CPU's, and has none."""
    reached.board.change(cpu="cortex-a53")
    backend, (model, samples) = on_the_board(), int8_model(tmp_path)
    with backend.open() as worker:
        worker.load(linear_model(tmp_path / "m.onnx", 2.0), one_batch())
        with pytest.raises(DeviceLost, match="SIGILL: the runtime uses instructions"):
            worker.load(model, {INPUT: samples[:1]})
    made = backend._devices[0].link()
    with backend.open() as worker:
        worker.load(linear_model(tmp_path / "m.onnx", 2.0), one_batch())
    assert backend._devices[0].link() is made  # the connection was not to blame


def test_an_int8_file_computes_the_same_on_the_board_and_here(
    reached: Loopback, tmp_path: Path
) -> None:
    model, samples = int8_model(tmp_path)
    here = OnnxRuntimeBackend(Target("here", "onnxruntime"))
    outputs = []
    for backend in (here, on_the_board()):
        with backend.open() as worker:
            session = worker.load(model, {INPUT: samples[:1]})
            outputs.append(session.infer({INPUT: samples})[0])
    np.testing.assert_array_equal(*outputs)
    assert len(np.unique(outputs[0])) > 20


def int8_model(folder: Path) -> tuple[OnnxModel, NDArray[np.float32]]:
    """Return a small network as the product writes it in int8, and samples `[64, 3, 8, 8]`."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 24, 3, stride=2), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(24, 10),
    ).eval()  # fmt: skip
    samples = torch.randn(64, 3, 8, 8)
    export_onnx(network, samples[:1], folder / "float.onnx", INPUT)
    with OnnxRuntimeBackend(Target("here", "onnxruntime")).open() as worker:
        full_range = takes_full_range(worker.facts["machine"]["cpu_flags"])
    data = converted(
        (folder / "float.onnx").read_bytes(), Precision("int8"), samples.numpy(), INPUT, full_range
    )
    (folder / "int8.onnx").write_bytes(data)
    return model_at(folder / "int8.onnx"), samples.numpy()


def test_a_worker_that_hangs_is_ended_and_the_connection_goes_on(
    reached: Loopback, tmp_path: Path
) -> None:
    backend = on_the_board()
    with backend.open() as worker:
        os.kill(worker.facts["pid"], signal.SIGSTOP)
        worker.channel.timeout_s = 1.0
        with pytest.raises(DeviceLost, match="did not answer within 1 s; it was ended"):
            worker.state()
    with backend.open() as worker:
        assert worker.state()["governor"] == "ondemand"


def test_memory_that_runs_out_costs_the_model(reached: Loopback, tmp_path: Path) -> None:
    reached.board.change(memory_bytes=1 << 32)
    path = tmp_path / "wide.onnx"
    _write_wide_model(path, 1 << 31)
    with pytest.raises(CandidateFailed) as caught:
        timed(on_the_board(), tmp_path, wide=model_at(path))
    assert caught.value.subject == "wide"


def _write_wide_model(path: Path, columns: int) -> None:
    """Write a model that asks for 16 bytes per column while it runs."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Expand", [INPUT, "shape"], ["wide"]),
            helper.make_node("ReduceSum", ["wide"], ["output"], keepdims=1),
        ],
        "wide",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 1])],
        [helper.make_tensor("shape", TensorProto.INT64, [3], [columns, 1, 4])],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


def test_a_connection_that_is_lost_every_time_ends_the_work(reached: Loopback) -> None:
    backend = on_the_board()

    def work() -> None:
        with backend.open() as worker:
            reached.kill_connections()
            worker.state()

    with pytest.raises(DeviceUnreachable, match="3 times in a row"):
        persevere(work)
