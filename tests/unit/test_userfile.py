from __future__ import annotations

import tomllib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from harness.errors import ConfigError
from harness_backends.targets import find_target, load_targets, userfile
from harness_backends.targets.userfile import file_locked, remove_table, set_values

if TYPE_CHECKING:
    from pathlib import Path

NOTED = """\
# my boards

[kitchen]  # by the window
backend = "onnxruntime"
hosts = ["pi@kitchen"]  # wired
threads = 2

# the fast one
[lab]
backend = "onnxruntime"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CONFIG_DIR", str(tmp_path / "settings"))
    return tmp_path / "settings" / "targets.toml"


def noted(file: Path, text: str = NOTED) -> None:
    file.parent.mkdir()
    file.write_bytes(text.encode())


def test_the_folder_and_the_file_are_made(file: Path) -> None:
    with file_locked():
        set_values("jetson", {"hosts": ["me@orin"], "threads": 4})
    assert file.read_text() == '[jetson]\nhosts = ["me@orin"]\nthreads = 4\n'


def test_comments_and_order_survive_a_new_table(file: Path) -> None:
    noted(file)
    with file_locked():
        set_values("my.pi", {"backend": "onnxruntime"})
    assert file.read_text() == NOTED + '\n["my.pi"]\nbackend = "onnxruntime"\n'
    assert "my.pi" in load_targets()


def test_comments_and_order_survive_a_change(file: Path) -> None:
    noted(file)
    with file_locked():
        set_values("kitchen", {"threads": 4, "python": "/opt/python"})
    changed = NOTED.replace("threads = 2\n", 'threads = 4\npython = "/opt/python"\n')
    assert file.read_text() == changed


def test_what_is_noted_of_the_next_table_survives_a_removal(file: Path) -> None:
    noted(file)
    with file_locked():
        remove_table("kitchen")
    assert file.read_text() == ('# my boards\n\n\n# the fast one\n[lab]\nbackend = "onnxruntime"\n')


def test_removing_the_only_table_leaves_an_empty_file(file: Path) -> None:
    noted(file, "[a]\nbackend = 'onnxruntime'\n")
    with file_locked():
        remove_table("a")
    assert file.read_text() == ""


@pytest.mark.parametrize(
    "text",
    [
        "[a]\nbackend = 'x'",
        "[a]\r\nbackend = 'x'\r\n",
        "a = {backend = 'x'}\n",
        "a.backend = 'x'\na.threads = 3\n",
        "['a']\nbackend = 'x'\n[a.shapes]\ninput = [1, 3]\n# end\n\n[b]\nbackend = 'y'\n",
        "[a.shapes]\ninput = [1, 3]\n[b]\nbackend = 'y'\n[a]\nbackend = 'x'\n",
        "[a]\n# nothing yet\n",
    ],
    ids=["no last line end", "windows", "inline", "dotted", "nested", "out of order", "empty"],
)
def test_every_way_to_write_a_table_is_edited_right_or_left_alone(file: Path, text: str) -> None:
    noted(file, text)
    before = tomllib.loads(text)
    with file_locked():
        set_values("a", {"threads": 2, "hosts": ["h"]})
    expected = {**before, "a": {**before["a"], "threads": 2, "hosts": ["h"]}}
    assert tomllib.loads(file.read_bytes().decode()) == expected
    with file_locked():
        remove_table("a")
    del expected["a"]
    assert tomllib.loads(file.read_bytes().decode()) == expected


def test_an_edit_that_would_change_something_else_is_not_written(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(file)
    monkeypatch.setattr("tomlkit.TOMLDocument.as_string", lambda self: "[kitchen]\n")
    with file_locked(), pytest.raises(ConfigError, match=r"targets\.toml .*left as it is"):
        set_values("lab", {"threads": 2})
    assert file.read_text() == NOTED


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    (tmp_path / "dotfiles.toml").write_text(NOTED)
    file.parent.mkdir()
    file.symlink_to(tmp_path / "dotfiles.toml")
    with file_locked():
        set_values("lab", {"threads": 2})
    assert file.is_symlink()
    assert find_target("lab").threads == 2
    assert (tmp_path / "dotfiles.toml").read_text() == NOTED + "threads = 2\n"


def test_a_file_that_cannot_be_read_is_left_alone(file: Path) -> None:
    noted(file, "[kitchen\n")
    with file_locked(), pytest.raises(ConfigError, match="Mend or remove"):
        set_values("lab", {"threads": 2})
    assert file.read_text() == "[kitchen\n"


def test_a_folder_that_cannot_be_made_is_named_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("HARNESS_CONFIG_DIR", str(tmp_path / "file" / "settings"))
    with pytest.raises(ConfigError, match="can't be written .*HARNESS_CONFIG_DIR"), file_locked():
        pass


def test_a_full_disk_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    noted(file)
    monkeypatch.setattr(userfile, "write_atomic", full)
    with file_locked(), pytest.raises(ConfigError, match="No space left on device"):
        set_values("lab", {"threads": 2})
    assert file.read_text() == NOTED


def test_writers_at_the_same_time_lose_nothing(file: Path) -> None:
    def add(number: int) -> None:
        with file_locked():
            set_values(f"board-{number}", {"backend": "onnxruntime", "hosts": [f"pi@{number}"]})

    with ThreadPoolExecutor(8) as pool:  # each takes the lock through an open file of its own
        list(pool.map(add, range(16)))
    assert {f"board-{number}" for number in range(16)} <= load_targets().keys()
    assert {path.name for path in file.parent.iterdir()} == {".targets.toml.lock", "targets.toml"}
