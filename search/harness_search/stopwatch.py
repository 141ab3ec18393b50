"""Where the time goes: wall seconds per phase."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stopwatch:
    """Adds up the wall seconds of named phases; a phase met again goes on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs inside towards a phase."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def report(self) -> dict[str, float]:
        """Return the phases, and as `other` what was in none."""
        total = time.monotonic() - self._start
        return {**self.seconds, "other": max(0.0, total - sum(self.seconds.values()))}
