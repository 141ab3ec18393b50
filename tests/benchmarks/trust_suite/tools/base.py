"""What a tool is: something that compares two units within about the given time."""

from __future__ import annotations

import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from trust_suite.intervals import Ratio

CHILDREN = Path(__file__).parents[1] / "children"


class ToolError(Exception):
    """A tool failed, or can't do what was asked."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What is timed as one: an ONNX file, run `repeat` times."""

    path: Path
    repeat: int = 1


class Tool(ABC):
    """A timing tool; one thread, batch 1, on the CPU.

    Attributes:
        distribution: What to install for it.
    """

    distribution: ClassVar[str]

    @abstractmethod
    def compare(
        self, a: Unit, b: Unit, seconds: float, seed: int, confidence: float = 0.99
    ) -> Ratio:
        """Return time(b) / time(a), both measured anew.

        Args:
            a: The reference.
            b: The candidate.
            seconds: For both together, starting processes included, where the tool lets us choose.
            seed: Of what is random in the tool.
            confidence: Of the interval.

        Raises:
            ToolError: If the tool fails.
        """

    def p50_s(self, unit: Unit, seconds: float, seed: int) -> float:
        """Return the raw median over all calls, seconds.

        Raises:
            ToolError: If the tool fails, or reports no such figure.
        """
        raise ToolError(f"{type(self).__name__} reports no median of all calls")


def run_python(script: str, *arguments: object, timeout_s: float) -> str:
    """Run one of `children/` in a fresh interpreter and return what it printed."""
    return run_command([sys.executable, CHILDREN / script, *arguments], timeout_s)


def run_command(command: list[object], timeout_s: float) -> str:
    """Run a command and return what it printed.

    Raises:
        ToolError: If it fails, or takes longer than `timeout_s`.
    """
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=timeout_s,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise ToolError(f"no answer within {timeout_s:.0f} s") from exc
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()
        raise ToolError(f"exit code {done.returncode}: {said[-1]}")
    return done.stdout
