"""The target that a command was given: its name, `--threads` and `--set`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.target import Target


def chosen_target(name: str, threads: str | None, settings: Sequence[str] | None) -> Target:
    """Return the target of that name with the options of this run.

    Raises:
        ConfigError: If there is no such target, or an option doesn't fit.
    """
    from harness.units import parse_count
    from harness_backends.targets import find_target

    options = list(settings or ())
    if threads is not None:
        options.append(f"threads={parse_count(threads, '--threads')}")
    return find_target(name).with_settings(options)
