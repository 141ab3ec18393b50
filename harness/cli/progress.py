"""Draws a running search: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.cli.console import stderr
from harness.measurement.flags import faults
from harness.quantity import TIME
from harness.units import SHARES, format_wall, metric_words
from harness_search.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, RenderableType

    from harness_results.record import RunRecord


class SearchProgress(Progress):
    """Listens to a search and keeps what is shown of it.

    Args:
        console: Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase, self._done, self._total = "starting", 0, 0
        self._trials = 0
        self._best: RunRecord | None = None
        self._limit: tuple[float | None, int | None] = (None, None)
        self._began = time.monotonic()
        self._searching = False

    def start(
        self,
        study: str,
        time_s: float | None,
        trials: int | None,
        elapsed_s: float,
        records: Sequence[RunRecord],
    ) -> None:
        """Show the study, from when its time runs, and what earlier sessions did."""
        self._limit, self._searching = (time_s, trials), True
        self._began = time.monotonic() - elapsed_s
        for record in records:
            if record.kind == "trial":
                self._count(record)
        resumed = f", resumed with {self._trials} trials done" if records else ""
        self._console.print(f"[bold]study[/] {escape(study)}{resumed}")

    def phase(self, text: str) -> None:
        """Show what is being done; in a log, phases outside trials get a line each."""
        self._phase, self._done, self._total = text, 0, 0
        if not self._console.is_terminal and not text.startswith("trial "):
            self._console.print(f"[dim]{escape(text)}[/]")

    def advance(self, done: int, total: int) -> None:
        """Show the bar of the current phase."""
        self._done, self._total = done, total

    def trial_done(self, record: RunRecord) -> None:
        """Show a line for a trial, and keep the best."""
        self._count(record)
        self._console.print(_trial_line(record))

    def _count(self, record: RunRecord) -> None:
        self._trials += 1
        best = self._best
        if record.feasible and (best is None or _value(record) > _value(best)):
            self._best = record

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._console.print(f"[dim]{escape(text)}[/]")

    def __rich__(self) -> RenderableType:
        """Return the live panel."""
        time_s, trials = self._limit
        parts = []
        if self._searching:
            parts.append(f"{self._trials} trials done" + (f" of {trials}" if trials else ""))
        if self._best is not None:
            words = metric_words(self._best.task["metric"])
            parts.append(f"best {words} {_score(self._best)} at {_latency(self._best)}")
        if time_s is not None:
            left = time_s - (time.monotonic() - self._began)
            parts.append(f"{format_wall(left)} left" if left > 0 else "finishing")
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self._total or 1, completed=self._done, width=30)
        row.add_row(Text(self._phase), bar if self._total else Text(""))
        if not parts:
            return row
        return Group(Text(" · ".join(parts), style="bold"), row)


def _value(record: RunRecord) -> float:
    value: float = record.scores["validation"]["value"]
    return value


def _score(record: RunRecord) -> str:
    score, metric = record.scores["validation"], record.task["metric"]
    half = (score["hi"] - score["lo"]) / 2
    if metric in SHARES:
        return f"{score['value'] * 100:.2f} ± {half * 100:.2f} %"
    return f"{score['value']:.4g} ± {half:.2g}"


def _latency(record: RunRecord) -> str:
    """Return what the budget bounds, with its interval's half-width."""
    figures: dict[str, Any] = record.figures() or {}
    statistic = record.budget["statistic"]
    counted = "" if record.quantity is TIME else f" {record.quantity.noun}"
    if record.budget["kind"] == "share":
        value, low, high = (100 * x for x in figures[f"ratio_{statistic}"])
        return f"{statistic} {value:.1f} ± {(high - low) / 2:.1f} % of dense{counted}"
    value, low, high = record.quantity.of(figures, statistic)
    shown = record.quantity.show
    return f"{statistic} {shown(value)} ± {shown((high - low) / 2)}"


def _trial_line(record: RunRecord) -> str:
    head = f"  trial {record.index:>3}  {record.role:<12} {record.candidate['precision']:<4}"
    if record.status == "failed":
        return f"{head} [red]failed[/]: {escape(record.reason or '')}"
    if record.status != "complete":
        return f"{head} [yellow]{record.status.replace('_', ' ')}[/]: {escape(record.reason or '')}"
    verdict = "[green]within[/]" if record.feasible else "[yellow]over budget[/]"
    flags = " ".join(faults(record.flags))
    return f"{head} val {_score(record)}  {_latency(record)}  {verdict}  [red]{flags}[/]".rstrip()


@contextmanager
def shown_progress(listener: type[SearchProgress] = SearchProgress) -> Iterator[SearchProgress]:
    """Yield a listener that draws on stderr while the block runs."""
    console = stderr()
    progress = listener(console)
    if not console.is_terminal:
        yield progress
        return
    # Four redraws a second: enough for people, too little to disturb a timing on another core.
    with Live(progress, console=console, refresh_per_second=4, transient=True):
        yield progress
