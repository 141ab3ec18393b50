"""How the networks of a compression were trained, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.units import format_share

if TYPE_CHECKING:
    from harness_results.compression_report import Report


def training_words(report: Report) -> str:
    """Return how networks were trained: the recipe, and what each step that trains settled."""
    recipe, part = report.training["recipe"], report.training["reduction"]
    told = [
        f"step {i}, {step['name']}: {_trained({**step['options'], **step['decision']})}"
        for i, step in enumerate(report.steps, 1)
        if "epochs" in step["options"]
    ]
    if recipe["teacher_epochs"]:
        told.insert(
            0, f"the dense network: {recipe['teacher_epochs']} epochs, "
            f"learning rate {recipe['teacher_lr']:g}",
        )  # fmt: skip
    if not told:
        return "Nothing was trained."
    rest = f"batch {recipe['batch']}, optimiser {recipe['optimizer']}"
    rest += f", weight decay {recipe['weight_decay']:g}"
    if part["fraction"] < 1:
        drawn = format_share(part["fraction"])
        rest += f", steps on {drawn} of the samples, chosen by {part['method']}"
    return f"Training: {'; '.join(told)}; {rest}. report.json has all of it."


def _trained(settled: dict[str, Any]) -> str:
    words = [f"{settled['epochs']} epoch" + ("s" if settled["epochs"] != 1 else "")]
    if settled["lr"] is not None:
        words.append(f"learning rate {settled['lr']:g}")
    if "samples" in settled:
        words.append(f"{settled['samples']:,} of {settled['of']:,} samples")
    if settled.get("seed") is not None:
        words.append(f"seed {settled['seed']}")
    return ", ".join(words)
