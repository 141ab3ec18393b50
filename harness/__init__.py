"""Hardware-aware search and benchmarking: the most accurate network within a latency budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import bench, search

__version__ = "0.1.0"
__all__ = ["__version__", "bench", "search"]


def __getattr__(name: str) -> Any:
    """Import the API on first use: `import harness` itself stays free of torch."""
    if name in ("bench", "search"):
        from harness import api

        return getattr(api, name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
