"""What the rivals are compared on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NETS = Path(__file__).with_name("nets.py")


@dataclass(frozen=True)
class Setting:
    """A task, its budgets and the time of a run.

    Attributes:
        name: In the table.
        budgets: Shares of the dense network's p50.
        seconds: Wall seconds from a command's start to its end.
        rivals: Who takes part.
        options: Of `harness.search`, beside model, data, budget and time.
        model, data: As for `harness.search`; None where the options name a task.
    """

    name: str
    budgets: tuple[str, ...]
    seconds: float
    rivals: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    data: str | None = None


EVERY = ("harness", "harness-fp32", "tp-global", "tp-uniform", "optuna", "random")


def settings(cifar: Path | None) -> dict[str, Setting]:
    """Return all settings by name; `cifar` is without data where None.

    Args:
        cifar: Folder of cifar10-train.parquet, cifar10-val.parquet and cifar10-test.parquet.
    """
    parts = ",".join(f"{part}={cifar}/cifar10-{part}.parquet" for part in ("train", "val", "test"))
    return {
        "digits": Setting("digits", ("70%", "50%", "35%"), 90, EVERY, {"task": "digits"}),
        "fashion": Setting(
            "fashion", ("50%", "35%"), 300, ("harness", "harness-fp32", "tp-global", "optuna"),
            {"recipe": {"teacher_epochs": 3}}, f"{_NETS}:resnet8", "fashion-mnist",
        ),
        "cifar": Setting(
            "cifar", ("50%",), 480, ("harness", "harness-fp32", "tp-global"),
            {"trained": True}, f"{_NETS}:resnet20_rewritten", f"{parts},normalize=imagenet",
        ),
    }  # fmt: skip
