"""Programs that building needs: argument lists, and one clear error where one fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from harness.errors import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LIMIT_S = 900.0
_FULL = "No space left on device"


def require(programs: Mapping[str, str]) -> None:
    """Check that programs are installed.

    Args:
        programs: Program -> the package that has it, in Debian's words.

    Raises:
        BackendUnavailable: If some are missing.
    """
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        packages = " ".join(dict.fromkeys(programs[name] for name in missing))
        raise BackendUnavailable(
            f"The emulated ARM machine is made with {' and '.join(missing)}, not found here. "
            f"Install {packages} (on Debian and Ubuntu `sudo apt-get install {packages}`)."
        )


def run(
    argv: Sequence[str],
    what: str,
    remedy: str,
    folder: Path | None = None,
    extra: Mapping[str, str] | None = None,
) -> str:
    """Run a program and return what it printed.

    Args:
        argv: Program and arguments.
        what: What it does, for the error: "Fetching Debian packages".
        remedy: What to do where it fails.
        folder: Where it runs.
        extra: Environment variables, over this process's.

    Raises:
        BackendUnavailable: If it fails, or takes longer than 15 minutes.
    """
    environment = {**os.environ, "LC_ALL": "C", **(extra or {})}
    try:
        ended = subprocess.run(
            argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=_LIMIT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BackendUnavailable(f"{what} failed: {exc}. {remedy}") from exc
    if ended.returncode:
        raise BackendUnavailable(f"{what} failed: {_reason(ended)}. {remedy}")
    return ended.stdout


def _reason(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the line that says why a program failed: errors before the rest."""
    lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    if any(_FULL in line for line in lines):
        return _FULL
    errors = [line for line in lines if line.startswith(("E:", "ERROR:", "Err:"))]
    told = (errors[:1] or lines[-1:] or [f"exit status {ended.returncode}"])[0]
    if ended.returncode < 0:
        told = f"{told} (signal {-ended.returncode})"
    return told.rstrip(".")
