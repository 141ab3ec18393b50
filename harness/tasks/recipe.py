"""How networks of a task are trained."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIMIZERS = ("sgd", "adamw")
_TEACHER_SAMPLES, _TRIAL_SAMPLES = 60_000, 20_000
"""Samples that a dense model and a candidate see by default, all epochs together: minutes and
tens of seconds for small networks on two cores."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How networks of a task are trained.

    Attributes:
        teacher_epochs: For the dense model; 0 takes its weights as they are.
        trial_epochs: For a candidate's distillation.
        batch: Samples per step.
        teacher_lr: Peak learning rate for the dense model.
        trial_lr: Peak learning rate for a candidate.
        weight_decay: L2 penalty (SGD), or decoupled (AdamW).
        optimizer: `"sgd"`, with Nesterov momentum of 0.9, or `"adamw"`.
    """

    teacher_epochs: int
    trial_epochs: int
    batch: int
    teacher_lr: float
    trial_lr: float
    weight_decay: float
    optimizer: str = "sgd"

    def teacher(self) -> tuple[Any, ...]:
        """Return what the dense model's training depends on."""
        return self.teacher_epochs, self.batch, self.teacher_lr, self.weight_decay, self.optimizer

    def with_values(self, values: Mapping[str, Any], source: str) -> Recipe:
        """Return a copy with values from TOML or text.

        Raises:
            ConfigError: If a key is unknown, or a value doesn't fit.
        """
        known = [one.name for one in fields(Recipe)]
        clean: dict[str, Any] = {}
        for key, value in values.items():
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(
                    f"{source}: unknown key {key!r}. Expected one of: {', '.join(known)}.{hint}"
                )
            clean[key] = _CHECKS[key](key, value, source)
        return replace(self, **clean)


def default_recipe(samples: int, pretrained: bool, fraction: float = 1.0) -> Recipe:
    """Return a recipe that serves most networks: AdamW, and epochs by the number of samples.

    Args:
        samples: Of the training split.
        pretrained: Whether the dense model comes with its weights: it isn't trained then.
        fraction: Share of the samples that candidates are trained on.

    References:
        Loshchilov & Hutter (2019), "Decoupled weight decay regularization".
    """
    teacher = min(40, max(3, round(_TEACHER_SAMPLES / samples)))
    trial = min(20, max(1, round(_TRIAL_SAMPLES / (fraction * samples))))
    batch = 64 if samples < 20_000 else 128
    while batch > 8 and samples < 16 * batch:
        batch //= 2
    return Recipe(
        teacher_epochs=0 if pretrained else teacher, trial_epochs=trial, batch=batch,
        teacher_lr=2e-3, trial_lr=1e-3, weight_decay=0.01, optimizer="adamw",
    )  # fmt: skip


def _whole(least: int) -> Any:
    def check(key: str, value: Any, source: str) -> int:
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise ConfigError(
                f"{source}: {key} must be a whole number from {least}. Received: {value!r}."
            )
        return number

    return check


def _rate(zero: bool) -> Any:
    def check(key: str, value: Any, source: str) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
            words = "a number from 0" if zero else "a number above 0"
            raise ConfigError(f"{source}: {key} must be {words}. Received: {value!r}.")
        return number

    return check


def _optimizer(key: str, value: Any, source: str) -> str:
    if value not in OPTIMIZERS:
        expected = " or ".join(OPTIMIZERS)
        raise ConfigError(f"{source}: {key} must be {expected}. Received: {value!r}.")
    return str(value)


_CHECKS = {
    "teacher_epochs": _whole(0), "trial_epochs": _whole(1), "batch": _whole(2),
    "teacher_lr": _rate(zero=False), "trial_lr": _rate(zero=False),
    "weight_decay": _rate(zero=True), "optimizer": _optimizer,
}  # fmt: skip
