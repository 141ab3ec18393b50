"""Counting the instructions of a call, on the emulated side.

Only the standard library, valid on Python 3.8. The process must run under QEMU with the plugin
`insncount.c` (see `ArmRoot.argv`).
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
from typing import Any, Callable, Dict, List

MARK = 4242
"""Number of a system call that no kernel has: the plugin writes the count at each."""
EMPTY_CALLS = 9
"""Empty calls that are counted, to know what the marks themselves cost."""


class InstructionCounter:
    """Counts what calls execute.

    Args:
        path: The file that the plugin writes to.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._syscall = ctypes.CDLL(None).syscall
        self._syscall.argtypes = [ctypes.c_long, ctypes.c_ulong]
        self._syscall.restype = ctypes.c_long

    def count(self, call: Callable[[], object], calls: int) -> List[int]:
        """Return how many instructions each of a number of calls executes, all threads together.

        What a call of an empty function costs, marks and all, is subtracted.

        Args:
            call: Is called without arguments. Should have been called a dozen times before: the
                first call allocates, and Python settles over the next ten (about 1,000
                instructions each); from then on counts repeat to 0.1 %.
            calls: How often, at least 1.

        Raises:
            RuntimeError: If the process isn't counted, or the file couldn't be written.
        """
        collecting = gc.isenabled()
        gc.disable()  # a collection would be counted with the call that it happens in
        try:
            self._between_marks(_nothing, 1)  # the first pair costs more
            empty = statistics.median_low(self._between_marks(_nothing, EMPTY_CALLS))
            return [max(0, counted - empty) for counted in self._between_marks(call, calls)]
        finally:
            if collecting:
                gc.enable()

    def _between_marks(self, call: Callable[[], object], calls: int) -> List[int]:
        """Return the raw counts between the marks around each call."""
        # Other processes, such as a fork, may write to the file too: labels begin with our own id.
        first, written = os.getpid() << 32, self._size()
        syscall = self._syscall
        for label in range(first, first + 2 * calls, 2):
            syscall(MARK, label)
            call()
            syscall(MARK, label + 1)
        marks = self._read(written)
        try:
            return [marks[label + 1] - marks[label] for label in range(first, first + 2 * calls, 2)]
        except KeyError as exc:
            raise RuntimeError(
                "expected %d marks of this process in %s, received %d: it must run under QEMU with "
                "the counting plugin, and the disk must have room"
                % (2 * calls, self._path, sum(label >> 32 == os.getpid() for label in marks))
            ) from exc

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0  # the first mark makes it

    def _read(self, start: int) -> Dict[int, int]:
        """Return counts by label, from what was written behind `start`."""
        try:
            with open(self._path) as file:
                file.seek(start)
                lines = [line.split() for line in file if line.endswith("\n")]
        except OSError:
            return {}
        return {int(label): int(executed) for label, executed in lines}


def count_block(
    np: Any, counter: InstructionCounter, call: Callable[[], object], calls: int
) -> Any:
    """Return what `timing.time_block` does, of instructions: int64 [3, calls], no switches."""
    counted = counter.count(call, calls)
    return np.array([counted, counted, [0] * calls], dtype="<i8")


def _nothing() -> None:
    """Do nothing."""
