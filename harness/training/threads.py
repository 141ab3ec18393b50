"""Torch's threads and random numbers around a training."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def use_all_cores() -> int:
    """Let torch use every core that this process may run on; return how many."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    return cores


@contextlib.contextmanager
def torch_kept() -> Iterator[None]:
    """Give torch's random numbers and its thread count back as they were, whatever happens.

    Training runs on the CPU, so its generator is the only one that is looked after.
    """
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
