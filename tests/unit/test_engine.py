"""What a search does to its caller's torch: nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from harness.budget import parse_budgets
from harness.errors import ConfigError
from harness.target import Target
from harness_backends.registry import BACKENDS
from harness_backends.testing.fake import FakeBackend
from harness_search import engine
from harness_search.plan import plan
from harness_search.progress import Progress
from harness_search.settings import Settings
from support.tiny import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("run", [engine.search, plan])
def test_random_numbers_and_threads_are_given_back_also_on_failure(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[int] = []

    def failing(*args: Any) -> None:
        seen.append(torch.get_num_threads())
        raise ConfigError("no groups")

    monkeypatch.setitem(BACKENDS, "fake", FakeBackend.PATH)
    monkeypatch.setattr(engine, "prunable_graph", failing)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    settings = Settings(Target("t", "fake"), parse_budgets("50%"), trials=1, results=tmp_path)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with pytest.raises(ConfigError, match="no groups"):
        run(settings, tiny(), Progress())
    assert seen == [3]
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
