"""Where a result comes from: versions, machine, commit."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.target import Target

_PACKAGES = (
    "latency-harness", "torch", "onnx", "optuna", "numpy", "scipy", "scikit-learn",
)  # fmt: skip


def now_utc() -> str:
    """Return the time in UTC, to the second: `2026-01-31T12:00:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def versions(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions that matter, here and in the timing process.

    Args:
        facts: What the worker said of itself.
    """
    # importlib.metadata: some packages misstate themselves in __version__.
    here = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        **here,
        "runtime": facts["runtime_version"],
        "runtime_python": facts["python"],
    }


def fingerprint(target: Target, facts: Mapping[str, Any]) -> str:
    """Return `machine_key.setup_key`: rows compare only where both are equal.

    Args:
        target: All its options enter the setup key, with the runtime's version.
        facts: What the worker said of its machine.
    """
    machine = facts["machine"]
    machine_key = [
        machine["cpu_model"],
        machine["cpu_count"],
        machine["cpu_flags"],
        machine["architecture"],
        _memory_class(machine["memory_bytes"]),
    ]
    # A board says what it is, and in which power mode its clocks are.
    machine_key += [machine[key] for key in ("device_model", "power_mode") if machine.get(key)]
    setup_key = [facts["runtime_version"], target.options()]
    return f"{_digest(machine_key)}.{_digest(setup_key)}"


def _memory_class(n_bytes: int | None) -> int | None:
    """Return GiB rounded up to a power of two; None where it is not the machine's own."""
    return None if n_bytes is None else 1 << max(0, round(n_bytes / 2**30) - 1).bit_length()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def git_state(folder: Path) -> dict[str, Any]:
    """Return the commit of the folder's repository, and whether tracked files differ from it.

    Both are None outside a repository, or without git.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit or None, "dirty": None if status is None else bool(status)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - the user's own git
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
