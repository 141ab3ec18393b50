"""What `harness compress` prints at its end fits a terminal of 80 columns."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from harness.cli.compress_text import print_report
from support.compression import report, side


def step(text: str, seconds: float) -> dict[str, Any]:
    score = {"value": 0.8766, "lo": 0.8644, "hi": 0.8841}
    return {"name": text.partition(":")[0], "text": text, "validation": score,
            "params": 271_690, "seconds": seconds}  # fmt: skip


def printed(width: int) -> str:
    latency = {**side(5.94e-4)["latency"], "p50_s": [5.94e-4, 5.81e-4, 6.07e-4],
               "peak_mem_bytes": [6.07e7, 6.06e7, 6.08e7]}  # fmt: skip
    both = {**side(1e-3), "latency": latency}
    made = report(
        steps=[step("student:model=small-cnn", 0.3), step("distil:epochs=10,temperature=2", 61)],
        before=both, after=both,
    )  # fmt: skip
    out = io.StringIO()
    done: Any = SimpleNamespace(report=made, folder=Path("there"))
    print_report(Console(file=out, width=width, highlight=False), done)
    return out.getvalue()


def test_nothing_is_cut_or_broken_at_80_columns() -> None:
    lines = printed(80).splitlines()
    text = "\n".join(lines)
    assert "\u2026" not in text
    assert "student:model=small-cnn" in text
    assert "0.3 s" in text
    for interval in ("(80.00 to 95.00)", "(0.581 to 0.607 ms)", "(60.6 to 60.8 MB)"):
        assert text.count(interval) >= 2
    assert all(len(line) <= 80 for line in lines if not line.startswith("files"))


def test_where_there_is_room_a_figure_has_one_line() -> None:
    assert "0.594 ms (0.581 to 0.607 ms)  0.594 ms (0.581 to 0.607 ms)" in printed(120)
