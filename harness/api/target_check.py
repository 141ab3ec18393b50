"""Reach a target, read what its boards say of themselves, and time a small model for a second."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.api.target import chosen_target
from harness.errors import HarnessError
from harness.measurement import flags as flag
from harness.measurement import reference as frozen
from harness.measurement.hostlock import HostLock
from harness.measurement.persevering import persevere
from harness.measurement.rounds import measure, quick
from harness_backends.registry import open_backend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.measurement.types import Measurement
    from harness.target import Target
    from harness_backends.base import Backend

_TIMED_S = 1.0
_UNFIT = 4
_MODEL = "reference"


@dataclass(frozen=True, slots=True)
class HostCheck:
    """What was found of one board.

    Attributes:
        host: As ssh knows it; None for this machine.
        facts: What the timing process said of itself and its machine; None where it was not
            reached.
        before: The state of the machine when it was reached; None likewise.
        measurement: Of the small model; None where it was not timed.
        error: What failed; None where nothing did.
    """

    host: str | None
    facts: Mapping[str, Any] | None = None
    before: Mapping[str, Any] | None = None
    measurement: Measurement | None = None
    error: HarnessError | None = None

    @property
    def after(self) -> Mapping[str, Any]:
        """The state after the timing, else the first one; empty where none is known."""
        if self.measurement is not None:
            last: Mapping[str, Any] = self.measurement.environment["processes"][-1]["after"]
            return last
        return self.before or {}

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What stands in the way of trusting what is timed there; empty where nothing does."""
        found = self.measurement.flags if self.measurement is not None else ()
        blocking = [
            f"{name}: {flag.BLOCKING[name]}"
            for name in found
            if name in flag.BLOCKING and name != "emulated"  # that is what it was asked to be
        ]
        slowed = ", ".join(self.after.get("throttled") or ())
        return (*blocking, *([f"the board reports now: {slowed}"] if slowed else []))

    @property
    def exit_code(self) -> int:
        """0 usable, 4 reached but unfit, else that of the error."""
        if self.error is not None:
            return self.error.exit_code
        return _UNFIT if self.obstacles else 0


def check_target(
    target: str | Target, on_host: Callable[[str], None] = lambda host: None
) -> list[HostCheck]:
    """Check every board of a target, one after the other; a board that fails hides no other.

    Args:
        target: A name of `harness targets`, or a `Target`.
        on_host: Told which host is next.

    Raises:
        ConfigError: If there is no such target.
        BackendUnavailable: If it can't be used from here, such as for want of a host.
    """
    target = chosen_target(target)
    open_backend(target)
    found = []
    for host in target.hosts or (None,):
        on_host(host or "this machine")
        own = replace(target, hosts=(host,)) if host is not None else target
        found.append(_check_host(own, host))
    return found


def _check_host(target: Target, host: str | None) -> HostCheck:
    check = HostCheck(host)
    try:
        backend = open_backend(target)
        facts, before = persevere(lambda: _asked(backend))
        check = replace(check, facts=facts, before=before)
        check = replace(check, measurement=_time(backend))
    except HarnessError as exc:
        return replace(check, error=exc)
    return check


def _asked(backend: Backend) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return facts and state of the machine; somebody may be timing there, and goes first."""
    with backend.device_lock(HostLock()).shared(), backend.open() as worker:
        return worker.facts, worker.state()


def _time(backend: Backend) -> Measurement:
    subjects = {_MODEL: frozen.frozen_reference()}
    plan = quick(_TIMED_S, quantity=backend.target.quantity)
    alone = backend.device_lock(HostLock()).exclusive
    return measure(backend.open, subjects, None, plan, alone)[_MODEL]
