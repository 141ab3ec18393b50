"""A target as it may be given: by name or ready made, with the options of this run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.units import parse_count
from harness_backends.targets import find_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.target import Target


def chosen_target(
    target: str | Target, threads: str | int | None = None, settings: Sequence[str] | None = None
) -> Target:
    """Return a target with the options of this run.

    Args:
        target: A name of `harness targets`, or a target.
        threads: Of the runtime.
        settings: Texts such as `"granule=8"`.

    Raises:
        ConfigError: If there is no such target, or an option doesn't fit.
    """
    options = list(settings or ())
    if threads is not None:
        options.append(f"threads={parse_count(str(threads), '--threads')}")
    found = find_target(target) if isinstance(target, str) else target
    return found.with_settings(options)
