"""The emulated ARM machine: what it is made of, how it is started, and why it can't be made."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.errors import BackendUnavailable, ConfigError
from harness_backends.agent import counting
from harness_backends.emulation import build, debian, folder, recipe, root, running
from harness_backends.emulation.cpus import CPUS, cpu_files
from harness_backends.emulation.view import make_view

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _x86(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts of other kinds can't emulate; here is asked what comes after that."""
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")


def nothing(text: str) -> None:
    pass


def fake_root(path: Path, version: str | None = None) -> Path:
    path.mkdir(parents=True)
    (path / folder.MARKER).write_text(version or recipe.recipe_version())
    return path


def test_the_wheels_are_of_the_versions_that_the_release_was_tested_with() -> None:
    tested = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert set(recipe.WHEELS) <= set(tested)


def test_a_root_that_was_never_made_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="not there yet.*harness targets add qemu-arm64"):
        root.find_root(tmp_path / "arm64")


def test_a_root_of_another_recipe_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="another version.*harness targets add qemu-arm64"):
        root.find_root(fake_root(tmp_path / "arm64", "old"))


def test_the_root_lies_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    fake_root(tmp_path / "arm64")
    assert root.find_root().folder == tmp_path / "arm64"


@pytest.mark.parametrize(
    ("what", "value"),
    [("SUITE", "other"), ("WHEELS", ("numpy==1",)), ("QEMU_PACKAGES", ()), ("LAYOUT", 99)],
)
def test_the_recipe_s_version_changes_with_each_part(
    what: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = recipe.recipe_version()
    monkeypatch.setattr(recipe, what, value)
    assert recipe.recipe_version() != before


def test_the_recipe_s_version_changes_with_the_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe.recipe_version()
    monkeypatch.setattr(recipe, "plugin_source", lambda: b"int other;")
    assert recipe.recipe_version() != before


def test_the_argument_list_starts_qemu_by_its_own_loader(tmp_path: Path) -> None:
    arm = root.ArmRoot(tmp_path)
    argv = arm.argv("cortex-a72")
    assert argv[0].endswith("/qemu/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    assert argv[-1] == str(tmp_path / "views/cortex-a72/usr/bin/python3.11")
    assert argv[argv.index("-cpu") + 1] == "cortex-a72"
    assert argv[argv.index("-L") + 1] == str(tmp_path / "views/cortex-a72")
    assert "-plugin" not in argv
    assert "LD_LIBRARY_PATH" not in arm.environment()


def test_counts_go_to_the_given_file_whatever_its_name(tmp_path: Path) -> None:
    argv = root.ArmRoot(tmp_path).argv("cortex-a76", tmp_path / "a,b")
    plugin = argv[argv.index("-plugin") + 1]
    assert plugin == f"{tmp_path}/insncount.so,out={tmp_path}/a,,b"


def test_an_unknown_cpu_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cortex-a76.*Received: 'pentium'"):
        root.ArmRoot(tmp_path).argv("pentium")


@pytest.mark.parametrize("name", CPUS)
def test_a_cpu_s_files_tell_its_part_and_cores(name: str) -> None:
    files = cpu_files(CPUS[name], 2)
    assert files["proc/cpuinfo"].count(f"CPU part\t: {CPUS[name].part:#x}") == 2
    assert files["sys/devices/system/cpu/online"] == "0-1\n"


def test_a_view_shows_the_root_and_its_own_files_and_can_be_moved_with_it(tmp_path: Path) -> None:
    (tmp_path / "a/root/usr").mkdir(parents=True)
    (tmp_path / "a/root/usr/file").touch()
    make_view(tmp_path / "a/root", tmp_path / "a/views/one", {"proc/cpuinfo": "text"})
    (tmp_path / "a").rename(tmp_path / "b")
    assert (tmp_path / "b/views/one/usr/file").exists()
    assert (tmp_path / "b/views/one/proc/cpuinfo").read_text() == "text"


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "aarch64")])
def test_another_machine_is_told_what_to_use(
    system: str, machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(build.platform, "machine", lambda: machine)
    with pytest.raises(BackendUnavailable, match=f"Received: {system} {machine}.*--host"):
        build.build_root(tmp_path / "arm64", nothing)
    assert not list(tmp_path.iterdir())


def refused(folder: Path) -> str:
    """Return why a root can't be made; nothing of it may be left."""
    with pytest.raises(BackendUnavailable) as caught:
        build.build_root(folder, nothing)
    left = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    assert left in ([], [".arm64.lock"])
    return str(caught.value)


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert "made with cc, not found" in refused(tmp_path / "cache/arm64")


def with_only(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Put these programs on PATH and no others."""
    folder.mkdir()
    for name, text in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_apt_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_only(tmp_path / "bin", monkeypatch, cc="", tar="")
    told = refused(tmp_path / "cache/arm64")
    assert "made with apt-get and dpkg-deb, not found" in told
    assert "sudo apt-get install apt dpkg" in told


def test_without_debian_s_keys_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "KEYRING", tmp_path / "none.gpg")
    with_only(tmp_path / "bin", monkeypatch, cc="", tar="", apt_get="", dpkg_deb="")
    assert "Install debian-archive-keyring" in refused(tmp_path / "cache/arm64")


def test_without_a_network_it_tells_apt_s_own_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "KEYRING", Path(__file__))
    failing = "echo 'W: odd' >&2; echo 'E: Failed to fetch it  Could not resolve' >&2; exit 100"
    with_only(tmp_path / "bin", monkeypatch, cc="", tar="", apt_get=failing, dpkg_deb="")
    told = refused(tmp_path / "cache/arm64")
    assert "list of packages failed: E: Failed to fetch it  Could not resolve. Check" in told


def test_without_pip_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_only(tmp_path / "bin", monkeypatch, cc="")
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    assert "ensurepip" in refused(tmp_path / "cache/arm64")


def test_too_little_room_is_told_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_only(tmp_path / "bin", monkeypatch, cc="")
    monkeypatch.setattr(recipe, "FREE_BYTES", 1 << 60)
    told = refused(tmp_path / "cache/arm64")
    assert "MB are free" in told
    assert "HARNESS_CACHE_DIR" in told


def test_a_disk_that_fills_up_on_the_way_is_one_clear_error(tmp_path: Path) -> None:
    def make(made: Path, work: Path) -> None:
        made.mkdir()
        (made / "half").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(BackendUnavailable, match=r"No space left.*Make room there"):
        folder.make_once(tmp_path / "arm64", "1", make)
    assert [path.name for path in tmp_path.iterdir()] == [".arm64.lock"]


def test_a_place_that_can_t_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendUnavailable, match=r"can't be made in .*HARNESS_CACHE_DIR"):
        build.build_root(tmp_path / "file" / "arm64", nothing)


def test_a_program_that_fails_without_a_word_is_told_by_its_status() -> None:
    with pytest.raises(BackendUnavailable, match=r"Trying failed: exit status 3\. Mend it\."):
        running.run([sys.executable, "-c", "raise SystemExit(3)"], "Trying", "Mend it.")


def making(version: str) -> None:
    """Make the folder `here` in the working folder, slowly; print whether it was made."""

    def make(made: Path, work: Path) -> None:
        made.mkdir()
        print("made", flush=True)
        time.sleep(0.3)

    folder.make_once(Path("here"), version, make)


def test_of_two_makers_at_once_one_makes_and_the_other_waits(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    code += "from test_emulation import making; making('1')"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert sorted(one.communicate()[0] for one in both) == ["", "made\n"]
    assert folder.made_by(tmp_path / "here") == "1"


def test_an_older_one_is_replaced_and_what_a_killed_maker_left_is_removed(tmp_path: Path) -> None:
    fake_root(tmp_path / "here", "old")
    (tmp_path / ".here.dead.part").mkdir()
    folder.make_once(tmp_path / "here", "new", lambda made, work: made.mkdir())
    assert folder.made_by(tmp_path / "here") == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".here.lock", "here"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Types: deb\nURIs: http://mirror.example/debian/\nSuites: x\n", "http://mirror.example/debian"),
        ("deb [signed-by=x] https://a.example/debian bookworm main\n", "https://a.example/debian"),
    ],
)  # fmt: skip
def test_the_mirror_is_the_host_s_own_where_it_has_one(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sources").write_text(text)
    monkeypatch.setattr(debian, "SOURCES", (tmp_path / "absent", tmp_path / "sources"))
    assert debian.mirror() == expected


def test_without_a_mirror_of_debian_one_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sources").write_text("deb http://a.example/ubuntu noble main\n")
    monkeypatch.setattr(debian, "SOURCES", (tmp_path / "sources",))
    with pytest.raises(BackendUnavailable, match="HARNESS_DEBIAN_MIRROR"):
        debian.mirror()
    monkeypatch.setenv("HARNESS_DEBIAN_MIRROR", "http://mirror.example/debian/")
    assert debian.mirror() == "http://mirror.example/debian"


def test_both_sides_of_the_counter_agree_on_the_mark() -> None:
    found = re.search(rb"#define MARK (\d+)", recipe.plugin_source())
    assert found
    assert int(found[1]) == counting.MARK


def test_the_counter_s_side_on_the_board_is_valid_on_old_pythons() -> None:
    ast.parse(Path(counting.__file__).read_text(), feature_version=(3, 8))


def test_a_process_that_isn_t_counted_is_told(tmp_path: Path) -> None:
    counter = counting.InstructionCounter(str(tmp_path / "counts"))
    with pytest.raises(RuntimeError, match=r"expected 2 marks .*, received 0: it must run under"):
        counter.count(lambda: None, 1)
