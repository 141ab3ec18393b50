"""The command line with a made-up clock and a task that trains in a second.

Run as `python -m support.cli ARGS`, with HARNESS_CONFIG_DIR holding TARGETS_TOML.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.cli import main
from harness.folders import cache_folder
from harness.measurement import hostlock
from harness.tasks import TASKS
from harness_backends.registry import BACKENDS
from harness_backends.testing.fake import FakeBackend

TARGETS_TOML = """\
[fake]
backend = "fake"
granule = 4
[emulated]
backend = "fake"
granule = 4
emulated_cpu = "cortex-a76"
"""


def register() -> None:
    """Make the fake backend and the tiny task known.

    A made-up clock is disturbed by nothing, so nobody has to wait for the host's lock: each cache
    folder has its own.
    """
    hostlock.FOLDER = cache_folder()
    hostlock.FOLDER.mkdir(parents=True, exist_ok=True)
    BACKENDS["fake"] = FakeBackend.PATH
    TASKS["tiny"] = "support.tiny:tiny"


@contextmanager
def registered(folder: Path, targets: str = TARGETS_TOML) -> Iterator[None]:
    """Register in this process, with settings and caches below `folder`; undone at the end."""
    (folder / "config").mkdir()
    (folder / "config" / "targets.toml").write_text(targets)
    known = dict(BACKENDS), dict(TASKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CONFIG_DIR", str(folder / "config"))
        patch.setenv("HARNESS_CACHE_DIR", str(folder / "cache"))
        patch.setattr(hostlock, "FOLDER", hostlock.FOLDER)
        register()
        yield
    for registry, before in zip((BACKENDS, TASKS), known, strict=True):
        registry.clear()
        registry.update(before)


if __name__ == "__main__":
    register()
    pause = os.environ.get("SUPPORT_KILL_AT")
    if pause:
        from support import killing

        killing.arm(pause)
    main()
