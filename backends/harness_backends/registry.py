"""Backends by name: built-ins in one dict, imported on use; others through entry points."""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BackendUnavailable
from harness.measurement.persevering import persevere

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        cls = backend_class(target.backend)
        if not target.hosts:  # a board's runtime is looked at when it is first connected to
            cls.check_available()
    except BackendUnavailable as exc:
        raise BackendUnavailable(f"Target {target.name!r} can't be used here: {exc}") from exc
    return cls(target)


def facts_of(backend: Backend, lock: DeviceLock) -> Mapping[str, Any]:
    """Return what a worker says of itself and its machine.

    Raises:
        DeviceUnreachable: If the device can't be reached.
        BackendError: If its runtime fails.
    """

    def ask() -> Mapping[str, Any]:
        with lock.shared(), backend.open() as worker:
            return worker.facts

    return persevere(ask)


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
