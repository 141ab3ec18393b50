"""A lost connection costs the work in flight: that is done again from its beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from harness.errors import ConnectionLost, DeviceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_TRIES = 3


def persevere(work: Callable[[], T]) -> T:
    """Do work over a connection that may be lost, and return its result.

    Args:
        work: Has no effect unless it ends; begins with a worker of its own.

    Raises:
        DeviceUnreachable: If the connection is lost every time.
    """
    lost: ConnectionLost | None = None
    for _ in range(_TRIES):
        try:
            return work()
        except ConnectionLost as exc:
            lost = exc
    raise DeviceUnreachable(
        f"{lost} That happened {_TRIES} times in a row. Find out what ends it, and run the same "
        "command again."
    ) from lost
