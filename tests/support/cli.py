"""The command line with a made-up clock and a task that trains in a second.

Run as `python -m support.cli ARGS`, with HARNESS_CONFIG_DIR holding TARGETS_TOML.
"""

from __future__ import annotations

import os

from harness.cli import main
from harness.tasks import TASKS
from harness_backends.registry import BACKENDS
from harness_backends.testing.fake import FakeBackend

TARGETS_TOML = '[fake]\nbackend = "fake"\ngranule = 4\n'


def register() -> None:
    BACKENDS["fake"] = FakeBackend.PATH
    TASKS["tiny"] = "support.tiny:tiny"


if __name__ == "__main__":
    register()
    pause = os.environ.get("SUPPORT_KILL_AT")
    if pause:
        from support import killing

        killing.arm(pause)
    main()
