"""A neighbour on the machine that bursts at random, as other tenants and cron jobs do.

It sleeps for a time drawn from Exp(0.2 s), then multiplies matrices on two threads for a time
drawn from Exp(0.1 s), and so on. It is a process of its own and ends with the one that started it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SLEEP_S, _WORK_S = 0.2, 0.1
_THREADS, _SIZE = 2, 512


@contextmanager
def bursting(seed: int) -> Iterator[None]:
    """Keep a neighbour running for the length of the context."""
    # One BLAS thread for each of ours: two in all.
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, __file__, str(seed), str(os.getpid())], env=env, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError("the neighbour did not start")
            yield
        finally:
            process.kill()


def burst(seed: int, parent: int) -> None:
    """Sleep and work in turn while `parent` is the process that started this one."""
    import numpy as np  # not before: the parent needs none of it from this file

    rng = random.Random(seed)
    matrix = np.random.default_rng(seed).standard_normal((_SIZE, _SIZE), dtype=np.float32)

    def work(until: float) -> None:
        while time.monotonic() < until:
            matrix @ matrix

    print("ready", flush=True)
    while os.getppid() == parent:
        time.sleep(rng.expovariate(1 / _SLEEP_S))
        until = time.monotonic() + rng.expovariate(1 / _WORK_S)
        threads = [threading.Thread(target=work, args=(until,)) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    burst(int(sys.argv[1]), int(sys.argv[2]))
