"""Kill this process, with SIGKILL, before or after the n-th call of a function."""

from __future__ import annotations

import functools
import importlib
import os
import signal
from typing import Any


def arm(point: str) -> None:
    """Arm `module:attribute:n:before|after`; the attribute may be `Class.method`."""
    module, attribute, count, when = point.split(":")
    owner: Any = importlib.import_module(module)
    *path, name = attribute.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == int(count) and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == int(count) and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)
