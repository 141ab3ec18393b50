"""A search, from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness_search.engine import search as _search
from harness_search.progress import Progress

if TYPE_CHECKING:
    from harness_search.engine import SearchResult
    from harness_search.settings import Settings


def search(settings: Settings, progress: Progress | None = None) -> SearchResult:
    """Search for the most accurate network within a latency budget; see `harness search`.

    Args:
        settings: What to search for, and where.
        progress: Told what is going on; None for silence.

    Raises:
        HarnessError: See `harness.errors`.
    """
    return _search(settings, progress if progress is not None else Progress())
