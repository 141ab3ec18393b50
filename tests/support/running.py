"""Run the command line of `support.cli` as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.cli import TARGETS_TOML

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [str(ROOT / part) for part in ("tests", ".", "backends", "search", "results")]


def environment(base: Path, **extra: str) -> dict[str, str]:
    """Return an environment whose settings and caches lie below `base`."""
    config = base / "config"
    config.mkdir(parents=True, exist_ok=True)
    (config / "targets.toml").write_text(TARGETS_TOML)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(SOURCES),
        "HARNESS_CONFIG_DIR": str(config),
        "HARNESS_CACHE_DIR": str(base / "cache"),
        **extra,
    }


def run_cli(base: Path, *args: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run `harness ARGS` with a made-up clock and the tiny task available."""
    return subprocess.run(
        [sys.executable, "-m", "support.cli", *args],
        capture_output=True, text=True, timeout=300, cwd=base, env=environment(base, **extra),
    )  # fmt: skip


def run_search(
    base: Path, results: Path, *args: str, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a search of the tiny task under the made-up clock."""
    fixed = ("search", "--target", "fake", "--task", "tiny", "--results", str(results))
    return run_cli(base, *fixed, *args, **extra)


def read_records(results: Path) -> list[dict[str, Any]]:
    """Return all records of the one study in a results folder, trials in order."""
    found = [json.loads(p.read_text()) for p in results.glob("studies/*/records/*.json")]
    return sorted(found, key=lambda r: (r["kind"], r["index"] or 0, r["date_utc"]))


def trials(results: Path) -> list[dict[str, Any]]:
    """Return the trial records, in order."""
    return [record for record in read_records(results) if record["kind"] == "trial"]


def essence(record: dict[str, Any]) -> dict[str, Any]:
    """Return what of a trial must not depend on interruptions: all but clocks and identity."""
    keys = ("index", "role", "status", "suggestion", "candidate", "pruning", "probes", "training")
    return {key: record[key] for key in keys} | {
        "validation": record["scores"].get("validation"),
        "sha256": record["model"].get("sha256"),
    }


def is_gone(pid: int) -> bool:
    """Whether a process has ended and was waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
