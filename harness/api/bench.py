"""Time ONNX files: alone, or against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.inputs import blamed, random_inputs, read_files
from harness.api.target import chosen_target, needs_time
from harness.errors import CandidateFailed, ConfigError
from harness.measurement import reference as frozen
from harness.measurement.compare import AS_FAST
from harness.measurement.hostlock import HostLock
from harness.measurement.offline import Throughput, throughput
from harness.measurement.plans import final_plan
from harness.measurement.rounds import measure, quick
from harness.measurement.types import Subject
from harness.provenance import fingerprint
from harness.quantity import TIME
from harness_backends.registry import facts_of, open_backend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.candidate import OnnxModel
    from harness.measurement.types import Measurement
    from harness.onnxfile import InputSpec
    from harness.target import Target

_REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Timed:
    """One file, and what was measured of it.

    Attributes:
        model: The file.
        inputs: What it was fed: of these shapes random floating numbers, and zeros for other types.
        measurement: The figures; ratios are to the first file, or for a single one to the frozen
            reference. Where a CPU is emulated they are instructions.
        throughput: In the offline scenario, samples per second; else None.
    """

    model: OnnxModel
    inputs: tuple[InputSpec, ...]
    measurement: Measurement
    throughput: Throughput | None


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Files timed together, in the same rounds.

    Attributes:
        target: Where.
        scenario: `"single_stream"` or `"offline"`.
        fingerprint: Results compare only where it is equal.
        machine: What the timing process said of its machine.
        confidence: Of the intervals, all looks at the data together.
        models: In the order asked.
        reference: The frozen reference beside a single file; None for several, and where
            instructions are counted.
    """

    target: Target
    scenario: str
    fingerprint: str
    machine: Mapping[str, Any]
    confidence: float
    models: tuple[Timed, ...]
    reference: Measurement | None


def bench(
    paths: str | Path | Sequence[str | Path],
    target: str | Target = "cpu",
    *,
    seconds: float | None = None,
    offline: bool = False,
    seed: int = 0,
    threads: int | str | None = None,
    settings: Sequence[str] | None = None,
) -> BenchResult:
    """Time ONNX files on a target, interleaved, each against the first.

    Args:
        paths: One file, or several. Floating inputs are fed random numbers, others zeros.
        target: Where to time; a name of `harness targets`, or a `Target`.
        seconds: About so long in one process; None for five fresh processes or more (three where
            instructions are counted), until the result is within 1 %.
        offline: Whether to report samples per second of whole batches instead of one stream's
            latency.
        seed: Of the order in which models are timed.
        threads: Of the runtime; None for the target's.
        settings: Target options such as `"shapes.input=1x3x32x32"`.

    Raises:
        ConfigError: If a file can't be timed, the runtime refuses it, or the target can't be used.
        BackendError: If the runtime crashes or hangs.
    """
    target = chosen_target(target, threads, settings)
    if offline:
        needs_time(target, "`--scenario offline` counts samples per second")
    files = [paths] if isinstance(paths, (str, Path)) else paths
    read = read_files([Path(path) for path in files], target)
    several = len(read) > 1
    batches = [_batch(specs) for _, specs in read]
    if not offline and len(set(batches)) > 1:
        raise ConfigError(
            f"The files take batches of {', '.join(map(str, batches))} samples, so their latencies "
            "don't compare. Use `--scenario offline`, which counts samples per second."
        )
    budget = AS_FAST if several else None
    subjects = {
        _name(i): Subject(model, random_inputs(model.path, specs), budget)
        for i, (model, specs) in enumerate(read)
    }
    referred = not several and target.quantity is TIME
    if referred:  # instruction counts don't change with the machine
        subjects[_REFERENCE] = frozen.frozen_reference()
    backend = open_backend(target)
    plan = final_plan(target) if seconds is None else quick(seconds, quantity=target.quantity)
    lock = backend.device_lock(HostLock())
    facts = facts_of(backend, lock)
    first = {spec.name: spec.shape for spec in read[0][1]}
    key = fingerprint(replace(target, shapes=first), facts)
    try:
        measured = measure(
            backend.open, subjects, _name(0) if several else _REFERENCE if referred else None,
            plan, lock.exclusive, seed, backend.more_places(),
        )  # fmt: skip
    except CandidateFailed as exc:
        if exc.subject == _REFERENCE:
            raise
        raise blamed(exc) from exc
    if referred:
        measured = _judged_by_history(measured, fingerprint(replace(target, shapes={}), facts))
    models = tuple(
        Timed(
            model, tuple(specs), measured[_name(i)],
            _throughput(measured, i, batches, plan.per_look) if offline else None,
        )
        for i, (model, specs) in enumerate(read)
    )  # fmt: skip
    scenario = "offline" if offline else "single_stream"
    return BenchResult(
        target, scenario, key, facts["machine"], plan.confidence, models, measured.get(_REFERENCE)
    )


def _judged_by_history(measured: Mapping[str, Measurement], key: str) -> dict[str, Measurement]:
    """Flag everything where the frozen reference is off its own history, and add to that."""
    now_s = measured[_REFERENCE].stats.p50.value
    off = frozen.is_off(frozen.read_history(key), now_s)
    frozen.add_to_history(key, now_s)
    if not off:
        return dict(measured)
    return {
        name: replace(one, flags=tuple(sorted({*one.flags, "reference_drift"})))
        for name, one in measured.items()
    }


def _batch(specs: Sequence[InputSpec]) -> int:
    """Return the samples per call: the first size of the first input."""
    return specs[0].shape[0] if specs and specs[0].shape else 1


def _throughput(
    measured: Mapping[str, Measurement], index: int, batches: Sequence[int], confidence: float
) -> Throughput:
    base = (measured[_name(0)].samples, batches[0]) if index else None
    return throughput(measured[_name(index)].samples, batches[index], base, confidence)


def _name(index: int) -> str:
    return f"model {index + 1}"
