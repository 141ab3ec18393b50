"""A device: a link that is made anew when it was lost, and the device's lock."""

from __future__ import annotations

import shutil
import time
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BackendError, ConnectionLost, DeviceUnreachable
from harness_backends.transport.link import Link, Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness_backends.transport.launch import Launch

PATIENCE_S = 180.0
"""How long a device that was there before is waited for: a board takes a minute to start."""
_PAUSE_S = 3.0
_LOCK_S = 2.0
"""After so long it is said that the lock is waited for."""
_SAME = ("cpu_model", "cpu_count", "architecture", "device_model", "power_mode")
"""Facts of a machine that have to be what they were."""


class Device:
    """A machine that times.

    Args:
        launch: How an agent is started there.

    Attributes:
        tell: Is told what is being waited for.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        if launch.counts is not None:
            folder = Path(launch.counts).parent
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._link: Link | None = None
        self._machine: dict[str, Any] | None = None
        self._held = 0
        self.tell: Callable[[str], None] = _say_nothing

    @property
    def name(self) -> str:
        """Where it is, for people."""
        return self.launch.where

    def link(self) -> Link:
        """Return a link to it; the first time, and after a loss, a new one.

        Raises:
            DeviceUnreachable: If it can't be reached, or came back as another machine.
            ConnectionLost: If the link was lost while the lock was held, so that others may be
                timing there by now.
        """
        if self._link is not None and self._link.alive:
            return self._link
        if self._held:
            raise ConnectionLost(f"The connection to {self.launch.where} was lost.")
        self._link = self._connect()
        return self._link

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the device's lock together with others: for scoring."""
        if self._held:
            yield
            return
        with self._locked(alone=False):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the device's lock alone: for timing."""
        with self._locked(alone=True):
            yield

    @contextmanager
    def _locked(self, alone: bool) -> Iterator[None]:
        link = self.link()
        self._take(link, alone)
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            try:
                link.request({"op": "unlock"})
            except ConnectionLost:
                pass  # the lock goes with the line
            except Silent:
                link.give_up_silent()

    def _take(self, link: Link, alone: bool) -> None:
        try:
            link.request({"op": "lock", "alone": alone}, wait_s=_LOCK_S, on_wait=self._say_taken)
        except ConnectionLost:
            raise
        except Silent:
            raise link.give_up_silent() from None
        except BackendError as exc:
            raise DeviceUnreachable(
                f"{self.launch.where}: its timing lock can't be opened ({exc}). Let its owner or "
                "an administrator remove it."
            ) from exc
        except BaseException:
            link.close()  # or the supervisor would take the lock later, for nobody
            raise

    def _say_taken(self) -> None:
        self.tell(f"waiting for {self.launch.where}: something else is being timed there")

    def _connect(self) -> Link:
        began_s = time.monotonic()
        while True:
            try:
                link = Link(self.launch)
                break
            except DeviceUnreachable as exc:
                waited_s = time.monotonic() - began_s
                if self._machine is None or not exc.passing or waited_s > PATIENCE_S:
                    raise
                self.tell(f"waiting for {self.launch.where} to come back")
                time.sleep(_PAUSE_S)
        machine = link.hello["machine"]
        if self._machine is None:
            self._machine = machine
        changed = [key for key in _SAME if machine.get(key) != self._machine.get(key)]
        if changed:
            link.close()
            raise DeviceUnreachable(
                f"{self.launch.where} came back as another machine: "
                + _differences(changed, machine, self._machine)
            )
        return link


def _say_nothing(text: str) -> None:
    pass


def _differences(keys: list[str], now: dict[str, Any], before: dict[str, Any]) -> str:
    pairs = ", ".join(f"{key} {before.get(key)} is now {now.get(key)}" for key in keys)
    return f"{pairs}. Bring it back as it was, or begin another study (`--study NAME`)."
