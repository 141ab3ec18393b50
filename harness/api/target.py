"""A target as it may be given: by name or ready made, with the options of this run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.quantity import TIME
from harness.target import Target
from harness.units import parse_count
from harness_backends.targets import find_target

if TYPE_CHECKING:
    from collections.abc import Sequence


def chosen_target(
    target: str | Target, threads: str | int | None = None, settings: Sequence[str] | None = None
) -> Target:
    """Return a target with the options of this run.

    Args:
        target: A name of `harness targets`, or a target.
        threads: Of the runtime.
        settings: Texts such as `"granule=8"`; a later one overrides an earlier one.

    Raises:
        ConfigError: If there is no such target, or an option doesn't fit.
    """
    if not isinstance(target, (str, Target)):
        raise ConfigError(f"`target` must be a name or a Target. Received: {target!r}.")
    found = find_target(target) if isinstance(target, str) else target
    return found.with_settings(target_settings(threads, settings))


def target_settings(
    threads: str | int | None = None, settings: Sequence[str] | None = None
) -> list[str]:
    """Return options of a target as texts such as `"threads=2"`.

    Raises:
        ConfigError: If the settings are no texts, or there can't be so many threads.
    """
    texts = [] if settings is None else settings
    is_list = isinstance(texts, (list, tuple))
    if not is_list or not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            f"`settings` must be a list of texts such as 'granule=8'. Received: {settings!r}."
        )
    count = [] if threads is None else [f"threads={parse_count(str(threads), '--threads')}"]
    return [*texts, *count]


def needs_time(target: Target, what: str) -> None:
    """Check that a target has a time of its own.

    Args:
        target: Where.
        what: What needs it, and why, for the message.

    Raises:
        ConfigError: If its CPU is emulated.
    """
    if target.quantity is not TIME:
        raise ConfigError(
            f"{what}, and target {target.name!r} is an emulated {target.emulated_cpu}: how long "
            "that takes says nothing of a real one. Expected a real target, such as 'cpu'; here "
            "`harness bench` counts instructions."
        )
