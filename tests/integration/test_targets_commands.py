"""`harness targets add`, `check`, `show` and `remove`, with a made-up clock in place of a board."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from harness.cli import app, console
from harness.errors import BackendError, DeviceLost
from harness_backends.targets import find_target
from harness_backends.testing.fake import FakeBackend, FakeWorker
from support.cli import registered
from support.running import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

PI_FACTS = {
    "runtime_version": "1.20.1",
    "python": "3.11.2",
    "machine": {
        "cpu_model": "Cortex-A76", "cpu_count": 4, "cpus_online": "0-3",
        "cpu_flags": ["asimd", "asimddp", "fp"], "architecture": "aarch64",
        "memory_bytes": 8 * 2**30, "kernel": "6.6.31+rpt-rpi-2712",
        "device_model": "Raspberry Pi 5 Model B Rev 1.0",
    },
}  # fmt: skip
PI_STATE = {
    "governor": "ondemand", "khz": 1_500_000, "max_khz": 2_400_000, "limit_khz": 2_400_000,
    "temperature_c": 48.2, "throttled": [], "throttle_count": None, "power_mode": None,
    "load_1min": 0.12,
}  # fmt: skip
TARGETS = """\
[board]  # in the lab
backend = "fake"
hosts = ["pi@a"]
granule = 4

[two]
backend = "fake"
hosts = ["pi@a", "pi@b"]

[here]
backend = "fake"

[emulated]
backend = "fake"
emulated_cpu = "cortex-a76"
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    with registered(tmp_path, TARGETS):
        yield tmp_path / "config" / "targets.toml"


