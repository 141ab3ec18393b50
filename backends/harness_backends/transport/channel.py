"""A worker: the one process that loads models and owns the clock, spoken to over a link."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from typing import TYPE_CHECKING, Any

from harness.errors import BackendError, ConnectionLost, DeviceLost, DeviceUnreachable
from harness_backends.transport.link import Link, NotKept, Silent

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 120.0
"""Longest wait for one reply: a runtime that is silent for longer hangs."""
_KEYS = itertools.count()


class Channel:
    """A running worker.

    Args:
        link: To its supervisor.
        runtime: Key of the agent's runtime.
        timeout_s: Longest wait for one reply, seconds; `TIMEOUT_S` unless given.

    Raises:
        DeviceLost: If it doesn't begin.
        BackendError: If its runtime can't be loaded.
        ConnectionLost: If the supervisor can't be spoken to.
    """

    def __init__(self, link: Link, runtime: str, timeout_s: float | None = None) -> None:
        self.link, self._key = link, str(next(_KEYS))
        self.timeout_s = TIMEOUT_S if timeout_s is None else timeout_s
        self._ended: DeviceLost | None = None
        try:
            self.hello = self.request({"op": "open", "runtime": runtime})[0]
        except BaseException:
            self.close()
            raise

    def request(
        self, header: Mapping[str, Any], blob: bytes = b"", expected_s: float = 0.0
    ) -> tuple[dict[str, Any], bytes]:
        """Send a request and return its reply.

        Args:
            header: What is asked.
            blob: Data that goes with it.
            expected_s: What the work itself takes, seconds; the time-out begins after that.

        Raises:
            BackendError: If the runtime refused; the text is its own.
            DeviceLost: If the process died or did not answer in time.
            ConnectionLost: If the supervisor can't be spoken to any more.
        """
        if self._ended is not None:
            raise self._ended
        try:
            return self.link.request(
                {**header, "worker": self._key}, blob, self.timeout_s + expected_s
            )
        except Silent:
            self._ended = DeviceLost(
                f"The timing process did not answer within {self.timeout_s:.0f} s; it was ended."
            )
            self._end()
            raise self._ended from None

    def request_with(
        self,
        kept: Mapping[str, bytes],
        header: Mapping[str, Any],
        blob: bytes = b"",
        expected_s: float = 0.0,
    ) -> tuple[dict[str, Any], bytes]:
        """Send a request that names data by their hashes; they go over the line where missing.

        Args:
            kept: The data by the header's key for their hash.
            header: All else.
            blob: Data that goes with it.
            expected_s: As in `request`.

        Raises:
            BackendError: As `request`.
            DeviceUnreachable: If the device can't keep the data: no candidate is to blame.
        """
        named = {key: hashlib.sha256(data).hexdigest() for key, data in kept.items()}
        try:
            return self.request({**header, **named}, blob, expected_s)
        except NotKept:
            self._put(kept, named)
        try:
            return self.request({**header, **named}, blob, expected_s)
        except NotKept as exc:
            raise DeviceUnreachable(
                f"{self.link.launch.where} does not keep what it was sent in "
                f"{self.link.launch.folder}. Look at the disk there."
            ) from exc

    def _put(self, kept: Mapping[str, bytes], named: Mapping[str, str]) -> None:
        for key, data in kept.items():
            try:
                self.link.put(named[key], data)
            except (ConnectionLost, DeviceLost):
                raise
            except BackendError as exc:
                size = f"{len(data) / 1e6:.1f} MB"
                raise DeviceUnreachable(
                    f"{self.link.launch.where} could not keep {size} in "
                    f"{self.link.launch.folder} ({exc}). Free some space there."
                ) from exc

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(ConnectionLost):
            self._end()

    def _end(self) -> None:
        try:
            self.link.request({"op": "close", "worker": self._key}, wait_s=20.0)
        except Silent:
            raise self.link.give_up_silent() from None
