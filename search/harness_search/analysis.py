"""What a sensitivity analysis is asked for, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from harness_results.sensitivity_table import SensitivityRow
    from harness_search.settings import Settings

RATIOS = (0.25, 0.5, 0.75)
SAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a sensitivity analysis is to try.

    Attributes:
        ratios: Shares of channels to remove from each group, above 0 and below 1.
        criterion: Importance criterion that chooses the channels.
        samples: Validation samples at most.
        timing: Whether to time the pruned networks on the target.
        remeasure: Whether to time everything again where the machine has changed.
    """

    ratios: tuple[float, ...] = RATIOS
    criterion: str = "l2"
    samples: int = SAMPLES
    timing: bool = True
    remeasure: bool = False


@dataclass(frozen=True, slots=True)
class SensitivityResult:
    """How a sensitivity analysis ended.

    Attributes:
        study: Its name.
        folder: Where everything is.
        table: The rows, as CSV.
        picture: The plot; None where there is nothing to draw.
        rows: In the network's order, as in the table.
        metric: What the rows are judged by; higher is better.
        settings: Target, seed and groups that were asked for.
        analysis: What was tried.
        elapsed_s: Wall seconds of this session.
        notes: What a user should know of model, data and the rows.
    """

    study: str
    folder: Path
    table: Path
    picture: Path | None
    rows: tuple[SensitivityRow, ...]
    metric: str
    settings: Settings
    analysis: Analysis
    elapsed_s: float
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 where something was measured, 3 where nothing was."""
        return 0 if any(row.val_acc_change is not None for row in self.rows) else 3
