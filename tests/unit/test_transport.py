from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest

from harness.errors import BackendError, DeviceLost
from harness_backends import agent, transport
from harness_backends.transport import Channel, local_argv
from support.running import is_gone

PRELUDE = f"""
import json, struct, sys, time, os
out = sys.stdout.buffer
def frame(header, blob=b""):
    text = json.dumps(header).encode()
    out.write(struct.pack(">II", len(text), len(blob)) + text + blob)
    out.flush()
def magic():
    out.write({agent.MAGIC!r})
sys.stdin.buffer.read(int(sys.argv[-2]))
"""
HELLO = 'magic(); frame({"ok": True, "pid": os.getpid()})\n'
WAIT = "sys.stdin.buffer.read()\n"
LONG_S = 60.0


def channel(tmp_path: Path, script: str, timeout_s: float | None = LONG_S) -> Channel:
    path = tmp_path / "agent.py"
    path.write_text(PRELUDE + script)
    return Channel([sys.executable, "-I", "-S", str(path)], "onnxruntime", timeout_s)


def test_the_real_agent_says_what_it_is_and_ends_when_closed() -> None:
    with closing(Channel(local_argv(), "onnxruntime")) as running:
        assert running.hello["runtime_version"]
        assert running.hello["machine"]["cpu_count"] >= 1
        assert "governor" in running.request({"op": "state"})[0]
    assert is_gone(running.hello["pid"])


def test_a_runtime_that_is_missing_is_a_backend_error_and_not_a_lost_device() -> None:
    with pytest.raises(BackendError, match="ModuleNotFoundError") as caught:
        Channel([sys.executable, "-I", "-S"], "onnxruntime", LONG_S)
    assert not isinstance(caught.value, DeviceLost)


def test_a_program_that_is_not_there_is_a_lost_device(tmp_path: Path) -> None:
    with pytest.raises(DeviceLost, match="could not be started"):
        Channel([str(tmp_path / "python")], "onnxruntime")


def test_noise_before_the_protocol_is_skipped(tmp_path: Path) -> None:
    noise = "out.write(b'Welcome to board 7\\n' * 100 + b'\\x00HARNESS'); out.flush()\n"
    script = noise + HELLO + 'frame({"ok": True, "n": 1}, b"blob")\n' + WAIT
    with closing(channel(tmp_path, script)) as running:
        assert running.request({"op": "state"}) == ({"n": 1}, b"blob")


def test_endless_noise_is_a_lost_device(tmp_path: Path) -> None:
    with pytest.raises(DeviceLost, match="something else than the protocol"):
        channel(tmp_path, "while True:\n    out.write(b'y\\n' * 1000)\n")


def test_noise_and_no_more_is_a_lost_device(tmp_path: Path) -> None:
    with pytest.raises(DeviceLost, match="ended with code 0"):
        channel(tmp_path, "out.write(b'garbage'); out.flush()\n")


def test_a_crash_at_the_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(DeviceLost, match=r"ended with code 1\..*ValueError: out of order"):
        channel(tmp_path, "raise ValueError('out of order')\n")


def test_last_words_that_were_said_before_anyone_listened_are_told(tmp_path: Path) -> None:
    script = HELLO + "sys.stderr.write('out of paper\\n'); sys.stderr.flush(); os._exit(3)\n"
    with closing(channel(tmp_path, script)) as running:
        running._process.wait(LONG_S)
        with pytest.raises(DeviceLost, match=r"code 3\. Its last words: out of paper"):
            running.request({"op": "state"})


def test_a_crash_during_a_request_is_a_lost_device(tmp_path: Path) -> None:
    script = HELLO + "sys.stdin.buffer.read(1); os.abort()\n"
    with (
        closing(channel(tmp_path, script)) as running,
        pytest.raises(DeviceLost, match=f"signal {signal.SIGABRT.value}"),
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
def test_the_signal_of_a_crash_is_told_in_words(
    tmp_path: Path, number: signal.Signals, words: str
) -> None:
    with pytest.raises(DeviceLost, match=words):
        channel(tmp_path, f"os.kill(os.getpid(), {number.value}); time.sleep(60)\n")


def test_a_channel_waits_for_an_answer_as_long_as_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "TIMEOUT_S", 0.3)
    with pytest.raises(DeviceLost, match="did not answer"):
        channel(tmp_path, "time.sleep(60)\n", timeout_s=None)
    with closing(channel(tmp_path, "time.sleep(1)\n" + HELLO + WAIT)) as running:
        assert running.hello["pid"] > 0


def test_a_killed_agent_is_a_lost_device_at_every_later_request() -> None:
    with closing(Channel(local_argv(), "onnxruntime")) as running:
        os.kill(running.hello["pid"], signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(DeviceLost, match="killed by signal 9"):
                running.request({"op": "state"})


def test_an_answer_cut_short_is_a_lost_device(tmp_path: Path) -> None:
    cut = "sys.stdin.buffer.read(8); out.write(struct.pack('>II', 100, 100) + b'{'); out.flush()\n"
    with (
        closing(channel(tmp_path, HELLO + cut)) as running,
        pytest.raises(DeviceLost, match="ended with code 0"),
    ):
        running.request({"op": "state"})


@pytest.mark.parametrize("script", ["", "magic(); out.flush()\n"], ids=["silent", "half"])
def test_an_agent_that_never_says_hello_is_a_lost_device(tmp_path: Path, script: str) -> None:
    with pytest.raises(DeviceLost, match="did not answer"):
        channel(tmp_path, script + "time.sleep(60)\n", timeout_s=0.3)


def test_an_agent_that_stops_answering_is_ended(tmp_path: Path) -> None:
    with closing(channel(tmp_path, HELLO + "time.sleep(60)\n")) as running:
        running._timeout_s = 0.2
        with pytest.raises(DeviceLost, match="did not answer"):
            running.request({"op": "state"})
    assert is_gone(running.hello["pid"])


def test_a_failure_that_the_agent_reports_is_a_backend_error_with_its_text(tmp_path: Path) -> None:
    refusal = 'frame({"ok": False, "kind": "Fail", "message": "bad model"})\n'
    script = HELLO + refusal + 'frame({"ok": True})\n' + WAIT
    with closing(channel(tmp_path, script)) as running:
        with pytest.raises(BackendError, match="Fail: bad model") as caught:
            running.request({"op": "load"})
        assert not isinstance(caught.value, DeviceLost)
        assert running.request({"op": "state"}) == ({}, b"")


def test_a_flood_on_standard_error_does_not_block_the_answer(tmp_path: Path) -> None:
    flood = "sys.stderr.write('chatter ' * 100_000); sys.stderr.flush()\n"
    script = HELLO + flood + 'frame({"ok": True, "n": 2})\n' + WAIT
    with closing(channel(tmp_path, script)) as running:
        assert running.request({"op": "state"})[0] == {"n": 2}


def test_an_agent_that_does_not_end_by_itself_is_ended_on_closing(tmp_path: Path) -> None:
    running = channel(tmp_path, HELLO + "time.sleep(60)\n")
    running.close()
    assert is_gone(running.hello["pid"])
