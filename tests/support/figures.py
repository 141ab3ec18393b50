"""Keep the figures that a module draws."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from matplotlib.figure import Figure


def keep_figures(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[Figure]:
    """Return a list that gets every figure which a module makes from now on."""
    made: list[Figure] = []

    class Kept(Figure):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(module, "Figure", Kept)
    return made
