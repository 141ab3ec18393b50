"""One ONNX file: under arriving requests, operator by operator, and timed by LoadGen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.inputs import blamed, random_inputs, read_files
from harness.api.target import chosen_target, needs_time
from harness.errors import BackendError
from harness.measurement.hostlock import HostLock
from harness.measurement.persevering import persevere
from harness.measurement.server import ServerResult, measure_server
from harness.measurement.types import Subject
from harness_backends.loadgen import LoadGenResult, check_referee, referee
from harness_backends.registry import open_backend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.measurement.types import OperatorTime
    from harness.target import Target

__all__ = ["check_loadgen", "check_profile", "loadgen", "profile", "serve"]


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
    needs_time(target, "`--scenario server` reports how long requests wait")
    ((model, specs),) = read_files([path], target)
    subject = Subject(model, random_inputs(path, specs))
    backend = open_backend(target)
    try:
        alone = backend.device_lock(HostLock()).exclusive
        return measure_server(backend.open, subject, rate, seconds, alone, seed)
    except BackendError as exc:
        raise blamed(exc) from exc


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
    check_profile(target)
    ((model, specs),) = read_files([path], target)
    backend = open_backend(target)

    def run() -> list[OperatorTime]:
        with backend.device_lock(HostLock()).exclusive(), backend.open() as worker:
            return worker.profile(model, random_inputs(path, specs), runs)

    try:
        return persevere(run)
    except BackendError as exc:
        raise blamed(exc) from exc


def check_profile(target: Target) -> None:
    """Check that operators can be timed on a target.

    Raises:
        ConfigError: If not.
    """
    needs_time(target, "`--profile` reports what operators take")


def check_loadgen(target: Target) -> None:
    """Check that LoadGen can time on a target.

    Raises:
        ConfigError: If not, or it isn't installed.
    """
    needs_time(target, "`--referee loadgen` times a file")
    check_referee(target)


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
    check_loadgen(target)
    ((model, specs),) = read_files([path], target)
    with HostLock().exclusive():
        return referee(model, random_inputs(path, specs), target, seconds)
