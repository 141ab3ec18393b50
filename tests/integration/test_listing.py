"""What the command line says of itself: targets, tasks, help and version."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import tomllib
from typing import TYPE_CHECKING

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from harness.cli import app
from support.running import run_cli

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = (
    "search", "bench", "doctor", "leaderboard", "replay", "targets", "tasks", "models", "steps",
    "init", "compress", "sensitivity",
)  # fmt: skip


def said(*args: str) -> str:
    ended = CliRunner().invoke(app, list(args), env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert ended.exit_code == 0, ended.output
    assert ended.stderr == ""
    return ended.stdout


def entries(text: str) -> dict[str, str]:
    """Return a listing's entries by their first word; indented lines belong to the one above."""
    found: dict[str, str] = {}
    for line in filter(str.strip, text.splitlines()):
        if not line[0].isspace():
            name = line.split()[0]
            found[name] = ""
        found[name] += " ".join(line.split()) + " "
    return found


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("HARNESS_CONFIG_DIR", str(tmp_path))
    return entries(said("targets"))


def test_the_shipped_targets_are_listed(listed: dict[str, str]) -> None:
    assert set(listed) == {"cpu", "gpu", "jetson", "raspberry-pi", "qemu-arm64"}


def test_the_cpu_is_available_with_its_runtimes_version(listed: dict[str, str]) -> None:
    assert "not available" not in listed["cpu"]
    assert "available" in listed["cpu"]
    assert importlib.metadata.version("onnxruntime") in listed["cpu"]


@pytest.mark.parametrize("board", ["jetson", "raspberry-pi"])
def test_a_board_is_listed_as_not_available_with_what_to_do(
    listed: dict[str, str], board: str
) -> None:
    assert "not available" in listed[board]
    assert "no host is known" in listed[board]
    assert f"`harness targets add {board} --host USER@BOARD" in listed[board]
    assert f"`harness targets check {board}`" in listed[board]


def test_the_gpu_is_listed_as_not_available_with_what_to_do(listed: dict[str, str]) -> None:
    assert "not available" in listed["gpu"]
    assert "tensorrt" in listed["gpu"]
    assert "plug-in" in listed["gpu"]


def test_every_target_tells_its_options(listed: dict[str, str]) -> None:
    for entry in listed.values():
        assert re.search(r"threads \d+, batch \d+, granule \w+", entry), entry


def test_a_users_target_is_listed_and_inherits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "targets.toml").write_text("[cpu]\nthreads = 3\n")
    monkeypatch.setenv("HARNESS_CONFIG_DIR", str(tmp_path))
    cpu = entries(said("targets"))["cpu"]
    assert "threads 3, batch 1, granule probed" in cpu
    assert "onnxruntime" in cpu


@pytest.mark.parametrize("target", ["jetson", "raspberry-pi", "gpu"])
def test_a_status_is_what_a_search_would_say(
    listed: dict[str, str], tmp_path: Path, target: str
) -> None:
    args = ["search", "--target", target, "--budget", "50%", "--results", str(tmp_path / "r")]
    ended = CliRunner().invoke(app, args)
    assert ended.exit_code == 2
    refusal = "".join(ended.stderr.removeprefix("error:").split())
    assert len(refusal) > 40
    assert refusal in "".join(listed[target].split())
    assert not (tmp_path / "r").exists()


def test_the_tasks_tell_metric_data_and_the_default() -> None:
    digits = entries(said("tasks"))["digits"]
    for word in ("accuracy", "scikit-learn", "available", "default"):
        assert word in digits


def test_every_shipped_model_is_listed_with_a_line() -> None:
    from harness.models import MODELS

    found = entries(said("models"))
    assert set(MODELS) <= set(found)
    assert all(len(found[name].split()) > 3 for name in MODELS), found
    assert "onnx:FILE" in " ".join(found.values())


def test_a_task_file_is_written_once_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "parts.toml"
    assert f"harness search --task {path}" in said("init", str(path))
    before = path.read_bytes()
    for args, named in (
        ((str(path),), "exists already"),
        ((str(tmp_path / "parts.yaml"),), ".toml"),
        ((str(tmp_path / "a\nb = 1.toml"),), "control characters. Received: '"),
        ((str(tmp_path / "a\udcff.toml"),), "control characters"),
        ((str(tmp_path / "none" / "parts.toml"),), "can't be written: No such file"),
    ):
        ended = CliRunner().invoke(app, ["init", *args])
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert named in " ".join(ended.stderr.split())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["my task.toml", "it's.toml", "a[b].toml", "$x;y.toml"])
def test_the_command_that_is_told_runs_in_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    told = said("init", name)
    assert shlex.split(told.partition("then: ")[2]) == ["harness", "search", "--task", name]
    text = (tmp_path / name).read_text()
    assert tomllib.loads(text)["model"] == "small-cnn"
    assert shlex.split(text.splitlines()[1])[1:] == ["harness", "search", "--task", name]


def test_a_results_folder_of_any_name_is_told_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "a[" / "b]"
    folder.mkdir(parents=True)
    for args in (("leaderboard", "rebuild"), ("leaderboard",)):
        assert f"{folder / 'leaderboard.csv'}" in said(*args, "--results", str(folder))


def test_the_commands_are_these() -> None:
    assert set(get_command(app).commands) == set(COMMANDS)  # type: ignore[attr-defined]
    overview = said("--help")
    for command in COMMANDS:
        assert re.search(rf"^\W*{command}\b", overview, re.MULTILINE), command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_that_parses(command: str) -> None:
    text = " ".join(said(command, "--help").split())
    match = re.search(rf"Examples?: (harness {command}(?: (?!\||Exit)\S+)*)", text)
    assert match is not None, text
    arguments = match.group(1).split()[2:]
    parser = get_command(app).commands[command]  # type: ignore[attr-defined]
    parser.make_context(command, arguments)  # raises a usage error if it's no valid call


@pytest.mark.parametrize("command", COMMANDS)
def test_short_help_is_the_same(command: str) -> None:
    assert said(command, "-h") == said(command, "--help")


def test_the_version_is_the_distributions() -> None:
    assert said("--version").strip() == f"harness {importlib.metadata.version('latency-harness')}"


def test_the_version_in_a_shell(tmp_path: Path) -> None:
    ended = run_cli(tmp_path, "--version")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(r"harness \d+\.\d+\S*\n", ended.stdout)


@pytest.mark.parametrize(
    ("args", "named"), [(["serch"], "serch"), (["search", "--bugdet", "50%"], "--bugdet")]
)
def test_an_unknown_word_is_a_usage_error(args: list[str], named: str) -> None:
    ended = CliRunner().invoke(app, args)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr
