"""What steps are given in tests: a context around a task, and a listener that remembers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from harness.compression.steps.base import Context
from harness.tasks.base import Task


class Heard:
    """A listener that remembers, and what a step does with the cores meanwhile."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.breaths = 0
        self.held = 0
        """How often the cores were taken."""
        self.holding = False

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def advance(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        assert not self.holding
        self.held, self.holding = self.held + 1, True
        try:
            yield
        finally:
            self.holding = False

    def breathe(self) -> None:
        assert self.holding
        self.breaths += 1


def context(task: Task, teacher: nn.Module, heard: Heard | None = None, **given: Any) -> Context:
    """Return a context that tells `heard` everything."""
    heard = heard or Heard()
    return Context(
        task=task, teacher=teacher, listener=heard, shared=heard.shared, breathe=heard.breathe,
        **given,
    )  # fmt: skip
