"""Time ONNX files: alone, against each other, under arriving requests, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api.target import chosen_target
from harness.errors import BackendError, CandidateFailed, ConfigError, DeviceLost
from harness.measurement import reference as frozen
from harness.measurement.compare import AS_FAST
from harness.measurement.hostlock import HostLock
from harness.measurement.offline import Throughput, throughput
from harness.measurement.rounds import FINAL, measure, quick
from harness.measurement.server import ServerResult, measure_server
from harness.measurement.types import Subject
from harness.onnxfile import read_onnx
from harness.provenance import fingerprint
from harness_backends.loadgen import LoadGenResult, check_referee, referee
from harness_backends.registry import open_backend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from harness.candidate import OnnxModel
    from harness.measurement.types import Measurement, OperatorTime
    from harness.onnxfile import InputSpec
    from harness.target import Target

__all__ = ["BenchResult", "Timed", "bench", "check_referee", "loadgen", "profile", "serve"]

_REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Timed:
    """One file, and what was measured of it.

    Attributes:
        model: The file.
        inputs: What it was fed: of these shapes random floating numbers, and zeros for other types.
        measurement: The figures; ratios are to the first file, or for a single one to the frozen
            reference.
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
        reference: The frozen reference beside a single file; None for several.
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
        seconds: About so long in one process; None for five fresh processes or more, until the
            result is within 1 %.
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
    files = [paths] if isinstance(paths, (str, Path)) else paths
    read = _read([Path(path) for path in files], target)
    several = len(read) > 1
    batches = [_batch(specs) for _, specs in read]
    if not offline and len(set(batches)) > 1:
        raise ConfigError(
            f"The files take batches of {', '.join(map(str, batches))} samples, so their latencies "
            "don't compare. Use `--scenario offline`, which counts samples per second."
        )
    budget = AS_FAST if several else None
    subjects = {
        _name(i): Subject(model, _random_inputs(model.path, specs), budget)
        for i, (model, specs) in enumerate(read)
    }
    if not several:
        subjects[_REFERENCE] = frozen.frozen_reference()
    backend = open_backend(target)
    plan = FINAL if seconds is None else quick(seconds)
    lock = HostLock()
    with lock.shared(), backend.open() as worker:
        facts = worker.facts
    first = {spec.name: spec.shape for spec in read[0][1]}
    key = fingerprint(replace(target, shapes=first), facts)
    try:
        measured = measure(
            backend.open, subjects, _name(0) if several else _REFERENCE, plan,
            lock.exclusive, seed,
        )  # fmt: skip
    except CandidateFailed as exc:
        if exc.subject == _REFERENCE:
            raise
        raise _blamed(exc) from exc
    if not several:
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


def serve(
    path: str | Path,
    target: str | Target,
    rate: float,
    *,
    seconds: float = 3.0,
    seed: int = 0,
    threads: int | str | None = None,
    settings: Sequence[str] | None = None,
) -> ServerResult:
    """Time a model that answers requests which arrive at random; see `measure_server`.

    Args:
        path: The file.
        target: Where to time.
        rate: Requests per second.
        seconds: How long each of five fresh processes is served requests.
        seed: Of the arrivals.
        threads: Of the runtime; None for the target's.
        settings: Target options such as `"shapes.input=1x3x32x32"`.

    Raises:
        ConfigError: If the file can't be timed, the runtime refuses it, or the target can't be
            used.
        BackendError: If the runtime crashes or hangs.
    """
    target, path = chosen_target(target, threads, settings), Path(path)
    ((model, specs),) = _read([path], target)
    subject = Subject(model, _random_inputs(path, specs))
    backend = open_backend(target)
    try:
        return measure_server(backend.open, subject, rate, seconds, HostLock().exclusive, seed)
    except BackendError as exc:
        raise _blamed(exc) from exc


def profile(
    path: str | Path,
    target: str | Target = "cpu",
    runs: int = 60,
    *,
    threads: int | str | None = None,
    settings: Sequence[str] | None = None,
) -> list[OperatorTime]:
    """Run a model under its runtime's own profiler.

    Args:
        path: The file.
        target: Where to run.
        runs: Inferences.
        threads: Of the runtime; None for the target's.
        settings: Target options such as `"shapes.input=1x3x32x32"`.

    Raises:
        ConfigError: If the file can't be run, the runtime refuses it or has no profiler, or the
            target can't be used.
        BackendError: If the runtime crashes or hangs.
    """
    target, path = chosen_target(target, threads, settings), Path(path)
    ((model, specs),) = _read([path], target)
    backend = open_backend(target)
    with HostLock().exclusive(), backend.open() as worker:
        try:
            return worker.profile(model, _random_inputs(path, specs), runs)
        except BackendError as exc:
            raise _blamed(exc) from exc


def loadgen(
    path: str | Path,
    target: str | Target = "cpu",
    seconds: float = 10.0,
    *,
    threads: int | str | None = None,
    settings: Sequence[str] | None = None,
) -> LoadGenResult:
    """Time a model with MLPerf LoadGen's SingleStream: `harness bench --referee loadgen`.

    Args:
        path: The file.
        target: Where to time.
        seconds: For at least so long.
        threads: Of the runtime; None for the target's.
        settings: Target options such as `"shapes.input=1x3x32x32"`.

    Raises:
        ConfigError: If the file can't be run, or LoadGen is not installed or doesn't go with the
            target.
        BackendError: If LoadGen's process fails.
    """
    target, path = chosen_target(target, threads, settings), Path(path)
    check_referee(target)
    ((model, specs),) = _read([path], target)
    with HostLock().exclusive():
        return referee(model, _random_inputs(path, specs), target, seconds)


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


def _read(paths: Sequence[Path], target: Target) -> list[tuple[OnnxModel, list[InputSpec]]]:
    """Return every file with its inputs; a shape given for an input that none has is refused."""
    read = [read_onnx(path, target) for path in paths]
    known = list(dict.fromkeys(spec.name for _, specs in read for spec in specs))
    for name in target.shapes:
        if name not in known:
            raise ConfigError(
                f"A shape was given for input {name!r}, which {', '.join(map(str, paths))} doesn't "
                f"have. Its inputs: {', '.join(known)}."
            )
    return read


def _blamed(exc: BackendError) -> BackendError | ConfigError:
    """Return a refusal as bad input, which it is; a crash or a hang stays a failure."""
    cause = exc.__cause__ if isinstance(exc, CandidateFailed) else exc
    if isinstance(cause, DeviceLost):
        return cause
    return ConfigError(f"{exc} Another runtime or another export may take the file.")


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


def _random_inputs(path: Path, specs: Sequence[InputSpec]) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    try:
        return {spec.name: _fed(rng, spec) for spec in specs}
    except (MemoryError, ValueError) as exc:
        shapes = ", ".join(f"{spec.name!r} {list(spec.shape)}" for spec in specs)
        raise ConfigError(f"{path}: its inputs don't fit in memory ({shapes}).") from exc


def _fed(rng: np.random.Generator, spec: InputSpec) -> NDArray[Any]:
    """Return standard normal numbers for a floating input, zeros for another."""
    if spec.fed == "random":
        return rng.standard_normal(spec.shape).astype(spec.dtype)
    return np.zeros(spec.shape, spec.dtype)
