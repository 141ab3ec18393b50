"""The granule: the step of channel counts that a runtime rewards, read from timed width curves.

A pruned width that is no multiple of the granule costs as much as the next multiple, or more. It
differs between instruction sets, runtimes and their versions, so it is probed: chains of one kind
of operator are timed at several widths, interleaved, and the granule is read from the ratios.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.atomic import write_atomic
from harness.folders import cache_folder
from harness.measurement.rounds import measure, quick
from harness.measurement.types import Estimate, Subject
from harness.measurement.width_models import OPERATORS, width_model
from harness.provenance import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from harness.measurement.types import OpenWorker
    from harness.target import Target

GRANULES = (1, 2, 4, 8, 16, 32)
"""Steps that are looked for, ascending."""
BINDING = ("conv3x3", "conv1x1", "linear")
"""Operators whose granules make the target's. A depthwise layer is left out: its channels are those
of the pointwise layers around it, which do nearly all of the arithmetic and reward their own steps;
alone it may show none."""

_FIXED = 0.5
"""Largest share of the widest's time that may be fixed cost; above it, width hardly matters."""
_PAYS = 2 / 3
"""Share of a proportional saving from which a step pays. A layer whose input and output channels
are both rounded up saves nothing within a stair; one of which only the outputs are (a matrix
product) saves a half there; one without stairs saves all. This is between the last two, nearer to
the half: it shows at long steps, which are measured well, the whole also at single channels."""
_LUCK = 0.02
"""Relative difference between two models' times that may be luck of the process or a neighbour's
doing, which more rounds don't average out and the intervals don't see."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Effort:
    """What a probe times, and how long.

    Attributes:
        operators: Keys of `OPERATORS`.
        widths: Channel counts of each. There are at least two multiples of the coarsest of
            `GRANULES`, and for each g a step from an even multiple down to the odd one below, which
            tells g from every coarser granule. Fine steps are at small widths, where a channel is
            a larger share of the time.
        seconds: Aimed time per operator, warm-up included; a slow device takes longer.
    """

    operators: tuple[str, ...]
    widths: tuple[int, ...]
    seconds: float


QUICK = Effort(("conv3x3",), (28, 29, 30, 31, 32, 40, 48, 64), 4.5)
"""At the start of a search."""
FULL = Effort(tuple(OPERATORS), (28, 29, 30, 31, 32, 40, 47, 48, 56, 60, 63, 64), 6.0)
"""For the picture of every kind of operator."""


@dataclass(frozen=True, slots=True)
class WidthCurve:
    """What an operator's width costs.

    Attributes:
        operator: A key of `OPERATORS`.
        widths: Channel counts, ascending.
        latencies_s: Median latency of the chain of each width, seconds.
        ratios: Ratio of each to the widest's, paired.
        granule: As read from the ratios; None where they don't say.
    """

    operator: str
    widths: tuple[int, ...]
    latencies_s: tuple[Estimate, ...]
    ratios: tuple[Estimate, ...]
    granule: int | None


@dataclass(frozen=True, slots=True)
class GranuleProbe:
    """The curves of a target and what they say together.

    Attributes:
        curves: One per operator.
        granule: The target's; None where a curve that it depends on doesn't say.
        took_s: Seconds that the probe took, waiting for the machine included.
    """

    curves: tuple[WidthCurve, ...]
    granule: int | None
    took_s: float


def probe_granule(
    open_worker: OpenWorker,
    exclusive: Callable[[], AbstractContextManager[None]],
    effort: Effort = FULL,
    batch: int = 1,
    seed: int = 0,
) -> GranuleProbe:
    """Time width curves and read the granule from them.

    Args:
        open_worker: Starts a fresh timing process.
        exclusive: Gives a context manager that keeps other work off the machine.
        effort: Operators and widths.
        batch: Samples per inference, as the target runs them.
        seed: Of the order of widths within rounds.

    Raises:
        BackendError: If the runtime refuses a graph, or its process dies.
        MeasurementError: If too few rounds could be timed for a ratio.
    """
    start = time.perf_counter()
    curves = tuple(
        _time_curve(open_worker, exclusive, name, effort, batch, seed) for name in effort.operators
    )
    return GranuleProbe(curves, common_granule(curves), time.perf_counter() - start)


def _time_curve(
    open_worker: OpenWorker,
    exclusive: Callable[[], AbstractContextManager[None]],
    name: str,
    effort: Effort,
    batch: int,
    seed: int,
) -> WidthCurve:
    widths, order = sorted(effort.widths), OPERATORS[name].order
    # Narrow chains run several times a call, so that all calls take about as long: the engine
    # warms each model up for a fixed time, during which the widest would run many times longer.
    repeats = [round((widths[-1] / width) ** order) for width in widths]
    with tempfile.TemporaryDirectory(prefix="harness-granule-") as folder:
        subjects = {
            str(width): Subject(*width_model(name, width, batch, Path(folder)), repeat=repeat)
            for width, repeat in zip(widths, repeats, strict=True)
        }
        plan = quick(effort.seconds)
        measured = measure(open_worker, subjects, str(widths[-1]), plan, exclusive, seed)
    stats = [measured[str(width)].stats for width in widths]
    ratios = tuple(_scaled(one.ratio("p50"), n) for one, n in zip(stats, repeats, strict=True))
    return WidthCurve(
        name,
        tuple(widths),
        tuple(_scaled(one.p50, n) for one, n in zip(stats, repeats, strict=True)),
        ratios,
        read_granule(dict(zip(widths, ratios, strict=True)), order),
    )


def _scaled(estimate: Estimate, repeat: int) -> Estimate:
    """Return the estimate of one inference, from that of a call of `repeat`."""
    return Estimate(estimate.value / repeat, estimate.lo / repeat, estimate.hi / repeat)


def common_granule(curves: Iterable[WidthCurve]) -> int | None:
    """Return the granule that suits every operator, or None.

    It is the largest of those of the `BINDING` operators that were timed: granules are powers of
    two, so a multiple of the largest is one of all, while a smaller one would propose widths that
    some operator does not reward. It is None as soon as one of them doesn't say, for that one could
    be the largest.
    """
    found = [curve.granule for curve in curves if curve.operator in BINDING]
    known = [granule for granule in found if granule is not None]
    return max(known) if known and len(known) == len(found) else None


def read_granule(ratios: Mapping[int, Estimate], order: int) -> int | None:
    """Return the smallest of `GRANULES` whose every step down is worth taking, or None.

    Between multiples of the coarsest granule, time is taken to be a fixed cost and a part that is
    proportional to arithmetic; the longest such step gives both. If `_FIXED` may be exceeded, width
    hardly matters and nothing is read.

    A step's *worth* is what it saves over what that model promises, in logarithms: 1 where there
    are no stairs, 0 on a stair, negative where the narrower is slower. Each has an interval, from
    those of the two times and `_LUCK`. Then each g in turn, the coarsest first:

    - g is *refuted* if a step between neighbouring multiples of g is clearly worth less than
      `_PAYS`, if one of them is clearly slower than any larger tested width, or if its telling
      steps together are clearly worth less. Telling is a step from an even multiple of g down to
      the odd one below: it stays on one stair of every coarser granule. Together means by least
      squares, so that several steps make up for a single channel's small saving.
    - g is *confirmed* if it isn't refuted and its telling steps are clearly worth more.
    - Otherwise the curve doesn't say.

    The answer is the last g confirmed before one that is refuted: multiples of that one are
    multiples of all finer ones, which fall with it. None if the first is refuted, or if a g comes
    up of which the curve doesn't say: what it confirmed would do, but may be coarser than need be.

    Args:
        ratios: Of the time at each width to that of one of them.
        order: Arithmetic grows with this power of the width.
    """
    stairless = _stairless(ratios, order)
    if stairless is None:
        return None
    found = None
    for granule in reversed(GRANULES):
        pays = _pays(ratios, stairless, granule)
        if pays is None:
            return None
        if not pays:
            return found
        found = granule
    return found


@dataclass(frozen=True, slots=True)
class _Step:
    """A step down in width: natural logarithms of what it saves.

    Attributes:
        saving: Of the time, measured.
        promise: Of the time, if there were no stairs.
        error: Half-width of the saving's interval.
    """

    saving: float
    promise: float
    error: float


def _stairless(ratios: Mapping[int, Estimate], order: int) -> Callable[[int], float] | None:
    """Return what a width would cost without stairs; None if width hardly matters, or unclear.

    The unit is the time of the widest multiple of the coarsest granule.
    """
    coarse = [width for width in ratios if width % GRANULES[-1] == 0]
    if len(coarse) < 2:
        return None
    narrow, wide = min(coarse), max(coarse)
    arithmetic = (narrow / wide) ** order
    ratio = ratios[narrow].value / ratios[wide].value
    fixed = max(0.0, (ratio - arithmetic) / (1 - arithmetic))
    highest = ratio * math.exp(_error(ratios[narrow], ratios[wide]))
    if (highest - arithmetic) / (1 - arithmetic) > _FIXED:
        return None
    return lambda width: fixed + (1 - fixed) * (width / wide) ** order


def _error(narrow: Estimate, wide: Estimate) -> float:
    """Return the half-width of the interval of the logarithm of two times' ratio."""
    widths = [math.log(one.hi / one.lo) / 2 for one in (narrow, wide)]
    return math.hypot(*widths, _LUCK)


