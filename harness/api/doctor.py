"""What can this machine resolve, and what stands in the way?"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.api.target import chosen_target, needs_time
from harness.measurement import flags as flag
from harness.measurement import reference as frozen
from harness.measurement.granule import FULL, granule_key, probe_granule, save_granule
from harness.measurement.hostlock import HostLock
from harness.measurement.selftest import self_test
from harness.provenance import fingerprint
from harness_backends.registry import open_backend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.measurement.granule import GranuleProbe
    from harness.measurement.selftest import SelfTest
    from harness.target import Target

_BUSY = 0.5
"""Load per CPU from which other work is in the way."""
_HOT_C = 85.0
_COARSE_NS = 1000
_WIDE, _TOO_WIDE = 0.02, 0.05
"""Half-widths after a pair's seconds that call for care, or make the machine unfit."""
_PAIR_S = 3.0


class Fitness(StrEnum):
    """The plain verdict."""

    FIT = "fit"
    CARE = "fit with care"
    UNFIT = "unfit"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that stands in the way.

    Attributes:
        fitness: What it makes of the machine.
        what: What was found.
        remedy: What to do about it.
    """

    fitness: Fitness
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Examination:
    """What `harness doctor` found.

    Attributes:
        target: Where.
        fingerprint: Of the machine and the target's options.
        facts: What the timing process said of itself and its machine.
        before: The machine's state at the beginning; `after` at the end.
        test: Pairs with known answers.
        granules: Width curves; cached for the search.
        findings: What stands in the way, worst first.
    """

    target: Target
    fingerprint: str
    facts: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    test: SelfTest
    granules: GranuleProbe
    findings: tuple[Finding, ...]

    @property
    def fitness(self) -> Fitness:
        """The verdict: that of the worst finding."""
        return self.findings[0].fitness if self.findings else Fitness.FIT


def examine(
    target: str | Target = "cpu",
    *,
    pairs: int = 20,
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
    seed: int = 0,
    threads: int | str | None = None,
    settings: Sequence[str] | None = None,
) -> Examination:
    """Examine a target: false alarms, resolution, timer, granule, and the state of the machine.

    Args:
        target: What to examine; a name of `harness targets`, or a `Target`.
        pairs: Pairs of identical models to compare, 3 s each; half as many with a slow-down.
        on_step: Told what is going on, how much of it is done, and of how much.
        seed: Of the order of timing.
        threads: Of the runtime; None for the target's.
        settings: Target options such as `"affinity=1"`.

    Raises:
        ConfigError: If the target can't be used.
        BackendError: If the runtime fails.
    """
    target = chosen_target(target, threads, settings)
    needs_time(target, "`harness doctor` finds out how finely a machine resolves times")
    backend = open_backend(target)
    lock = backend.device_lock(HostLock())
    with lock.exclusive(), backend.open() as worker:
        facts, before = worker.facts, worker.state()
    test = self_test(
        backend.open, frozen.frozen_reference(), lock.exclusive, pairs, _PAIR_S,
        lambda done, total: on_step("pairs with a known answer", done, total), seed,
    )  # fmt: skip
    on_step("width curves", 0, 1)
    granules = probe_granule(backend.open, lock.exclusive, FULL, target.batch, seed)
    on_step("width curves", 1, 1)
    if granules.granule is not None:
        with suppress(OSError):  # a cache is a convenience
            save_granule(granule_key(target, facts), granules)
    with lock.shared(), backend.open() as worker:
        after = worker.state()
    findings = [*_of_test(test), *_of_machine(facts, before, after)]
    order = list(Fitness)
    findings.sort(key=lambda finding: -order.index(finding.fitness))
    return Examination(
        target, fingerprint(target, facts), facts, before, after, test, granules, tuple(findings)
    )


def _of_test(test: SelfTest) -> list[Finding]:
    found = []
    quieter = "Close other programs, pin the target (`--set affinity=N`), or use another machine."
    alarms = test.false_alarms
    if alarms.lo > 0.05:
        what = f"identical models were called different in {alarms.count} of {alarms.of} pairs"
        found.append(Finding(Fitness.UNFIT, what, quieter))
    if test.half_width > _WIDE:
        fitness = Fitness.UNFIT if test.half_width > _TOO_WIDE else Fitness.CARE
        what = f"after {test.seconds:g} s a ratio is only known to ±{test.half_width:.1%}"
        found.append(Finding(fitness, what, quieter))
    missed = test.found.of - test.found.count
    if missed:
        fitness = Fitness.UNFIT if missed > test.found.count else Fitness.CARE
        what = (
            f"a slow-down of {test.planted - 1:.0%} was missed in {missed} of {test.found.of} "
            f"measurements of {test.seconds:g} s"
        )
        found.append(Finding(fitness, what, f"Measure longer. {quieter}"))
    return found


def _of_machine(
    facts: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[Finding]:
    found = []

    def care(what: str, remedy: str) -> None:
        found.append(Finding(Fitness.CARE, what, remedy))

    cpus, load = facts["machine"]["cpu_count"], before.get("load_1min")
    if load is not None and load > _BUSY * cpus:
        care(f"the load was {load:.2g} on {cpus} CPUs at the start", "Close other programs.")
    governor = before.get("governor")
    if governor is not None and governor != "performance":
        care(
            f"the frequency governor is {governor!r}, so the clock follows the load",
            "Run `sudo cpupower frequency-set -g performance` while measuring.",
        )
    heat = max((s["temperature_c"] for s in (before, after) if s.get("temperature_c")), default=0)
    if heat > _HOT_C:
        care(f"the machine was at {heat:.0f} °C", "Let it cool, or improve its cooling.")
    if (facts.get("timer", {}).get("resolution_ns") or 0) > _COARSE_NS:
        care("the clock's smallest step is over 1 µs", "Time models of a millisecond and more.")
    words = {**flag.BLOCKING, **flag.NOTES}
    remedies = {
        "steal": "Use a dedicated host: other virtual machines take this one's CPUs.",
        "pressure": "Close other programs: they wait for the CPUs that are timed.",
        "throttled": "Improve the cooling, or lower the clock by hand to one that lasts.",
        "frequency_changed": "Find out what changes the governor or its limits, and stop it.",
        "power_mode_changed": "Find out what changes it (`nvpmodel`, hotplug), and stop it.",
        "frequency_capped": "Raise the limit (`scaling_max_freq`, `nvpmodel -m`), if it should be.",
        "cores_offline": "Nothing, if they should be off: a power mode may say so.",
        "throttled_before": "Improve cooling or power supply; starting the board anew forgets it.",
        "sensor_absent": "Nothing to do on a virtual machine; on a board, check /sys is readable.",
    }
    for name in sorted(flag.of_states(before, after)):
        care(words[name], remedies[name])
    return found
