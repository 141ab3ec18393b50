"""The tools by name; each is asked for the ratio of two units and forms it as its users do."""

from __future__ import annotations

import importlib.metadata

from trust_suite.tools.base import Tool, ToolError, Unit
from trust_suite.tools.loadgen import LoadGen
from trust_suite.tools.naive import Naive
from trust_suite.tools.openvino_app import BenchmarkApp
from trust_suite.tools.ours import Ours
from trust_suite.tools.pyperf_runner import Pyperf

__all__ = ["TOOLS", "Tool", "ToolError", "Unit", "installed", "version"]

TOOLS: dict[str, type[Tool]] = {
    "naive": Naive,
    "pyperf": Pyperf,
    "benchmark_app": BenchmarkApp,
    "loadgen": LoadGen,
    "ours": Ours,
}


def installed(name: str) -> bool:
    """Whether a tool can be used here."""
    try:
        return bool(version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def version(name: str) -> str:
    """Return the installed version of a tool; naive's is that of ONNX Runtime, all that it uses."""
    return importlib.metadata.version(TOOLS[name].distribution)
