"""This process: its memory, its end, and what the system may do to it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from contextlib import suppress
from typing import Optional

from harness_backends.agent.machine import read_text

_PR_SET_PDEATHSIG = 1


def forget_peak_memory() -> None:
    """Begin to measure the peak of the resident memory anew."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # the peak then counts from the process's start, when less was loaded


def peak_memory() -> Optional[int]:
    """Return the peak of the resident memory, bytes; None where the system doesn't tell."""
    for line in (read_text("/proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def be_first_to_go() -> None:
    """Have the system end this process, not the one that searches, when memory runs out."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass  # not Linux, or not allowed


def leave_no_core_file() -> None:
    """Have no image of the memory written when the runtime crashes: boards have small disks."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def end_with(parent: int) -> None:
    """End this process when `parent`, the process that started it, is gone.

    The kernel does it at once, also within native code; where it can't, this thread looks.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)
