"""The order of work: tools take turns pair by pair, so that all of them see the same machine."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness.measurement.hostlock import HostLock
from trust_suite.intervals import Ratio
from trust_suite.models import Models
from trust_suite.neighbour import bursting
from trust_suite.pairs import Key, PairsFile, Row
from trust_suite.tools import TOOLS, Tool, version

CONDITIONS = ("idle", "burst")


@dataclass(frozen=True, slots=True)
class Job:
    """One tool's turn at one pair; attributes as in `Row`, and the tool's seed."""

    condition: str
    case: str
    seconds: float
    index: int
    tool: str
    seed: int

    @property
    def key(self) -> Key:
        """Equal to the key of the row that it yields."""
        return self.condition, self.case, self.seconds, self.index, self.tool


Measure = Callable[[Tool, Models, Job], Ratio]


def schedule(
    cases: Sequence[str],
    seconds: Sequence[float],
    conditions: Sequence[str],
    pairs: Mapping[str, int],
    seed: int,
) -> list[Job]:
    """Return all jobs in the order of work; the same for the same arguments.

    Tools are in random order in every even pair, and in the opposite order in the odd one that
    follows. A tool with fewer pairs takes part in some, evenly spread over the run.
    """
    jobs = []
    n = max(pairs.values())
    for index in range(n):
        rng = random.Random(f"{seed} {index // 2}")
        turns = [
            (condition, case, one, tool)
            for condition in rng.sample(conditions, len(conditions))
            for case, one in _shuffled(list(itertools.product(cases, seconds)), rng)
            for tool in _turned(rng.sample(list(pairs), len(pairs)), index)
        ]
        for at, (condition, case, one, tool) in enumerate(turns):
            if (index + 1) * pairs[tool] // n > index * pairs[tool] // n:
                own_seed = (seed * n + index) * len(turns) + at
                jobs.append(Job(condition, case, one, index, tool, own_seed))
    return jobs


def run(measure: Measure, models: Models, jobs: Sequence[Job], rows: PairsFile) -> None:
    """Do the jobs that the file lacks, each while no other harness on the host trains or times."""
    lock = HostLock()
    done = {row.key for row in rows.read()}
    tools: dict[str, Tool] = {}
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(jobs))
        for (index, condition), group in itertools.groupby(jobs, _surroundings):
            together = list(group)
            missing = [job for job in together if job.key not in done]
            progress.advance(bar, len(together) - len(missing))
            if not missing:
                continue
            noise = bursting(index) if condition == "burst" else contextlib.nullcontext()
            with noise:
                for job in missing:
                    progress.update(bar, description=f"{condition} {job.case} {job.tool}")
                    tool = tools.setdefault(job.tool, TOOLS[job.tool]())
                    with lock.exclusive():
                        row = _row(measure, tool, models, job)
                    rows.append(row)
                    progress.advance(bar)


def _row(measure: Measure, tool: Tool, models: Models, job: Job) -> Row:
    start = time.monotonic()
    ratio, error = None, ""
    try:
        ratio = measure(tool, models, job)
    except Exception as exc:  # whatever a tool fails with costs one row, not the run
        error = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
    return Row(
        job.condition, job.case, job.seconds, job.index, job.tool, version(job.tool),
        ratio.value if ratio else None, ratio.lo if ratio else None, ratio.hi if ratio else None,
        round(time.monotonic() - start, 3), error,
    )  # fmt: skip


def _surroundings(job: Job) -> tuple[int, str]:
    return job.index, job.condition


def _shuffled(items: list[tuple[str, float]], rng: random.Random) -> list[tuple[str, float]]:
    return rng.sample(items, len(items))


def _turned(tools: list[str], index: int) -> list[str]:
    return tools[::-1] if index % 2 else tools