@pytest.fixture
def pi(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Have the made-up board say what a Raspberry Pi says; the state can be changed."""
    state = dict(PI_STATE)

    def start(self: FakeWorker, target: Any) -> None:
        self._target, self.facts = target, PI_FACTS

    monkeypatch.setattr(FakeWorker, "__init__", start)
    monkeypatch.setattr(FakeWorker, "state", lambda self: dict(state))
    return state


def call(*args: str) -> Result:
    return CliRunner().invoke(app, ["targets", *args])


def said(*args: str, code: int = 0) -> str:
    ended = call(*args)
    assert ended.exit_code == code, ended.output
    assert ended.stderr == ""
    return " ".join(ended.stdout.split())


def refused(*args: str) -> str:
    ended = call(*args)
    assert (ended.exit_code, ended.stdout) == (2, ""), ended.output
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("error:") + ended.stderr.count("─ Error") == 1
    return " ".join(ended.stderr.split())


def table(file: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(file.read_text())[name]
    return found


# add


def test_a_board_of_a_shipped_kind_keeps_only_what_differs(file: Path) -> None:
    text = said("add", "raspberry-pi", "--host", "pi@10.0.0.5", "--threads", "1")
    assert table(file, "raspberry-pi") == {"hosts": ["pi@10.0.0.5"]}
    assert f"raspberry-pi in {file}: hosts = pi@10.0.0.5" in text
    assert text.endswith("Next: harness targets check raspberry-pi")
    assert find_target("raspberry-pi").granule == 8
    assert file.read_text().startswith(TARGETS)


def test_a_granule_is_not_inherited_by_another_runtime(file: Path) -> None:
    said("add", "jetson", "--host", "me@orin", "--backend", "onnxruntime")
    assert table(file, "jetson") == {"backend": "onnxruntime", "hosts": ["me@orin"]}
    jetson = find_target("jetson")
    assert (jetson.granule, jetson.board) == (None, ("Jetson", "NVIDIA Orin"))
    assert "granule probed default" in said("show", "jetson")


def test_a_board_of_a_new_name_runs_onnx_runtime_unless_told(file: Path) -> None:
    said(
        "add", "my.pi", "--host", "a", "--host", "b", "--host", "a", "--threads", "4",
        "--python", "/home/pi/venv/bin/python", "--description", "by the [red]window",
    )  # fmt: skip
    assert table(file, "my.pi") == {
        "backend": "onnxruntime", "hosts": ["a", "b"], "threads": 4,
        "python": "/home/pi/venv/bin/python", "description": "by the [red]window",
    }  # fmt: skip


def test_a_target_that_is_there_is_changed_by_force_only(file: Path) -> None:
    before = file.read_bytes()
    assert "`--force`" in refused("add", "board", "--host", "pi@b")
    assert file.read_bytes() == before
    text = said("add", "board", "--host", "pi@b", "--threads", "2", "--force")
    assert "hosts = pi@b (was pi@a)" in text
    assert "threads = 2 (was 1)" in text
    changed = {"backend": "fake", "hosts": ["pi@b"], "granule": 4, "threads": 2}
    assert table(file, "board") == changed
    assert "# in the lab" in file.read_text()


def test_what_is_so_already_is_not_written(file: Path) -> None:
    before = file.read_bytes()
    assert "Nothing to write" in said("add", "board", "--host", "pi@a", "--force")
    assert "Nothing to write" in said("add", "cpu", "--threads", "1")
    assert file.read_bytes() == before


def test_adding_connects_to_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeBackend, "open", lambda self: pytest.fail("connected"))
    said("add", "new", "--host", "pi@new", "--backend", "fake")
    listed = said()
    assert "new (fake, threads 1, batch 1, granule probed) at pi@new over ssh" in listed


def test_several_adding_at_once_lose_nothing(tmp_path: Path) -> None:
    adding = [
        subprocess.Popen(
            [sys.executable, "-m", "support.cli", "targets", "add", f"pi-{i}", "--host", f"pi@{i}"],
            env=environment(tmp_path), stdout=subprocess.PIPE,
        )
        for i in range(3)
    ]  # fmt: skip
    for one in adding:
        one.communicate(timeout=120)
    assert [one.returncode for one in adding] == [0, 0, 0]
    found = tomllib.loads((tmp_path / "config" / "targets.toml").read_text())
    assert {"fake", "pi-0", "pi-1", "pi-2"} <= set(found)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("", "--host", "pi@a"), "''"),
        (("my pi", "--host", "pi@a"), "'my pi'"),
        (("../pi", "--host", "pi@a"), "'../pi'"),
        (("pi\n[x]", "--host", "pi@a"), "'pi\\n[x]'"),
        (("p" * 65, "--host", "pi@a"), "1 to 64 letters"),
        (("--host", "pi@a", "--", "-pi"), "'-pi'"),
        ((".pi", "--host", "pi@a"), "'.pi'"),
        (("new",), "`--host USER@BOARD`"),
        (("new", "--threads", "2"), "`--host USER@BOARD`"),
        (("new", "--host", ""), "hosts must be"),
        (("new", "--host", "-oProxyCommand=x"), "'-oProxyCommand=x'"),
        (("new", "--host", "pi@a; reboot"), "'pi@a; reboot'"),
        (("new", "--host", "pi@a", "--threads", "0"), "`--threads`"),
        (("new", "--host", "pi@a", "--threads", "two"), "'two'"),
        (("new", "--host", "pi@a", "--python", "python3; reboot"), "'python3; reboot'"),
        (("new", "--host", "pi@a", "--python", ""), "python must be"),
        (("new", "--host", "pi@a", "--backend", "abacus"), "'abacus'"),
        (("new", "--host", "pi@a", "--backend", ""), "backend must be"),
        (("new", "--host", "pi@a", "--description", "a\nb"), "one line of text"),
        (("jetson", "--host", "me@orin", "--backend", "tensorrt"), "`--backend onnxruntime`"),
        (("jetson", "--host", "me@orin"), "`--backend onnxruntime`"),
        (("cpu", "--host", "pi@a"), "a name of its own"),
        (("cpu",), "Nothing to change"),
        (("board", "--force"), "Nothing to change"),
        (("board", "--host", "-x", "--force"), "'-x'"),
        (("new", "--host"), "--host"),
        ((), "NAME"),
    ],
)
def test_a_target_that_cannot_be_added_leaves_the_file_as_it_was(
    file: Path, args: tuple[str, ...], named: str
) -> None:
    assert named in refused("add", *args)
    assert file.read_text() == TARGETS
    assert {path.name for path in file.parent.iterdir()} <= {file.name, ".targets.toml.lock"}


def test_a_file_that_is_wrong_is_named_by_every_command(file: Path) -> None:
    file.write_text("[board\n")
    for args in (("add", "new", "--host", "a"), ("remove", "board"), ("show", "board"), ()):
        assert f"{file} can't be read" in refused(*args)
    assert file.read_text() == "[board\n"


def test_a_target_with_a_wrong_option_can_be_removed(file: Path) -> None:
    file.write_text('[board]\nbackend = "fake"\nthreads = 0\n')
    assert "threads" in refused("show", "board")
    said("remove", "board")
    assert file.read_text() == ""


# show and remove


def test_every_option_says_where_it_comes_from(file: Path) -> None:
    said("add", "raspberry-pi", "--host", "pi@fe80::1%eth0")
    text = said("show", "raspberry-pi")
    for row in (
        "backend onnxruntime shipped", "hosts pi@fe80::1%eth0 your file",
        "board Raspberry Pi shipped", "threads 1 default", "python python3 default",
        f"your file: {file}",
    ):  # fmt: skip
        assert row in text
    assert "'boord'. Known" in refused("show", "boord")


def test_a_removed_target_is_gone_and_a_shipped_one_is_back(file: Path) -> None:
    said("add", "raspberry-pi", "--host", "pi@a")
    assert said("remove", "raspberry-pi").endswith("; the shipped one is back")
    assert find_target("raspberry-pi").hosts == ()
    assert said("remove", "board") == f"board removed from {file}"
    assert "[board]" not in file.read_text()
    assert "shipped" in refused("remove", "raspberry-pi")
    assert "Yours: two, here, emulated." in refused("remove", "board")


# check


def test_a_board_is_checked_and_timed(file: Path, pi: dict[str, Any]) -> None:
    text = said("check", "board")
    for part in (
        "pi@a board Raspberry Pi 5 Model B Rev 1.0", "CPU Cortex-A76", "cores 4, online 0-3",
        "aarch64: asimd, asimddp", "memory 8.0 GiB", "kernel 6.6.31+rpt-rpi-2712",
        "Python 3.11.2", "runtime fake 1.20.1, 1 thread", "governor ondemand",
        "frequency 1.50 GHz; limit 2.40 GHz, of the hardware 2.40 GHz", "temperature 48 °C",
        "throttling none now", "power mode unknown", "load 0.12", "timing p50 ", "pi@a: usable",
        "`harness search --target board --budget 50%`",
    ):  # fmt: skip
        assert part in text, text


def test_this_machine_needs_no_host(file: Path) -> None:
    text = said("check", "here")
    assert text.startswith("this machine board unknown")
    assert "frequency unknown; limit 0.00 GHz" in text
    assert " verdict usable Next:" in text


def test_nothing_is_wider_than_a_terminal(
    file: Path, pi: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_LOG_WIDTH", 80)
    for args in ((), ("check", "two"), ("show", "jetson")):
        lines = call(*args).stdout.splitlines()
        assert max(len(line) for line in lines) <= 80


def test_a_slowed_down_board_is_unfit(file: Path, pi: dict[str, Any]) -> None:
    pi["throttled"] = ["under-voltage", "throttled"]
    text = said("check", "board", code=4)
    assert "throttling under-voltage, throttled" in text
    assert "pi@a: reached, but unfit: " in text
    assert "the board reports now: under-voltage, throttled" in text


def test_a_blocking_flag_is_told_with_its_meaning(
    file: Path, pi: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = iter(range(1_000_000, 9_000_000, 100_000))
    monkeypatch.setattr(FakeWorker, "state", lambda self: {**pi, "max_khz": next(limits)})
    text = said("check", "board", code=4)
    assert "flag frequency_changed: the governor or frequency limit changed" in text
    assert "limit 1.00 GHz then 1.20 GHz" in text


def test_a_board_that_is_not_reached_hides_no_other(
    file: Path, pi: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: FakeBackend) -> FakeWorker:
        if self.target.hosts == ("pi@a",):
            raise DeviceLost("pi@a refused the key. Run `ssh-copy-id pi@a`.")
        return FakeWorker(self.target)

    monkeypatch.setattr(FakeBackend, "open", start)
    text = said("check", "two", code=5)
    assert "pi@a: not usable: pi@a refused the key. Run `ssh-copy-id pi@a`." in text
    assert "pi@b: usable" in text
    assert "harness search" not in text


def test_a_runtime_that_fails_after_the_board_was_reached(
    file: Path, pi: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: FakeWorker, *args: Any) -> None:
        raise BackendError("illegal instruction")

    monkeypatch.setattr(FakeWorker, "load", load)
    text = said("check", "board", code=5)
    assert "Raspberry Pi 5" in text
    assert "pi@a: not usable: illegal instruction" in text
    found = json.loads(call("check", "board", "--json").stdout)
    (host,) = found["hosts"]
    assert (found["usable"], host["timing"], host["exit_code"]) == (False, None, 5)
    assert host["error"] == "illegal instruction"


def test_json_has_everything_in_si_units(file: Path, pi: dict[str, Any]) -> None:
    found = json.loads(said("check", "two", "--json"))
    assert found["usable"] is True
    assert [host["host"] for host in found["hosts"]] == ["pi@a", "pi@b"]
    first = found["hosts"][0]
    assert first["facts"] == PI_FACTS
    assert first["before"] == first["after"] == PI_STATE
    assert first["timing"]["p50_s"][0] > 0
    assert (first["obstacles"], first["error"]) == ([], None)


def test_an_emulated_target_is_counted_and_no_time_is_told(file: Path) -> None:
    text = said("check", "emulated")
    assert re.search(r"counted p50 [\d.]+ Minstr .* for three 3x3 convolutions", text)
    assert " ms" not in text
    assert "usable Next: `harness search --target emulated --budget 60%`" in text


def test_what_cannot_be_checked_says_what_to_do(file: Path) -> None:
    text = refused("check", "jetson")
    assert "`harness targets add jetson --host USER@BOARD --backend onnxruntime`" in text
    assert "`harness targets check jetson`" in text
    assert "Did you mean 'board'?" in refused("check", "boord")
    assert "NAME" in refused("check")


def test_every_help_has_an_example() -> None:
    group = get_command(app).commands["targets"]  # type: ignore[attr-defined]
    assert set(group.commands) == {"add", "check", "show", "remove"}
    for name, command in group.commands.items():
        text = " ".join(said(name, "--help").split())
        words = text.partition(f"Example: harness targets {name} ")[2].split(" | ")[0].split()
        command.make_context(name, words)


def test_an_unknown_word_is_a_usage_error() -> None:
    assert "chekc" in refused("chekc", "board")
