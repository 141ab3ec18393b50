"""Channel counts in steps that the target rewards, finer only where a goal asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.compression.steps.base import Listener

Found = TypeVar("Found")


def in_granules(
    first: int, listener: Listener, choose: Callable[[int], Found]
) -> tuple[Found, int]:
    """Return what is chosen in steps of the target's granule, and the granule.

    It is halved as long as the goal is out of reach: off its granule a network is smaller and yet
    slower, so finer steps are the last resort.

    Args:
        first: The target's granule.
        listener: Is told.
        choose: From a granule to what is chosen.

    Raises:
        ConfigError: As `choose`, with the finest granule.
    """
    granule = first
    while True:
        try:
            found = choose(granule)
            break
        except ConfigError:
            if granule == 1:
                raise
            granule //= 2
    if granule < first:
        listener.note(
            f"channel counts go in steps of {granule}: in those of {first}, which the target "
            "rewards, the goal is out of reach"
        )
    elif granule > 1:
        listener.note(f"channel counts go in steps of {granule}, which the target rewards")
    return found, granule
