"""What a search tells while it runs; the command line draws it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness_results.record import RunRecord


class Progress:
    """Listens to a search and draws nothing; a subclass overrides what it wants to show."""

    def start(
        self,
        study: str,
        time_s: float | None,
        trials: int | None,
        elapsed_s: float,
        records: Sequence[RunRecord],
    ) -> None:
        """A study begins, or goes on after earlier sessions that left `records`."""

    def phase(self, text: str) -> None:
        """What is being done now."""

    def advance(self, done: int, total: int) -> None:
        """Steps of the current phase's training."""

    def trial_done(self, record: RunRecord) -> None:
        """A trial has been recorded."""

    def note(self, text: str) -> None:
        """Something that the user should know."""
