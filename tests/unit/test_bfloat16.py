"""The choice of precision is measured, not read off the CPU's flags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness import bfloat16
from harness.bfloat16 import bfloat16_is_faster


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Let nothing be known, on a CPU that has the instructions."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(bfloat16, "_cpu", lambda: "model name: any\nflags: avx512_bf16")
    bfloat16_is_faster.cache_clear()
    yield tmp_path
    bfloat16_is_faster.cache_clear()


def steps(monkeypatch: pytest.MonkeyPatch, low: float, full: float) -> list[bool]:
    """Make up a step's seconds in both precisions; return a list of the steps taken."""
    taken: list[bool] = []

    def step(model: object, inputs: object, bfloat16: bool) -> float:
        taken.append(bfloat16)
        return low if bfloat16 else full

    monkeypatch.setattr(bfloat16, "_step_s", step)
    return taken


@pytest.mark.parametrize(("low", "faster"), [(0.5, True), (0.79, True), (0.9, False), (2.4, False)])
def test_what_is_clearly_faster_is_chosen(
    monkeypatch: pytest.MonkeyPatch, low: float, faster: bool
) -> None:
    steps(monkeypatch, low, 1.0)
    assert bfloat16_is_faster() is faster


def test_it_is_measured_once_a_machine(monkeypatch: pytest.MonkeyPatch, fresh: Path) -> None:
    taken = steps(monkeypatch, 0.5, 1.0)
    assert bfloat16_is_faster()
    before = len(taken)
    bfloat16_is_faster.cache_clear()  # another process
    steps(monkeypatch, 2.0, 1.0)
    assert bfloat16_is_faster()
    monkeypatch.setattr(bfloat16, "_cpu", lambda: "model name: other\nflags: avx512_bf16")
    bfloat16_is_faster.cache_clear()
    assert not bfloat16_is_faster()
    assert before == 2 * bfloat16._ROUNDS
    for path in (fresh / "bfloat16").iterdir():
        path.write_text("{")  # a damaged answer is no answer
    bfloat16_is_faster.cache_clear()
    assert not bfloat16_is_faster()


def test_without_the_instructions_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = steps(monkeypatch, 0.1, 1.0)
    monkeypatch.setattr(bfloat16, "_cpu", lambda: "flags: avx2")
    assert not bfloat16_is_faster()
    assert taken == []


def test_a_real_probe_gives_a_ratio_and_leaves_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert 0 < bfloat16._measured() < 100
    assert torch.equal(torch.rand(1), expected)
