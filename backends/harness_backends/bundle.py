"""The agent as one text: its modules' sources, and what puts them in place over there."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from harness_backends.agent.child import BOOT

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BOOT", "document"]

_AGENT = "harness_backends.agent"
MODULES = (
    "harness.measurement.lockfile",
    *(f"{_AGENT}.{name}" for name in (
        "frames", "machine", "process", "store", "timing", "counting", "runtimes", "worker",
        "child", "supervisor",
    )),
)  # fmt: skip
"""What is sent, each after what it imports."""
OLDEST_PYTHON = (3, 8)
"""JetPack 5 has it."""
_PLACE = f"""
import sys, types
if sys.version_info < {OLDEST_PYTHON}:
    sys.exit("Python {".".join(map(str, OLDEST_PYTHON))} or newer is needed, this is "
             + sys.version.split()[0])
for name in s["packages"]:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for name, text in s["modules"]:
    sys.modules[name] = module = types.ModuleType(name)
    parent, _, last = name.rpartition(".")
    setattr(sys.modules[parent], last, module)
    exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)
sys.modules[s["main"]].main(s)
"""


def document(setup: Mapping[str, Any]) -> bytes:
    """Return what BOOT reads to become a supervisor with this setup."""
    packages = sorted({_parents for name in MODULES for _parents in _packages(name)})
    whole = {
        **setup, "boot": _PLACE, "packages": packages, "modules": sources(),
        "main": f"{_AGENT}.supervisor",
    }  # fmt: skip
    return json.dumps(whole).encode()


@cache
def sources() -> list[tuple[str, str]]:
    """Return the modules' names and texts."""
    return [(name, _source(name)) for name in MODULES]


def _source(name: str) -> str:
    package, _, module = name.rpartition(".")
    return (resources.files(package) / f"{module}.py").read_text(encoding="utf-8")


def _packages(name: str) -> list[str]:
    parts = name.split(".")[:-1]
    return [".".join(parts[: i + 1]) for i in range(len(parts))]
