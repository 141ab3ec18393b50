"""Backends by name: built-ins in one dict, imported on use; others through entry points."""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BackendUnavailable, ConfigError
from harness.measurement.persevering import persevere
from harness.provenance import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from harness.measurement.types import TimingWorker
    from harness.target import Target
    from harness_backends.base import Backend, DeviceLock

BACKENDS = {"onnxruntime": "harness_backends.onnxruntime:OnnxRuntimeBackend"}
"""Name -> "module:Class"."""
DEVICE_TREE_MODEL = Path("/proc/device-tree/model")
ENTRY_POINTS = "harness.backends"
"""Group under which another distribution offers a backend."""


def backend_class(name: str) -> type[Backend]:
    """Return the class of a backend.

    Raises:
        BackendUnavailable: If there is none of that name.
    """
    path = BACKENDS.get(name)
    if path is not None:
        module, _, attribute = path.partition(":")
        found: type[Backend] = getattr(importlib.import_module(module), attribute)
        return found
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        loaded: type[Backend] = point.load()
        return loaded
    raise BackendUnavailable(
        f"Backend {name!r} is not part of this version. Available: {', '.join(sorted(BACKENDS))}. "
        f"A plug-in can add it through the entry-point group {ENTRY_POINTS!r}."
    )


def open_backend(target: Target) -> Backend:
    """Return the backend that times on `target`, checked to be usable.

    Raises:
        BackendUnavailable: If it can't be used here; the message has the remedy.
    """
    if target.board and not target.hosts and not is_here(target):
        raise BackendUnavailable(_no_host(target))
    try:
        backend = backend_class(target.backend)(target)
        backend.check_available()
    except BackendUnavailable as exc:
        raise BackendUnavailable(f"Target {target.name!r} can't be used here: {exc}") from exc
    return backend


def facts_of(backend: Backend, lock: DeviceLock) -> Mapping[str, Any]:
    """Return what a worker says of itself and its machine.

    Raises:
        ConfigError: If the machines of a target are of several kinds.
        DeviceUnreachable: If one can't be reached.
        BackendError: If its runtime fails.
    """
    facts = _asked(backend.open, lock.shared)
    key = fingerprint(backend.target, facts)
    for place in backend.more_places():
        own = _asked(place.open, place.exclusive)
        if fingerprint(backend.target, own) != key:
            raise ConfigError(
                f"Target {backend.target.name!r}: {place.name} is not of one kind with "
                f"{backend.target.hosts[0]}: {_kind(own)} there, {_kind(facts)} here. Make it a "
                "target of its own, or give both the same runtime and power mode."
            )
    return facts


def _asked(
    open_worker: Callable[[], AbstractContextManager[TimingWorker]],
    held: Callable[[], AbstractContextManager[None]],
) -> Mapping[str, Any]:
    def ask() -> Mapping[str, Any]:
        with held(), open_worker() as worker:
            return worker.facts

    return persevere(ask)


def _kind(facts: Mapping[str, Any]) -> str:
    machine = facts["machine"]
    shown = (
        machine.get("device_model"), f"CPU {machine['cpu_model']} x {machine['cpu_count']}",
        machine.get("power_mode") and f"power mode {machine['power_mode']}",
        f"{machine['memory_bytes'] / 2**30:.1f} GiB", f"runtime {facts['runtime_version']}",
    )  # fmt: skip
    return ", ".join(part for part in shown if part)


def is_here(target: Target) -> bool:
    """Whether this machine is the board that a target speaks of."""
    try:
        model = DEVICE_TREE_MODEL.read_text(errors="replace")
    except OSError:
        return False
    return any(words in model for words in target.board)


def _no_host(target: Target) -> str:
    """Return what to do about a board of which nobody said where it is."""
    runtime = "" if target.backend in BACKENDS else " --backend onnxruntime"
    return (
        f"Target {target.name!r} is a board, and no host is known for it. Run `harness targets add "
        f"{target.name} --host USER@BOARD{runtime}`, then `harness targets check {target.name}`. "
        "On the board itself no host is needed."
    )