def _pays(
    ratios: Mapping[int, Estimate], stairless: Callable[[int], float], granule: int
) -> bool | None:
    """Whether steps of `granule` are worth taking; None where that can't be told."""

    def step(narrow: int, wide: int) -> _Step:
        return _Step(
            math.log(ratios[wide].value / ratios[narrow].value),
            math.log(stairless(wide) / stairless(narrow)),
            _error(ratios[narrow], ratios[wide]),
        )

    multiples = [width for width in sorted(ratios) if width % granule == 0]
    steps = [step(narrow, wide) for narrow, wide in pairwise(multiples)]
    upwards = [step(low, high) for low in multiples for high in ratios if high > low]
    telling = [
        step(width, width + granule)
        for width in multiples
        if width // granule % 2 == 1 and width + granule in ratios
    ]
    if not telling:
        return None
    worth, error = _worth(telling)
    in_vain = any(one.saving + one.error < _PAYS * one.promise for one in steps)
    slower = any(one.saving + one.error < 0 for one in upwards)
    if in_vain or slower or worth + error < _PAYS:
        return False
    return True if worth - error > _PAYS else None


def _worth(steps: Sequence[_Step]) -> tuple[float, float]:
    """Return saving over promise by least squares through the origin, and its half-width."""
    weight = sum(one.promise**2 for one in steps)
    worth = sum(one.promise * one.saving for one in steps) / weight
    return worth, math.sqrt(sum((one.promise * one.error) ** 2 for one in steps)) / weight


