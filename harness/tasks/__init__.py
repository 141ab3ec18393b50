"""Tasks: a network, its data, and what it is trained for and judged by."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.models.asked import asked

if TYPE_CHECKING:
    from harness.tasks.base import Task

TASKS = {"digits": "harness.tasks.digits:digits"}
"""Shipped tasks: name -> "module:function", imported on use."""
DEFAULT = "digits"


def check_task_name(name: str) -> None:
    """Check that there is a shipped task of that name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name.lower(), TASKS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"Unknown task {name!r}. Known: {', '.join(TASKS)}; or FILE.toml as `harness init` "
            f"writes it, or {asked()} and `--data` for your own.{hint}"
        )


def shipped_task(name: str) -> Task:
    """Return a shipped task.

    Raises:
        ConfigError: If there is none of that name.
    """
    check_task_name(name)
    module, _, function = TASKS[name].partition(":")
    made: Task = getattr(importlib.import_module(module), function)()
    return made
