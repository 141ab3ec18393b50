"""Tasks by name; a task's module is imported on use."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.tasks.base import Task

TASKS = {"digits": "harness.tasks.digits:Digits"}
"""Name -> "module:Class"."""
DEFAULT = "digits"


def task_class(name: str) -> type[Task]:
    """Return the class of a task.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name.lower(), TASKS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"Unknown task {name!r}. Known: {', '.join(TASKS)}.{hint} See `harness tasks`."
        )
    module, _, attribute = TASKS[name].partition(":")
    found: type[Task] = getattr(importlib.import_module(module), attribute)
    return found
