from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import BackendError, ConnectionLost, DeviceLost, DeviceUnreachable
from harness_backends.agent import frames
from harness_backends.transport import link as link_module
from harness_backends.transport.channel import Channel
from harness_backends.transport.launch import Launch, local
from harness_backends.transport.link import Link, NotKept, Silent
from support.running import is_gone

PRELUDE = f"""
import json, struct, sys, time, os
out = sys.stdout.buffer
def frame(header, blob=b""):
    text = json.dumps(header).encode()
    out.write(struct.pack(">II", len(text), len(blob)) + text + blob)
    out.flush()
def magic():
    out.write({frames.MAGIC!r})
def heard():
    sizes = struct.unpack(">II", sys.stdin.buffer.read(8))
    header = json.loads(sys.stdin.buffer.read(sizes[0]))
    return header, sys.stdin.buffer.read(sizes[1])
sys.stdin.buffer.read(int(sys.argv[-1]))
"""
HELLO = 'magic(); frame({"ok": True, "id": 0, "pid": os.getpid()})\n'
WAIT = "sys.stdin.buffer.read()\n"
LONG_S = 60.0


def scripted(tmp_path: Path, script: str) -> Launch:
    path = tmp_path / "agent.py"
    path.write_text(PRELUDE + script)
    python = (sys.executable, "-I", "-S", str(path))
    return replace(local(), argv=lambda size: [*python, str(size)])


def started(tmp_path: Path, script: str, hello_s: float | None = LONG_S) -> Link:
    return Link(scripted(tmp_path, script), hello_s)


def test_the_real_supervisor_says_where_it_is_and_ends_when_closed() -> None:
    with closing(Link(local())) as running:
        assert running.hello["machine"]["cpu_count"] >= 1
        assert running.alive
    assert not running.alive
    assert is_gone(running.hello["pid"])


def test_the_supervisor_imports_no_runtime() -> None:
    with closing(Link(local())) as running:
        maps = Path(f"/proc/{running.hello['pid']}/maps").read_text()
        assert "numpy" not in maps
        assert "onnxruntime" not in maps
        worker = Channel(running, "onnxruntime")
        assert "onnxruntime" in Path(f"/proc/{worker.hello['pid']}/maps").read_text()


def test_workers_are_started_and_not_forked_so_that_each_lies_elsewhere_in_memory() -> None:
    def program(pid: int) -> str:
        return Path(f"/proc/{pid}/maps").read_text().splitlines()[0].partition("-")[0]

    with closing(Link(local())) as running:
        pids = [running.hello["pid"]]
        pids += [Channel(running, "onnxruntime").hello["pid"] for _ in range(2)]
        assert len({program(pid) for pid in pids}) == 3


def test_a_runtime_that_is_missing_is_a_backend_error_and_not_a_lost_device() -> None:
    bare = replace(local(), worker=(sys.executable, "-I", "-S"))
    with closing(Link(bare)) as running:
        with pytest.raises(BackendError, match="ModuleNotFoundError") as caught:
            Channel(running, "onnxruntime")
        assert not isinstance(caught.value, DeviceLost)


def test_a_program_that_is_not_there_is_a_lost_device(tmp_path: Path) -> None:
    nothing = replace(local(), argv=lambda size: [str(tmp_path / "python"), str(size)])
    with pytest.raises(DeviceLost, match="could not be started"):
        Link(nothing)


