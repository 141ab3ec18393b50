"""An emulated ARM machine: the same agent, in QEMU's user mode, whose workers are counted."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness_backends.emulation.root import find_root
from harness_backends.transport.launch import on_this_machine

if TYPE_CHECKING:
    from harness_backends.transport.launch import Launch


def emulated(cpu: str) -> Launch:
    """Return how an agent is started in the emulated machine.

    The supervisor counts nothing; a worker writes its counts into a file of ours.

    Args:
        cpu: QEMU's name of it.

    Raises:
        BackendUnavailable: If the machine was not made yet.
        ConfigError: If there is no such CPU.
    """
    root = find_root()
    counts = Path(tempfile.mkdtemp(prefix="harness-counts-")) / "counts"
    return on_this_machine(
        f"the emulated {cpu}",
        (*root.argv(cpu), "-u"),
        environment=root.environment(),
        worker=(*root.argv(cpu, counts), "-u"),
        counts=str(counts),
    )
