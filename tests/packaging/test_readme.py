"""The README's commands are run, not only read."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from harness.cli import app as typer_app
from harness.measurement.flags import BLOCKING, NOTES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
app = typer.main.get_command(typer_app)


def block(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```bash\n(.*?)```", README, re.S)
    assert found is not None
    return found.group(1)


def example() -> str:
    found = re.search(r"<!-- api -->\n```python\n(.*?)```", README, re.S)
    assert found is not None
    return found.group(1)


def here(tmp_path: Path) -> dict[str, str]:
    cache = str(tmp_path / "cache")
    return {
        **os.environ,
        "HARNESS_CACHE_DIR": cache,
        "HARNESS_CONFIG_DIR": str(tmp_path / "config"),
    }


def test_both_commands_make_an_environment_and_use_the_constraints() -> None:
    for marker in ("search", "test"):
        first, second, _ = block(marker).strip().split(" &&\n")
        assert first == "python3 -m venv .venv"
        assert second.startswith(".venv/bin/pip install --quiet -c constraints.txt -e ")
        folder = re.sub(r"[^\w.\[\]]", "", second.split(" -e ")[1])
        assert folder in (".", ".[dev]")


def test_the_python_example_runs_as_it_stands_and_again(tmp_path: Path) -> None:
    """Whether a winner was found is up to the machine; that it is shown, if so, is not."""
    end = "\nprint('winner' if winner else 'none', *[trial.run_id for trial in result.trials])\n"
    lasts = []
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", example() + end],
            cwd=tmp_path, env=here(tmp_path), capture_output=True, text=True,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        *shown, last = ended.stdout.strip().splitlines()
        assert len(last.split()) == 3
        assert bool(shown) == last.startswith("winner")
        lasts.append(last)
    assert lasts[0] == lasts[1]  # resumed, not searched anew


def commands(marker: str) -> list[list[str]]:
    """Return a block's commands as words, those that go over several lines joined."""
    lines = block(marker).replace("\\\n", " ").strip().splitlines()
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("words", commands("compress"), ids=str)
def test_the_compressions_of_the_readme_are_what_the_command_takes(words: list[str]) -> None:
    """Every flag is known and every step is read; own files stand for the reader's."""
    from harness.compression.steps import parse_step
    from harness_search.pipeline import check_order

    assert words[:2] == ["harness", "compress"]
    steps = [words[i + 1] for i, word in enumerate(words) if word == "--step"]
    assert steps
    check_order([parse_step(step) for step in steps])
    app.commands["compress"].make_context("compress", words[2:])  # type: ignore[attr-defined]


def board_commands(page: str) -> list[list[str]]:
    """Return the commands of a page's blocks about boards, as words."""
    blocks = re.findall(r"<!-- boards -->\n```bash\n(.*?)```", (ROOT / page).read_text(), re.S)
    return [shlex.split(line) for text in blocks for line in text.strip().splitlines()]


@pytest.mark.parametrize("page", ["README.md", "backends/BOARDS.md"])
def test_boards_are_added_as_the_pages_give_it(page: str, tmp_path: Path) -> None:
    """What connects to a board is only parsed; the rest is run, in the order of the page."""
    ran = set()
    for words in board_commands(page):
        assert words[0] == "harness"
        group, name, arguments = app, words[1], words[2:]
        if name == "targets":
            group, name, arguments = app.commands[name], words[2], words[3:]  # type: ignore[attr-defined]
        group.commands[name].make_context(name, list(arguments))  # type: ignore[attr-defined]
        if name in ("add", "show", "remove"):
            ended = CliRunner().invoke(typer_app, words[1:], env=here(tmp_path))
            assert ended.exit_code == 0, ended.output
        ran.add(name)
    assert {"add", "check", "search"} <= ran