def test_noise_before_the_protocol_is_skipped(tmp_path: Path) -> None:
    noise = "out.write(b'Welcome to board 7\\n' * 100 + b'\\x00HARNESS'); out.flush()\n"
    script = noise + HELLO + 'frame({"ok": True, "id": 1, "n": 1}, b"blob")\n' + WAIT
    with closing(started(tmp_path, script)) as running:
        assert running.request({"op": "state"}) == ({"n": 1}, b"blob")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("while True:\n    out.write(b'y\\n' * 1000)\n", "something else than the protocol"),
        ("out.write(b'garbage'); out.flush()\n", "ended with code 0"),
        ("raise ValueError('out of order')\n", r"ended with code 1\..*ValueError: out of order"),
        ("magic(); out.write(b'x' * 99); out.flush()\n" + WAIT, "something else than the protocol"),
        ('magic(); frame({"pid": 1})\n' + WAIT, "something else than the protocol"),
    ],
    ids=["endless noise", "noise and no more", "crash", "garbage after the marker", "no reply"],
)
def test_what_does_not_say_hello_is_a_lost_device(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(DeviceLost, match=words):
        started(tmp_path, script)


@pytest.mark.parametrize("script", ["", "magic(); out.flush()\n"], ids=["silent", "half"])
def test_a_hello_is_waited_for_as_long_as_it_is_told(tmp_path: Path, script: str) -> None:
    with pytest.raises(DeviceLost, match="did not answer"):
        started(tmp_path, script + "time.sleep(60)\n", hello_s=0.3)
    with closing(started(tmp_path, "time.sleep(1)\n" + HELLO + WAIT)) as running:
        assert running.hello["pid"] > 0


def test_last_words_that_were_said_before_anyone_listened_are_told(tmp_path: Path) -> None:
    script = HELLO + "sys.stderr.write('out of paper\\n'); sys.stderr.flush(); os._exit(3)\n"
    with closing(started(tmp_path, script)) as running:
        running._process.wait(LONG_S)
        with pytest.raises(ConnectionLost, match=r"code 3\. Its last words: out of paper"):
            running.request({"op": "state"})


def test_a_crash_during_a_request_is_a_lost_connection(tmp_path: Path) -> None:
    script = HELLO + "sys.stdin.buffer.read(1); os.abort()\n"
    with (
        closing(started(tmp_path, script)) as running,
        pytest.raises(ConnectionLost, match=f"signal {signal.SIGABRT.value}"),
    ):
        running.request({"op": "time"})


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGILL, r"signal 4 \(SIGILL: the runtime uses instructions that this CPU lacks\)"),
        (signal.SIGABRT, r"signal 6 \(SIGABRT: "),
        (signal.SIGKILL, r"signal 9 \(SIGKILL: the system may have run out of memory\)"),
        (signal.SIGSEGV, r"signal 11 \(SIGSEGV: the runtime crashed\)"),
        (signal.SIGTERM, r"signal 15 \(see `man 7 signal`\)"),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else "",
)
def test_the_signal_of_a_workers_crash_is_told_in_words(number: signal.Signals, words: str) -> None:
    with closing(Link(local())) as running:
        worker = Channel(running, "onnxruntime")
        os.kill(worker.hello["pid"], number)
        for _ in range(2):  # at every later request, too
            with pytest.raises(DeviceLost, match=words):
                worker.request({"op": "state"})
        again = Channel(running, "onnxruntime")  # the supervisor goes on
        assert "governor" in again.request({"op": "state"})[0]


def test_a_killed_supervisor_is_a_lost_connection_at_every_later_request_and_leaves_no_worker() -> (
    None
):
    with closing(Link(local())) as running:
        worker = Channel(running, "onnxruntime")
        os.kill(running.hello["pid"], signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="killed by signal 9"):
                worker.request({"op": "state"})
        wait_until_gone(worker.hello["pid"])


def test_an_answer_cut_short_is_a_lost_connection(tmp_path: Path) -> None:
    cut = "sys.stdin.buffer.read(8); out.write(struct.pack('>II', 100, 100) + b'{'); out.flush()\n"
    with (
        closing(started(tmp_path, HELLO + cut)) as running,
        pytest.raises(ConnectionLost, match="ended with code 0"),
    ):
        running.request({"op": "state"})


def test_an_answer_that_is_no_frame_is_a_lost_connection(tmp_path: Path) -> None:
    script = HELLO + "heard(); out.write(b'y' * 99); out.flush()\n" + WAIT
    with closing(started(tmp_path, script)) as running:
        with pytest.raises(ConnectionLost, match="something else than the protocol"):
            running.request({"op": "state"})
        assert not running.alive


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(tmp_path: Path) -> None:
    script = HELLO + (
        'a, _ = heard(); b, _ = heard(); frame({"ok": True, "id": a["id"], "of": "a"})\n'
        'frame({"ok": True, "id": b["id"], "of": "b"})\n'
    )
    with closing(started(tmp_path, script + WAIT)) as running:
        with pytest.raises(Silent):
            running.request({"op": "a"}, wait_s=0.1)
        assert running.request({"op": "b"}) == ({"of": "b"}, b"")


def test_a_failure_that_is_reported_is_a_backend_error_with_its_text(tmp_path: Path) -> None:
    refusal = 'frame({"ok": False, "id": 1, "kind": "Fail", "message": "bad model"})\n'
    script = HELLO + refusal + 'frame({"ok": True, "id": 2})\n' + WAIT
    with closing(started(tmp_path, script)) as running:
        with pytest.raises(BackendError, match="Fail: bad model") as caught:
            running.request({"op": "load"})
        assert not isinstance(caught.value, (DeviceLost, ConnectionLost))
        assert running.request({"op": "state"}) == ({}, b"")


def test_a_flood_on_standard_error_does_not_block_the_answer(tmp_path: Path) -> None:
    flood = "sys.stderr.write('chatter ' * 100_000); sys.stderr.flush()\n"
    script = HELLO + flood + 'frame({"ok": True, "id": 1, "n": 2})\n' + WAIT
    with closing(started(tmp_path, script)) as running:
        assert running.request({"op": "state"})[0] == {"n": 2}


def test_what_does_not_end_by_itself_is_ended_on_closing(tmp_path: Path) -> None:
    running = started(tmp_path, HELLO + "time.sleep(60)\n")
    running.close()
    assert is_gone(running.hello["pid"])


def test_what_is_forgotten_is_closed(tmp_path: Path) -> None:
    running = started(tmp_path, HELLO + WAIT)
    pid = running.hello["pid"]
    del running
    assert is_gone(pid)


# A device far away, which hears of the other side's end only by silence.


def far(**changes: float) -> Launch:
    return replace(local(), far=True, **changes)  # type: ignore[arg-type]


def test_without_a_word_for_long_a_supervisor_ends_itself_and_its_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Link, "ping", lambda self: None)
    with closing(Link(far(watchdog_s=3.0))) as running:
        worker = Channel(running, "onnxruntime")
        wait_until_gone(worker.hello["pid"])
        with pytest.raises(ConnectionLost):
            worker.request({"op": "state"})


def test_as_long_as_it_is_pinged_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "PING_S", 0.2)
    with closing(Link(far(watchdog_s=5.0))) as running:
        time.sleep(7.0)
        assert running.alive
        assert running.request({"op": "close", "worker": "none"}) == ({}, b"")


def test_a_far_supervisor_that_does_not_begin_is_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnreachable, match="did not answer within 0 s"):
        Link(replace(scripted(tmp_path, "time.sleep(60)\n"), far=True), 0.3)


# What was sent is kept by its hash.


def test_what_was_put_is_kept_for_every_worker(tmp_path: Path) -> None:
    data = b"x" * 100_000
    digest = hashlib.sha256(data).hexdigest()
    with closing(Link(replace(local(), folder=str(tmp_path / "sent")))) as running:
        worker = Channel(running, "onnxruntime")
        wanted = {"op": "load", "model": digest, "worker": worker._key, "key": "0", "repeat": 1,
                  "inputs": [], "options": {"threads": 1}}  # fmt: skip
        with pytest.raises(NotKept):
            running.request(wanted)
        running.put(digest, data)
        assert (tmp_path / "sent" / digest).read_bytes() == data
        with pytest.raises(BackendError) as caught:  # it is there, though no model
            running.request(wanted)
        assert not isinstance(caught.value, NotKept)


def test_data_of_another_hash_are_refused_and_the_connection_goes_on(tmp_path: Path) -> None:
    with closing(Link(replace(local(), folder=str(tmp_path / "sent")))) as running:
        with pytest.raises(BackendError, match="instead of"):
            running.put("0" * 64, b"y" * 300_000)
        assert list((tmp_path / "sent").iterdir()) == []
        assert running.request({"op": "close", "worker": "none"}) == ({}, b"")


def test_a_folder_that_can_not_be_written_is_told_and_the_connection_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    data = b"z" * 300_000
    kept = {"model": data}
    with closing(Link(replace(local(), folder=str(tmp_path / "file" / "sent")))) as running:
        worker = Channel(running, "onnxruntime")
        with pytest.raises(DeviceUnreachable, match=r"could not keep 0\.3 MB in .*sent.*Free some"):
            worker.request_with(kept, {"op": "load", "key": "0", "repeat": 1, "inputs": [],
                                       "options": {"threads": 1}})  # fmt: skip
        assert "governor" in worker.request({"op": "state"})[0]


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if is_gone(pid) or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[:1]:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")
