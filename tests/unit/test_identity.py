from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness_results.store import StudyFolder
from harness_search.identity import FILE, accept_setup, check_identity

IDENTITY = {"task": "digits", "seed": 0, "budget": ["50%"]}
SETUP = {"fingerprint": "a.b", "torch": "2.6"}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made = StudyFolder(tmp_path, "s")
    made.create()
    check_identity(made, IDENTITY, SETUP, remeasure=False)
    return made


def test_the_same_study_goes_on(folder: StudyFolder) -> None:
    assert check_identity(folder, IDENTITY, SETUP, remeasure=False) is False


@pytest.mark.parametrize("key", IDENTITY)
@pytest.mark.parametrize("remeasure", [False, True])
def test_another_study_is_refused_by_what_differs(
    folder: StudyFolder, key: str, remeasure: bool
) -> None:
    with pytest.raises(ConfigError, match=rf"{key}.*--study"):
        check_identity(folder, {**IDENTITY, key: "other"}, SETUP, remeasure)


def test_a_network_of_other_weights_is_refused_with_the_remedy(folder: StudyFolder) -> None:
    begun = {**IDENTITY, "model_sha256": "aa"}
    accept_setup(folder, begun, SETUP)
    with pytest.raises(ConfigError, match=r'"aa"; received "bb".*seed.*torch\.manual_seed'):
        check_identity(folder, {**begun, "model_sha256": "bb"}, SETUP, remeasure=False)


def test_of_a_table_what_differs_is_shown(folder: StudyFolder) -> None:
    begun = {**IDENTITY, "recipe": {"batch": 8, "trial_epochs": 1}}
    accept_setup(folder, begun, SETUP)
    other = {**begun, "recipe": {"batch": 8, "trial_epochs": 2}}
    shown = r'with recipe {"trial_epochs": 1}; received {"trial_epochs": 2}\. Run'
    with pytest.raises(ConfigError, match=shown):
        check_identity(folder, other, SETUP, remeasure=False)


@pytest.mark.parametrize(
    ("key", "words"),
    [("space", "importance criteria and the precisions, which may be others in another version"),
     ("sensitivity", "has gained or changed rows since is another one")],
)  # fmt: skip
def test_what_a_hash_stands_for_is_said(folder: StudyFolder, key: str, words: str) -> None:
    accept_setup(folder, {**IDENTITY, key: "aa"}, SETUP)
    with pytest.raises(ConfigError, match=rf'with {key} "aa"; received "bb"\. These .*{words}'):
        check_identity(folder, {**IDENTITY, key: "bb"}, SETUP, remeasure=False)


def test_another_setup_needs_leave_to_measure_again(folder: StudyFolder) -> None:
    other = {**SETUP, "torch": "2.7"}
    with pytest.raises(ConfigError, match=r"2\.6.*2\.7.*--remeasure"):
        check_identity(folder, IDENTITY, other, remeasure=False)
    assert check_identity(folder, IDENTITY, other, remeasure=True) is True
    with pytest.raises(ConfigError, match="--remeasure"):
        check_identity(folder, IDENTITY, other, remeasure=False)
    accept_setup(folder, IDENTITY, other)
    assert check_identity(folder, IDENTITY, other, remeasure=False) is False


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_corrupt_file_is_said_and_left(folder: StudyFolder, data: bytes) -> None:
    (folder.path / FILE).write_bytes(data)
    with pytest.raises(ConfigError, match="corrupt"):
        check_identity(folder, IDENTITY, SETUP, remeasure=False)
    assert (folder.path / FILE).read_bytes() == data
