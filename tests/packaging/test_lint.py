"""Lint, types and the direction of imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        [BIN / "ruff", "check", "."],
        [BIN / "ruff", "format", "--check", "."],
        [BIN / "mypy"],
        [BIN / "lint-imports", "--no-cache"],
    ],
    ids=["ruff", "format", "mypy", "imports"],
)
def test_clean(command: list[str]) -> None:
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_import_of_onnxruntime_comes_after_its_telemetry_is_off() -> None:
    """Every import of the runtime has to come after its telemetry is switched off."""
    found = {}
    for path in ROOT.glob("*/**/*.py"):
        if "tests" in path.parts or ".venv" in path.parts:
            continue
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            words = line.strip().replace(",", " ").split()
            if words[:1] == ["import"] and "onnxruntime" in words:
                before = "\n".join(lines[:number])
                found[path.name] = 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"' in before
    assert found == {
        "runtimes.py": True, "child.py": True, "half.py": True, "onnx_parity.py": True,
        "winner.py": True,
    }  # fmt: skip


def test_the_top_level_has_nothing_else() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    top = {path.split("/")[0] for path in tracked if not path.startswith(".")}
    folders = {"harness", "backends", "search", "results", "tests"}
    files = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"}
    assert top == folders | files