def test_every_flag_that_a_board_may_suffer_exists() -> None:
    text = (ROOT / "backends" / "BOARDS.md").read_text()
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+|drift|throttled|contended|pressure)`", text))
    named -= {"get_throttled", "jetson_clocks"}
    assert "sensor_absent" in named
    assert named <= BLOCKING.keys() | NOTES.keys()


def test_the_sections_of_the_page_about_boards_are_there() -> None:
    text = (ROOT / "backends" / "BOARDS.md").read_text()
    titles = {
        re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^## (.+)$", text, re.M)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) == titles


@pytest.mark.slow
def test_the_first_compression_as_the_readme_gives_it(tmp_path: Path) -> None:
    """Training is shorter; the rest is the README's line. Whether to trust it is up to the host."""
    ended = subprocess.run(
        [str(Path(sys.executable).parent / "harness"), *commands("compress")[0][1:],
         "--recipe", "teacher_epochs=1"],
        cwd=tmp_path, env=here(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode in (0, 3), ended.stdout + ended.stderr
    assert "of the parameters, int8: accuracy" in " ".join(ended.stdout.split())
    (folder,) = (tmp_path / "results" / "compressed").iterdir()
    assert (folder / "report.json").exists()


@pytest.mark.slow
def test_the_main_job_as_the_readme_gives_it(tmp_path: Path) -> None:
    """The environment is this one, time and training are shorter; the rest is the README's line.

    On a busy machine an interval can stay too wide to be trusted, which is exit code 3 and said.
    """
    line = block("search").strip().split(" &&\n")[-1]
    argv = line.replace(".venv/bin/", str(Path(sys.executable).parent) + "/").split()
    ended = subprocess.run(
        [*argv, "--time", "60s", "--recipe", "teacher_epochs=2", "--results", "results"],
        cwd=tmp_path, env=here(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode in (0, 3), ended.stdout + ended.stderr
    assert "of raw calls within budget" in ended.stdout
    (folder,) = (tmp_path / "results" / "studies").iterdir()
    assert folder.name == "digits-cpu-50pct-p50-s0"
    for name in ("model.onnx", "weights.safetensors", "pruning.json", "card.md", "search.png"):
        assert (folder / "winner" / name).stat().st_size > 0
    run_id = re.search(r"harness replay (\S+)", ended.stdout)
    assert run_id is not None
    replayed = subprocess.run(
        [argv[0], "replay", run_id.group(1)],
        cwd=tmp_path, env=here(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


@pytest.mark.slow
def test_every_command_of_the_readme_exists(tmp_path: Path) -> None:
    commands = set(re.findall(r"`harness ([a-z]+)", README))
    assert {"search", "bench", "leaderboard", "replay", "targets", "tasks"} <= commands
    for name in commands:
        ended = subprocess.run(
            [str(Path(sys.executable).parent / "harness"), name, "--help"],
            env=here(tmp_path), capture_output=True, text=True,
        )  # fmt: skip
        assert ended.returncode == 0, name


def test_the_python_example_runs_up_to_the_search(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", README, re.S)
    assert found is not None
    code = found.group(1).replace('"50%"', '"no budget"')
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=here(tmp_path),
        capture_output=True, text=True,
    )  # fmt: skip
    assert "`--budget` must be a duration" in ended.stderr


def test_the_dictionary_has_every_column() -> None:
    from harness_results import leaderboard, trials

    text = (ROOT / "results" / "README.md").read_text()
    for column in (*leaderboard.COLUMNS, *trials.COLUMNS):
        assert re.search(rf"\b{column}\b", text), column


def test_documented_files_exist() -> None:
    for page in ("README.md", "tests/README.md", "backends/README.md", "backends/BOARDS.md"):
        text = (ROOT / page).read_text()
        for path in re.findall(r"\]\(([\w/.-]+)\)|`python (tests/[\w/.]+)", text):
            name = path[0] or path[1]
            assert (ROOT / Path(page).parent / name).exists() or (ROOT / name).exists(), name
