"""The five benchmarks: what a pair is, and by what table it is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trust_suite import tables
from trust_suite.intervals import Ratio
from trust_suite.models import Models
from trust_suite.pairs import Row
from trust_suite.runner import Job, Measure
from trust_suite.tools import TOOLS, Tool, Unit

PLANTED = {"2": (50, 51), "5": (20, 21), "10": (20, 22)}
"""Slow-down in percent -> inferences of the reference's and of the candidate's timed unit."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark and its defaults.

    Attributes:
        what: What it shows.
        measure: Has a tool measure one pair.
        summary: Makes the table from all rows.
        pairs, seconds, conditions: What is run unless asked otherwise.
        tools: Those that can do it.
        cases: What it varies.
        left_out: Which tools can't do it, and why.
    """

    what: str
    measure: Measure
    summary: Callable[[list[Row]], list[tables.Line]]
    pairs: str
    seconds: tuple[float, ...] = (3.0,)
    conditions: tuple[str, ...] = ("idle", "burst")
    tools: tuple[str, ...] = tuple(TOOLS)
    cases: tuple[str, ...] = ("",)
    left_out: str = ""


def _aa(tool: Tool, models: Models, job: Job) -> Ratio:
    return tool.compare(Unit(models.dense), Unit(models.twin), job.seconds, job.seed)


def _planted(tool: Tool, models: Models, job: Job) -> Ratio:
    reference, candidate = (Unit(models.small, k) for k in PLANTED[job.case])
    return tool.compare(reference, candidate, job.seconds, job.seed)


def _spread(tool: Tool, models: Models, job: Job) -> Ratio:
    return tool.compare(Unit(models.dense), Unit(models.half), job.seconds, job.seed)


def _precision(tool: Tool, models: Models, job: Job) -> Ratio:
    pair = Unit(models.dense), Unit(models.half)
    return tool.compare(*pair, job.seconds, job.seed, confidence=0.95)


def _loadgen(tool: Tool, models: Models, job: Job) -> Ratio:
    return Ratio(tool.p50_s(Unit(models.dense), job.seconds, job.seed))


BENCHMARKS = {
    "aa": Benchmark(
        "How often a tool calls two copies of one file different: its 99 % interval excludes 1.",
        _aa, tables.aa, "200",
    ),
    "planted": Benchmark(
        "How often a tool sees a slow-down of 2, 5 and 10 % that is exact by construction: the "
        "candidate's timed unit runs 51, 21 and 22 inferences, the reference's 50, 20 and 20.",
        _planted, tables.planted, "60",
        tools=tuple(name for name in TOOLS if name != "benchmark_app"), cases=tuple(PLANTED),
        left_out="benchmark_app is left out: it times a file, not a given number of inferences.",
    ),
    "spread": Benchmark(
        "How far a tool's ratio of two different models scatters over fresh runs.",
        _spread, tables.spread, "20",
    ),
    "precision": Benchmark(
        "How many seconds a 95 % interval of +-3 % and of +-1 % takes.",
        _precision, tables.precision, "5", seconds=(0.75, 1.5, 3.0, 6.0, 12.0, 24.0),
        tools=("ours",),
        left_out="Only ours is asked: a width says nothing where intervals don't hold (see aa).",
    ),
    "loadgen": Benchmark(
        "Whether our raw p50 of one model and LoadGen's agree.",
        _loadgen, tables.loadgen, "10", seconds=(10.0,), conditions=("idle",),
        tools=("loadgen", "ours"), left_out="The other tools report no median of all calls.",
    ),
}  # fmt: skip
