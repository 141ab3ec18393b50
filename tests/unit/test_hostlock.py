from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from harness.measurement.hostlock import HostLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOLDER = """
import sys, time
from pathlib import Path
from harness.measurement.hostlock import HostLock
print("ready", flush=True)
with getattr(HostLock(Path(sys.argv[1])), sys.argv[2])():
    print("held", flush=True)
    time.sleep(60)
"""
LONG_S = 20.0


def start(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def holder(folder: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), mode], stdout=subprocess.PIPE, text=True
    )


def wait_until_gate_is_held(folder: Path) -> None:
    gate = os.open(folder / "latency-harness.gate", os.O_RDWR)
    deadline = time.monotonic() + LONG_S
    try:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(gate, fcntl.LOCK_UN)
            time.sleep(0.005)
    finally:
        os.close(gate)
    raise AssertionError("nobody waits for the lock")


def test_sharers_hold_it_together(tmp_path: Path) -> None:
    got_in = threading.Event()

    def share() -> None:
        with HostLock(tmp_path).shared():
            got_in.set()

    with HostLock(tmp_path).shared():
        start(share).join(LONG_S)
        assert got_in.is_set()


def test_timing_keeps_everybody_else_out(tmp_path: Path) -> None:
    got_in = threading.Event()

    def enter(mode: str) -> None:
        with getattr(HostLock(tmp_path), mode)():
            got_in.set()

    for mode in ("shared", "exclusive"):
        got_in.clear()
        with HostLock(tmp_path).exclusive():
            thread = start(lambda mode=mode: enter(mode))  # type: ignore[misc]
            wait_until_gate_is_held(tmp_path)
            assert not got_in.is_set()
        thread.join(LONG_S)
        assert got_in.is_set()


def test_waiting_timing_goes_before_sharers_that_come_later(tmp_path: Path) -> None:
    order: list[str] = []

    def timing() -> None:
        with HostLock(tmp_path).exclusive():
            order.append("timing")

    def training() -> None:
        with HostLock(tmp_path).shared():
            order.append("training")

    with HostLock(tmp_path).shared():
        first = start(timing)
        wait_until_gate_is_held(tmp_path)
        second = start(training)
        second.join(0.2)  # time enough to overtake, if that were possible
        assert order == []
    first.join(LONG_S)
    second.join(LONG_S)
    assert order == ["timing", "training"]


def test_breathing_lets_a_waiting_timing_pass(tmp_path: Path) -> None:
    order: list[str] = []

    def timing() -> None:
        with HostLock(tmp_path).exclusive():
            order.append("timing")

    lock = HostLock(tmp_path)
    with lock.shared():
        thread = start(timing)
        wait_until_gate_is_held(tmp_path)
        lock.breathe()
        order.append("training goes on")
    thread.join(LONG_S)
    assert order == ["timing", "training goes on"]


def test_after_breathing_the_lock_is_held_again(tmp_path: Path) -> None:
    got_in = threading.Event()

    def timing() -> None:
        with HostLock(tmp_path).exclusive():
            got_in.set()

    lock = HostLock(tmp_path)
    with lock.shared():
        lock.breathe()
        thread = start(timing)
        wait_until_gate_is_held(tmp_path)
        assert not got_in.is_set()
    thread.join(LONG_S)
    assert got_in.is_set()


def test_whoever_holds_it_can_take_it_again_while_a_timing_waits(tmp_path: Path) -> None:
    got_in, again = threading.Event(), threading.Event()

    def timing() -> None:
        with HostLock(tmp_path).exclusive():
            got_in.set()

    def training() -> None:
        lock = HostLock(tmp_path)
        with lock.shared():
            thread = start(timing)
            wait_until_gate_is_held(tmp_path)
            with lock.shared():
                again.set()
            assert not got_in.is_set()  # the outer hold is still there
        thread.join(LONG_S)

    start(training).join(LONG_S)
    assert again.is_set()
    assert got_in.is_set()


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    for mode in ("shared", "exclusive"):
        try:
            with getattr(HostLock(tmp_path), mode)():
                raise KeyError
        except KeyError:
            pass
    done = threading.Event()

    def timing() -> None:
        with HostLock(tmp_path).exclusive():
            done.set()

    start(timing).join(LONG_S)
    assert done.is_set()


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    got_in = threading.Event()

    def timing() -> None:
        with HostLock(tmp_path).exclusive():
            got_in.set()

    for mode in ("shared", "exclusive"):
        got_in.clear()
        with holder(tmp_path, mode) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "held\n"]
            thread = start(timing)
            wait_until_gate_is_held(tmp_path)
            assert not got_in.is_set()
            process.kill()
            thread.join(LONG_S)
            assert got_in.is_set()


def test_killing_one_that_waits_frees_the_gate(tmp_path: Path) -> None:
    got_in = threading.Event()

    def share() -> None:
        with HostLock(tmp_path).shared():
            got_in.set()

    with HostLock(tmp_path).shared(), holder(tmp_path, "exclusive") as process:
        wait_until_gate_is_held(tmp_path)
        process.kill()
        process.wait()
        start(share).join(LONG_S)
        assert got_in.is_set()


def test_other_users_of_the_host_can_lock_it_too(tmp_path: Path) -> None:
    HostLock(tmp_path)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o666}


def test_a_lock_that_is_no_longer_used_gives_its_descriptors_back(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with HostLock(tmp_path).exclusive():
            pass
    assert len(os.listdir("/proc/self/fd")) <= before + 1
