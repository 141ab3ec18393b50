"""Hardware-aware search and benchmarking: the most accurate network within a latency budget."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api.bench import bench
    from harness.api.compress import compress, rebuild
    from harness.api.doctor import examine
    from harness.api.search import plan, replay, search
    from harness.api.sensitivity import sensitivity
    from harness.api.single import loadgen, profile, serve

__version__ = "0.1.0"
__all__ = [
    "__version__", "bench", "compress", "examine", "loadgen", "plan", "profile", "rebuild",
    "replay", "search", "sensitivity", "serve",
]  # fmt: skip

_WHERE = {
    "bench": "bench", "compress": "compress", "examine": "doctor", "loadgen": "single",
    "plan": "search", "profile": "single", "rebuild": "compress", "replay": "search",
    "search": "search", "sensitivity": "sensitivity", "serve": "single",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import the API on first use: `import harness` itself stays free of heavy packages."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"harness.api.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
