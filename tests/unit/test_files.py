"""Writing whole or not at all, refusals with a remedy, locks that die with their holder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.atomic import write_atomic
from harness.errors import ConfigError, HarnessError, ResultsError, StudyLocked
from harness_results.files import disk_errors, locked


def test_a_file_is_written_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", b"one")
    write_atomic(tmp_path / "a.txt", b"two")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"two"


def refuse(monkeypatch: pytest.MonkeyPatch, function: str, code: int) -> None:
    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, fail)


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, b"old")
    refuse(monkeypatch, function, code)
    said = f"No space left for {tmp_path}.*free some space"
    with pytest.raises(ResultsError, match=said) as got, disk_errors(tmp_path):
        write_atomic(path, b"new")
    assert got.value.exit_code == 5
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_bytes() == b"old"


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, b"old")

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_bytes() == b"old"


def test_the_data_reach_the_disk_before_the_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append("fsync")
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        calls.append("replace")
        assert Path(source).parent == Path(target).parent  # a rename across disks is no rename
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomic(tmp_path / "a.txt", b"x")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (errno.EACCES, ConfigError, 2),
        (errno.EPERM, ConfigError, 2),
        (errno.EROFS, ConfigError, 2),
        (errno.ENOTDIR, ConfigError, 2),
        (errno.EEXIST, ConfigError, 2),
        (errno.ENOSPC, ResultsError, 5),
        (errno.EDQUOT, ResultsError, 5),
        (errno.EIO, ResultsError, 5),
    ],
)
def test_every_refusal_names_the_folder_and_has_its_exit_code(
    code: int, kind: type[HarnessError], exit_code: int
) -> None:
    with pytest.raises(kind, match="/some/results") as got, disk_errors(Path("/some/results")):
        raise OSError(code, os.strerror(code))
    assert got.value.exit_code == exit_code


def test_only_the_operating_systems_refusals_are_turned() -> None:
    with pytest.raises(KeyError), disk_errors(Path("x")):
        raise KeyError("a")


def test_a_held_lock_is_reported_and_freed_afterwards(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with (
        locked(path, wait=False),
        pytest.raises(StudyLocked, match="^busy with it$") as got,
        locked(path, wait=False, busy="busy with it"),
    ):
        pytest.fail("two holders")
    assert got.value.exit_code == 75
    with locked(path, wait=False):
        pass


def test_a_lock_is_freed_by_an_error(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(KeyError), locked(path, wait=False):
        raise KeyError
    with locked(path, wait=False):
        pass


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = (
        "import fcntl, sys, time\n"
        f"f = open({str(path)!r}, 'w')\n"
        "fcntl.flock(f, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    argv = [sys.executable, "-c", holder]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(StudyLocked), locked(path, wait=False, busy="held"):
            pytest.fail("two holders")
        child.kill()
    with locked(path, wait=False):
        pass


def test_a_lock_in_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError), locked(tmp_path / "file" / ".lock", wait=False):
        pytest.fail("locked")
