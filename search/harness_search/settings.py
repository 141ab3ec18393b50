"""What the user asked for."""

from __future__ import annotations

import hashlib
import re
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.budget import Budget
    from harness.target import Target
    from harness_results.sensitivity_table import SensitivityRow

DEFAULT_TIME_S = 180.0
LONGEST_NAME = 100
"""Characters of a study's name: it is a folder's."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One search.

    Attributes:
        target: What to time on.
        budgets: One, or several for a front; tightest first.
        trials: Trials in all, earlier sessions of the study too; None for no limit.
        time_s: Wall seconds in all; None for no limit.
        seed: Of the sampler, the students' training and the order of timing.
        study: Name; made from the rest where not given.
        max_drop: Take the fastest network that loses at most this much of the metric on validation.
        max_size_bytes: Upper limit for the exported file.
        layers: Names of the only groups to prune; empty for all.
        exclude: Names of groups to leave whole.
        blocks: Names of the only residual blocks that may be left out; None for all.
        precisions: What exported files may compute in; empty for what the backend may gain from.
        sensitivity: Rows of a sensitivity analysis that seeds the search; empty for none.
        results: The results folder.
    """

    target: Target
    budgets: tuple[Budget, ...]
    trials: int | None = None
    time_s: float | None = DEFAULT_TIME_S
    seed: int = 0
    study: str | None = None
    max_drop: float | None = None
    max_size_bytes: int | None = None
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    blocks: tuple[str, ...] | None = None
    precisions: tuple[str, ...] = ()
    sensitivity: tuple[SensitivityRow, ...] = ()
    results: Path = Path("results")

    def study_name(self, task: str) -> str:
        """Return `{task}-{target}-{budget}-{statistic}-s{seed}`, fit for a folder's name."""
        if self.study is not None:
            return self.study
        budgets = "+".join(budget.text for budget in self.budgets)
        statistic = self.budgets[0].statistic
        name = f"{task}-{self.target.name}-{budgets}-{statistic}-s{self.seed}"
        return folder_name(name)

    def identity(self) -> dict[str, Any]:
        """Return what must not change between sessions of one study."""
        return {
            "target": self.target.options(),
            "granule": self.target.granule,
            "budget": [budget.text for budget in self.budgets],
            "statistic": self.budgets[0].statistic,
            "seed": self.seed,
            "max_drop": self.max_drop,
            "max_size_bytes": self.max_size_bytes,
            "layers": list(self.layers),
            "exclude": list(self.exclude),
            "blocks": None if self.blocks is None else list(self.blocks),
            "precisions": list(self.precisions),
            "sensitivity": self._sensitivity_digest(),
        }

    def _sensitivity_digest(self) -> str | None:
        """Return a hash of the analysis that seeds the search; None for none."""
        if not self.sensitivity:
            return None
        text = repr([astuple(row) for row in self.sensitivity])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_name(text: str) -> str:
    """Return a text fit for a folder's name; what is too long ends in a part of its hash."""
    name = re.sub(r"[^\w.+-]", "", text.replace("%", "pct"))
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def check_study_name(name: str, option: str = "--study") -> None:
    """Check that a name can be a folder's.

    Args:
        name: What was given.
        option: Where, for messages.

    Raises:
        ConfigError: If not.
    """
    if not re.fullmatch(r"[\w+-][\w.+-]*", name) or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"`{option}` must be a name of at most {LONGEST_NAME} letters, digits and any of "
            f"'_.+-', not starting with a dot. Received: {name!r}."
        )
