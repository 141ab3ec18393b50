"""What is refused before a search writes anything."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.data.spec import load_data
from harness.errors import ConfigError
from harness_search.preflight import check_results_apart
from support.datafiles import image_folder


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a task whose images lie in photos/, the current folder."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(image_folder(tmp_path / "photos", 50, "ab"))
    return SimpleNamespace(data=load_data("."))


@pytest.mark.parametrize("results", ["results", ".", "a/results", "../photos/x"])
def test_results_among_images_are_refused(photos: Any, results: str) -> None:
    with pytest.raises(ConfigError, match="must lie outside of the image folder") as got:
        check_results_apart(Path(results), photos)
    assert str(Path(results).resolve()) in str(got.value)
    assert "--results DIR" in str(got.value)


@pytest.mark.parametrize("results", ["../results", "..", "../photos-results"])
def test_results_elsewhere_are_not(photos: Any, results: str) -> None:
    check_results_apart(Path(results), photos)


def test_splits_in_folders_of_their_own_are_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    for seed, name in enumerate(("one", "two")):
        image_folder(tmp_path / name, 50, "ab", seed=seed)
    data = load_data(f"train={tmp_path / 'one'},test={tmp_path / 'two'}")
    task: Any = SimpleNamespace(data=data)
    for name in ("one", "two"):
        with pytest.raises(ConfigError, match=f"image folder .*{name}"):
            check_results_apart(tmp_path / name / "results", task)
    check_results_apart(tmp_path / "results", task)
