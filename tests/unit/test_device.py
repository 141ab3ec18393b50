from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConnectionLost, DeviceLost, DeviceUnreachable
from harness.measurement.hostlock import HostLock
from harness.measurement.persevering import persevere
from harness_backends.transport import device as device_module
from harness_backends.transport.device import Device
from harness_backends.transport.launch import Launch, local
from harness_backends.transport.link import Link


@pytest.fixture
def here(tmp_path: Path) -> Launch:
    return replace(local(), locks=str(tmp_path), folder=str(tmp_path / "sent"))


def kill(device: Device) -> None:
    link = device.link()
    os.kill(link.hello["pid"], signal.SIGKILL)
    link._process.wait(10)


def test_a_link_is_made_once_and_anew_when_it_was_lost(here: Launch) -> None:
    device = Device(here)
    first = device.link()
    assert device.link() is first
    kill(device)
    second = device.link()
    assert second is not first
    assert second.alive


def test_a_link_that_was_lost_while_the_lock_was_held_is_not_made_anew(here: Launch) -> None:
    """Another may hold the lock by then."""
    device = Device(here)
    with device.exclusive():
        kill(device)
        with pytest.raises(ConnectionLost):
            device.link()
    with device.exclusive():
        assert device.link().alive


def test_who_holds_a_devices_lock_and_this_hosts_are_never_there_together(
    here: Launch, tmp_path: Path
) -> None:
    """A search on the board itself and one from elsewhere keep out of each other's way."""
    device, own = Device(here), HostLock(tmp_path)
    inside, overlaps = [0], [0]
    done = threading.Event()

    def local_work() -> None:
        while not done.is_set():
            with own.exclusive():
                inside[0] += 1
                overlaps[0] += inside[0] > 1
                time.sleep(0.002)
                inside[0] -= 1

    thread = threading.Thread(target=local_work)
    thread.start()
    for _ in range(20):
        with device.exclusive():
            inside[0] += 1
            overlaps[0] += inside[0] > 1
            time.sleep(0.002)
            inside[0] -= 1
    done.set()
    thread.join()
    assert overlaps == [0]


def test_those_who_score_share_the_lock(here: Launch) -> None:
    one, other = Device(here), Device(here)
    with one.shared(), one.shared(), other.shared():
        assert one.link().alive


def test_two_clients_take_turns(here: Launch) -> None:
    """One that lets go and asks again at once does not starve another that waits."""
    turns: list[int] = []
    devices = [Device(here), Device(here)]
    for device in devices:
        device.link()
    begin = threading.Barrier(2)

    def work(number: int) -> None:
        begin.wait()
        for _ in range(15):
            with devices[number].exclusive():
                turns.append(number)
                time.sleep(0.01)

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(len(list(run)) for _, run in itertools.groupby(turns)) < 15, turns


def test_who_waits_for_the_lock_is_told_so(
    here: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_LOCK_S", 0.05)
    device, told = Device(here), []
    own = HostLock(tmp_path)
    holding = own.exclusive()

    def tell(text: str) -> None:
        told.append(text)
        holding.__exit__(None, None, None)

    device.tell = tell
    holding.__enter__()
    with device.exclusive():
        assert told == ["waiting for this machine: something else is being timed there"]


def test_the_lock_is_free_when_its_holders_supervisor_dies(here: Launch, tmp_path: Path) -> None:
    device = Device(here)
    with device.exclusive():
        kill(device)
        with HostLock(tmp_path).exclusive():
            pass


def test_a_lock_that_can_not_be_opened_is_told(here: Launch, tmp_path: Path) -> None:
    device = Device(replace(here, locks=str(tmp_path / "none")))
    with (
        pytest.raises(DeviceUnreachable, match=r"timing lock can't be opened .*none"),
        device.exclusive(),
    ):
        pass


def scripted(tmp_path: Path, code: str) -> Launch:
    """Return a launch whose attempts run `code` with their number as `n`; `real` begins."""
    counter = tmp_path / "attempts"
    counter.write_text("")
    starter = (
        f"import os,sys; p={str(counter)!r}; n=len(open(p).read()); open(p,'a').write('x')\n"
        "def real(): os.execv(sys.executable, [sys.executable, '-u', '-c', sys.argv[1], "
        "sys.argv[2]])\n" + code
    )

    def argv(size: int) -> list[str]:
        return [sys.executable, "-c", starter, *local().argv(size)[-2:]]

    def explained(code: int | None, said: str) -> DeviceUnreachable:
        return DeviceUnreachable(f"code {code}: {said}", passing=code == 255)

    return replace(local(), argv=argv, far=True, explained=explained)


def attempts(tmp_path: Path) -> int:
    return len((tmp_path / "attempts").read_text())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_PAUSE_S", 0.05)
    monkeypatch.setattr(device_module, "PATIENCE_S", 5.0)


@pytest.mark.usefixtures("impatient")
def test_a_board_that_is_not_there_at_first_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnreachable, match="code 255"):
        Device(scripted(tmp_path, "sys.exit(255)")).link()
    assert attempts(tmp_path) == 1


@pytest.mark.usefixtures("impatient")
def test_a_board_that_starts_anew_is_waited_for(tmp_path: Path) -> None:
    device, told = Device(scripted(tmp_path, "sys.exit(255) if 0 < n < 4 else real()")), set()
    device.tell = told.add
    kill(device)
    assert device.link().alive
    assert told == {"waiting for this machine to come back"}
    assert attempts(tmp_path) == 5


@pytest.mark.usefixtures("impatient")
def test_what_does_not_pass_by_itself_is_not_waited_for(tmp_path: Path) -> None:
    device = Device(scripted(tmp_path, "sys.exit(1) if n else real()"))
    kill(device)
    with pytest.raises(DeviceUnreachable, match="code 1"):
        device.link()
    assert attempts(tmp_path) == 2


def test_a_board_that_does_not_come_back_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_PAUSE_S", 0.05)
    monkeypatch.setattr(device_module, "PATIENCE_S", 0.2)
    device = Device(scripted(tmp_path, "sys.exit(255) if n else real()"))
    kill(device)
    with pytest.raises(DeviceUnreachable, match="code 255"):
        device.link()


@pytest.mark.parametrize(("key", "value"), [("cpu_count", 3), ("power_mode", "0001")])
def test_another_machine_under_the_same_name_is_refused(
    here: Launch, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    device = Device(here)
    kill(device)
    greet = Link._greet

    def other(self: Link, *args: Any) -> dict[str, Any]:
        hello = greet(self, *args)
        return {**hello, "machine": {**hello["machine"], key: value}}

    monkeypatch.setattr(Link, "_greet", other)
    with pytest.raises(DeviceUnreachable, match=rf"another machine: {key} .* is now {value}"):
        device.link()


# Work that a lost connection interrupts.


def test_lost_work_is_done_again_from_its_beginning() -> None:
    tries: list[int] = []

    def work() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionLost("gone")
        return "done"

    assert persevere(work) == "done"
    assert len(tries) == 3


def test_a_connection_that_is_lost_every_time_is_no_candidates_fault() -> None:
    def work() -> None:
        raise ConnectionLost("The connection to pi was lost.")

    with pytest.raises(DeviceUnreachable, match=r"pi was lost\. That happened 3 times"):
        persevere(work)


def test_any_other_failure_is_not_tried_again() -> None:
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        raise DeviceLost("SIGILL")

    with pytest.raises(DeviceLost):
        persevere(work)
    assert len(tries) == 1
