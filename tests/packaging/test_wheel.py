"""What a wheel and a source distribution hold, and that the wheel works by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    # Without isolation: the build backend is a test dependency, so nothing is downloaded here.
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    return out


@pytest.mark.slow
def test_the_wheel_holds_the_four_packages_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"harness", "harness_backends", "harness_results", "harness_search"}
    for needed in (
        "harness/py.typed", "harness_backends/targets/cpu.toml", "harness_backends/agent/worker.py",
        "harness_backends/targets/jetson.toml", "harness_search/py.typed",
        "harness_backends/emulation/insncount.c",
    ):  # fmt: skip
        assert needed in names
    assert not [name for name in names if "tests" in name or "studies" in name]


@pytest.mark.slow
def test_the_source_distribution_has_no_results(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert not [name for name in names if "/studies/" in name or name.endswith("leaderboard.csv")]
    assert [name for name in names if name.endswith("search/harness_search/engine.py")]


@pytest.mark.slow
def test_the_wheel_runs_outside_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import harness, harness_search.engine, harness_backends.targets as t;"
        "assert harness.__file__.startswith(sys.argv[1]), harness.__file__;"
        "print(sorted(t.load_targets()))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "jetson" in ended.stdout
