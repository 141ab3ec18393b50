"""How an agent is started somewhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import DeviceLost
from harness.folders import cache_folder
from harness.measurement import hostlock
from harness_backends.bundle import BOOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.errors import HarnessError

_KEPT_HERE, KEPT_FAR = 256 << 20, 1 << 30
"""How much is kept of what was sent, bytes: on a board it comes over a slow line."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How an agent is started somewhere.

    Attributes:
        where: The device, for people.
        argv: Starts a supervisor, given the bytes that it is to read.
        worker: Starts a Python there; how the supervisor starts workers.
        folder: Where the device keeps what it was sent.
        keeps_bytes: How much it keeps.
        locks: Where its lock lies.
        environment: Beside this process's own.
        counts: The file in which an emulator counts a worker's instructions, in a folder that
            goes with the device; None where time is measured.
        watchdog_s: The supervisor ends itself when it has heard nothing for so long, seconds; None
            where the end of its standard input can't be missed.
        far: Whether what is sent takes its time.
        explained: Makes an error of a supervisor that couldn't be started, from the launching
            process's exit code (None: it doesn't exist here) and what it said.
    """

    where: str
    argv: Callable[[int], list[str]]
    worker: tuple[str, ...]
    folder: str
    keeps_bytes: int
    locks: str
    explained: Callable[[int | None, str], HarnessError]
    environment: Mapping[str, str] = field(default_factory=dict)
    counts: str | None = None
    watchdog_s: float | None = None
    far: bool = False


def local_argv() -> list[str]:
    """Return the argument list of a Python on this machine that sees the same packages."""
    return [sys.executable, "-P", "-u"]  # -P: never import from the working folder


def local() -> Launch:
    """Return how an agent is started on this machine."""
    return on_this_machine("this machine", tuple(local_argv()))


def on_this_machine(
    where: str,
    python: tuple[str, ...],
    environment: Mapping[str, str] | None = None,
    worker: tuple[str, ...] | None = None,
    counts: str | None = None,
) -> Launch:
    """Return how an agent is started with a Python of this machine.

    Args:
        where: What that is, for people.
        python: Starts it.
        environment: Beside this process's own.
        worker: Starts it for a worker; as `python` unless given.
        counts: As in `Launch`.
    """

    def explained(code: int | None, said: str) -> HarnessError:
        if code is None:
            return DeviceLost(f"The timing process could not be started: {said}.")
        words = f" Its last words: {said.splitlines()[-1]}" if said else ""
        return DeviceLost(f"The timing process {how_it_ended(code)}.{words}")

    return Launch(
        where=where,
        argv=lambda size: [*python, "-c", BOOT, str(size)],
        worker=worker or python,
        folder=str(cache_folder() / "sent"),
        keeps_bytes=_KEPT_HERE,
        locks=str(hostlock.FOLDER),
        explained=explained,
        environment=environment or {},
        counts=counts,
    )


_SIGNALS = {
    4: "SIGILL: the runtime uses instructions that this CPU lacks",
    6: "SIGABRT: the runtime gave up",
    9: "SIGKILL: the system may have run out of memory",
    11: "SIGSEGV: the runtime crashed",
}


def how_it_ended(code: int) -> str:
    """Return how a process ended, in words."""
    if code < 0:
        return f"was killed by signal {-code} ({_SIGNALS.get(-code, 'see `man 7 signal`')})"
    return f"ended with code {code}"
