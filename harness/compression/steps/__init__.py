"""Compression steps: one module each, found by name.

Adding one is a module with a subclass of `base.Step`, and a line here.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from harness.compression.steps.options import check_names
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.compression.steps.base import Step

STEPS = {
    "rewrite": "rewrite:Rewrite",
    "student": "student:Student",
    "depth": "depth:Depth",
    "prune": "prune:Prune",
    "low-rank": "low_rank:LowRank",
    "sparsify": "sparsify:Sparsify",
    "recalibrate": "recalibrate:Recalibrate",
    "distil": "distil:Distil",
    "qat": "qat:QuantisationAware",
    "fp16": "precision:Fp16",
    "int8": "precision:Int8",
    "int8-dynamic": "precision:Int8Dynamic",
}
"""Module and class in this package, by the name that a user gives; in the order in which a
pipeline usually has them."""


def step_class(name: str) -> type[Step]:
    """Return the class of a step.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in STEPS:
        near = difflib.get_close_matches(name, STEPS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"There is no step {name!r}. Expected one of: {', '.join(STEPS)}.{hint}")
    module, _, attribute = STEPS[name].partition(":")
    found: type[Step] = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    return found


def parse_step(text: str) -> Step:
    """Return a step from text: `"int8"`, or `"prune:params=50%,criterion=taylor"`.

    Raises:
        ConfigError: If the step or an option is unknown, or a value doesn't fit.
    """
    name, _, rest = (piece.strip() for piece in text.partition(":"))
    kind = step_class(name)
    values: dict[str, str] = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or key in values:
            raise ConfigError(
                f"Step {name!r} takes options as KEY=VALUE, each once, joined by commas. "
                f"Received: {part!r} in {text!r}."
            )
        values[key] = value
    check_names(kind, values)
    return kind(**values)
