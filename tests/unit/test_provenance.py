from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from harness.provenance import fingerprint, git_state, now_utc
from harness.target import Target

if TYPE_CHECKING:
    from pathlib import Path

TARGET = Target("cpu", "onnxruntime")


def facts(runtime: str = "1.0", **machine: Any) -> dict[str, Any]:
    known = {
        "cpu_model": "x", "cpu_count": 4, "cpu_flags": ["avx2"], "architecture": "x86_64",
        "memory_bytes": 16 * 2**30,
    }  # fmt: skip
    return {"runtime_version": runtime, "machine": {**known, **machine}}


@pytest.mark.parametrize(
    "change",
    [
        {"cpu_model": "y"},
        {"cpu_count": 8},
        {"cpu_flags": []},
        {"memory_bytes": 64 * 2**30},
        {"device_model": "Raspberry Pi 5"},
        {"power_mode": "0001"},
    ],
)
def test_another_machine_changes_the_machine_key_alone(change: dict[str, Any]) -> None:
    machine, setup = fingerprint(TARGET, facts()).split(".")
    other_machine, other_setup = fingerprint(TARGET, facts(**change)).split(".")
    assert other_machine != machine
    assert other_setup == setup


def test_a_granule_changes_what_is_searched_and_not_what_is_measured() -> None:
    assert fingerprint(TARGET.with_settings(["granule=2"]), facts()) == fingerprint(TARGET, facts())


def test_options_and_runtime_change_the_setup_key_alone() -> None:
    machine, setup = fingerprint(TARGET, facts()).split(".")
    for text in (
        fingerprint(TARGET.with_settings(["threads=2"]), facts()),
        fingerprint(TARGET.with_settings(["affinity=1"]), facts()),
        fingerprint(TARGET.with_settings(["shapes.x=1x3"]), facts()),
        fingerprint(TARGET.with_settings(["session_config.a=b"]), facts()),
        fingerprint(TARGET, facts(runtime="1.1")),
    ):
        assert text.split(".")[0] == machine
        assert text.split(".")[1] != setup


def test_a_kernels_little_more_or_less_memory_is_the_same_machine() -> None:
    less = facts(memory_bytes=int(15.5 * 2**30))
    assert fingerprint(TARGET, less) == fingerprint(TARGET, facts())


def test_the_commit_and_whether_tracked_files_differ(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
    tracked = tmp_path / "file"
    tracked.write_text("a")
    for arguments in (
        ["init", "-q"],
        ["add", "file"],
        ["-c", "user.name=n", "-c", "user.email=e@e", "commit", "-qm", "m"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    (tmp_path / "untracked").touch()
    clean = git_state(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    tracked.write_text("b")
    assert git_state(tmp_path) == {"commit": clean["commit"], "dirty": True}


def test_the_time_is_utc_to_the_second() -> None:
    assert len(now_utc()) == len("2026-01-31T12:00:00Z")
    assert now_utc().endswith("Z")


def test_where_a_board_is_changes_nothing() -> None:
    board = Target("board", "onnxruntime", hosts=("pi",))
    elsewhere = Target("board", "onnxruntime", hosts=("other",), python="/opt/python")
    assert fingerprint(board, facts()) == fingerprint(elsewhere, facts())
