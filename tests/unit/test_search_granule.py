from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import BackendError
from harness.measurement.granule import GranuleProbe
from harness.target import Target
from harness_search import granule

if TYPE_CHECKING:
    from pathlib import Path

FACTS = {
    "runtime_version": "1",
    "machine": {"cpu_model": "m", "cpu_count": 1, "cpu_flags": [], "architecture": "a",
                "memory_bytes": 2**30},
}  # fmt: skip


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Return what the next probes find, in order; an exception is raised."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    found: list[Any] = []

    def probe(*args: Any, **options: Any) -> GranuleProbe:
        result = found.pop(0)
        if isinstance(result, Exception):
            raise result
        return GranuleProbe((), result, 1.0)

    monkeypatch.setattr(granule, "probe_granule", probe)
    return found


def found(
    tmp_path: Path, target: Target | None = None, begun: int | None = None
) -> tuple[int, list[str]]:
    notes: list[str] = []
    progress: Any = SimpleNamespace(phase=lambda text: None, note=notes.append)
    backend: Any = SimpleNamespace(target=target or Target("cpu", "onnxruntime"), open=None)
    lock: Any = SimpleNamespace(exclusive=nullcontext)
    return granule.find_granule(backend, FACTS, begun, lock, progress), notes


def test_a_targets_own_granule_is_not_probed(probes: list[Any], tmp_path: Path) -> None:
    assert found(tmp_path, Target("cpu", "onnxruntime", granule=4)) == (4, [])


def test_a_probe_is_remembered(probes: list[Any], tmp_path: Path) -> None:
    probes.append(8)
    assert found(tmp_path)[0] == 8
    assert found(tmp_path)[0] == 8  # a second probe would have nothing to return


def test_another_setting_of_the_target_is_probed_anew(probes: list[Any], tmp_path: Path) -> None:
    probes += [8, 16]
    assert found(tmp_path)[0] == 8
    assert found(tmp_path, Target("cpu", "onnxruntime", threads=2))[0] == 16


def test_an_inconclusive_probe_is_made_once_more(probes: list[Any], tmp_path: Path) -> None:
    probes += [None, 8]
    assert found(tmp_path)[0] == 8


def test_two_inconclusive_probes_fall_back_and_say_so(probes: list[Any], tmp_path: Path) -> None:
    probes += [None, None, 8]
    width, notes = found(tmp_path)
    assert width == granule.FALLBACK
    assert "inconclusive" in notes[0]
    assert found(tmp_path)[0] == 8  # nothing was remembered


def test_a_probe_that_fails_falls_back_and_says_so(probes: list[Any], tmp_path: Path) -> None:
    probes.append(BackendError("no Gemm"))
    width, notes = found(tmp_path)
    assert width == granule.FALLBACK
    assert "no Gemm" in notes[0]


def test_a_study_keeps_what_it_was_begun_with(probes: list[Any], tmp_path: Path) -> None:
    assert found(tmp_path, begun=4) == (4, [])


def test_a_cache_that_can_not_be_written_does_not_end_the_search(
    probes: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "file"))
    probes.append(8)
    width, notes = found(tmp_path)
    assert width == 8
    assert "could not be cached" in notes[0]


def test_an_emulated_cpu_is_not_probed(probes: list[Any], tmp_path: Path) -> None:
    emulated = Target("board", "onnxruntime", emulated_cpu="cortex-a76")
    chosen, (note,) = found(tmp_path, emulated)
    assert chosen == granule.FALLBACK
    assert "instruction counts don't show" in note
    assert found(tmp_path, emulated, begun=8) == (8, [])