def granule_key(target: Target, facts: Mapping[str, Any]) -> str:
    """Return the key of a target's probe: its fingerprint, whatever shapes a model takes.

    Args:
        target: All its other options count, and the runtime's version.
        facts: What a worker said of its machine.
    """
    return fingerprint(replace(target, shapes={}), facts)


def load_granule(key: str) -> GranuleProbe | None:
    """Return the probe that was kept under a key; None for none, or for an unreadable file."""
    try:
        return _from_json(json.loads(_path(key).read_bytes()))
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None  # probing again costs seconds


def save_granule(key: str, probe: GranuleProbe) -> None:
    """Keep a probe under a key, in place of an older one.

    Raises:
        OSError: If the cache folder can't be written.
    """
    path = _path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(_to_json(probe), indent=1).encode() + b"\n")


def _path(key: str) -> Path:
    return cache_folder() / "granules" / f"{key}.json"


def _to_json(probe: GranuleProbe) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "granule": probe.granule,
        "took_s": probe.took_s,
        "curves": [
            {
                "operator": curve.operator,
                "granule": curve.granule,
                "widths": list(curve.widths),
                "latencies_s": [[one.value, one.lo, one.hi] for one in curve.latencies_s],
                "ratios": [[one.value, one.lo, one.hi] for one in curve.ratios],
            }
            for curve in probe.curves
        ],
    }


def _from_json(data: Any) -> GranuleProbe:
    if data["format"] != _FORMAT:
        raise ValueError("written by another version")
    curves = tuple(
        WidthCurve(
            str(one["operator"]),
            tuple(int(width) for width in one["widths"]),
            _estimates(one["latencies_s"], len(one["widths"])),
            _estimates(one["ratios"], len(one["widths"])),
            _granule(one["granule"]),
        )
        for one in data["curves"]
    )
    return GranuleProbe(curves, _granule(data["granule"]), float(data["took_s"]))


def _estimates(rows: Any, count: int) -> tuple[Estimate, ...]:
    estimates = tuple(Estimate(*(float(figure) for figure in row)) for row in rows)
    if len(estimates) != count or not all(0 < one.lo <= one.hi < math.inf for one in estimates):
        raise ValueError("not an estimate per width")
    return estimates


def _granule(value: Any) -> int | None:
    if value is not None and value not in GRANULES:
        raise ValueError("no granule")
    return None if value is None else int(value)
