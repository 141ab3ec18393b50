"""All rivals of a block, timed together with the dense network in fresh processes, and scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.budget import Decision, parse_budgets
from harness.measurement.rounds import FINAL
from harness.onnxfile import read_onnx
from rivals_suite.run import opened

if TYPE_CHECKING:
    from pathlib import Path

    from rivals_suite.settings import Setting


def finals(
    setting: Setting, budget_text: str, seed: int, folder: Path, models: dict[str, Path]
) -> dict[str, dict[str, Any]]:
    """Return figures by rival, the dense network among them.

    Args:
        setting: The task.
        budget_text: A share of the dense network's p50.
        seed: Of the block.
        folder: For the dense network.
        models: ONNX files by rival.
    """
    tools, _ = opened(setting, seed, folder)
    (budget,) = parse_budgets(budget_text)
    files = {name: read_onnx(path, tools.target)[0] for name, path in models.items()}
    measured = tools.timed(files, budget, FINAL)
    split = tools.task.data.test
    found = {}
    for name, one in {"dense": tools.dense, **files}.items():
        score = tools.score(tools.outputs(one, split), split)
        ratio = measured[name].stats.ratio("p50")
        found[name] = {
            "ratio": ratio.value, "ratio_lo": ratio.lo, "ratio_hi": ratio.hi,
            "feasible": budget.decide(measured[name].stats) is Decision.FEASIBLE,
            "test_acc": score.value, "test_lo": score.lo, "test_hi": score.hi, "n_test": score.n,
            "flags": " ".join(measured[name].flags),
        }  # fmt: skip
    return found
