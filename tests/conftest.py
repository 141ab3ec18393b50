"""Each of pytest-xdist's processes has a core of its own.

What is trained in one would otherwise run threads on the cores of the others, and threads that
wait for each other on a busy core are many times slower than one thread alone. Children inherit it.
"""

from __future__ import annotations

import os

pytest_plugins = ["support.board.fixtures"]


def _take_one_core() -> None:
    cores = sorted(os.sched_getaffinity(0))
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.startswith("gw") and len(cores) > 1:
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})


_take_one_core()  # before torch is imported, which counts cores then
