"""A compression's own folder: what was asked, each step's outcome, and what has been read."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.atomic import write_atomic
from harness.errors import ConfigError
from harness_results.compression_identity import differing
from harness_results.compression_report import Report, read_json, read_report
from harness_results.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DECISION, OUTCOME = "decision.json", "outcome.json"
"""What a step leaves in its folder: once it knows what it does, and once it is done."""


@dataclass(frozen=True, slots=True)
class CompressionFolder:
    """`<results>/compressed/<run>`.

    Attributes:
        results: The results folder.
        run: The compression's name.
    """

    results: Path
    run: str

    @property
    def path(self) -> Path:
        """The compression's own folder."""
        return self.results / "compressed" / self.run

    @property
    def lock(self) -> Path:
        """Held by the one process that works on it."""
        return self.path / ".lock"

    @property
    def report(self) -> Path:
        """The before/after report."""
        return self.path / "report.json"

    @property
    def dense(self) -> Path:
        """The trained dense network's weights."""
        return self.path / "dense.safetensors"

    @property
    def _identity(self) -> Path:
        return self.path / "compression.json"

    def step(self, index: int, name: str) -> Path:
        """Return the folder of a step, counted from 0."""
        return self.path / "steps" / f"{index + 1:02d}-{name}"

    def create(self) -> bool:
        """Make the folder; return whether it wasn't there.

        Raises:
            ConfigError: If it can't be written.
        """
        with disk_errors(self.results):
            new = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
        return new

    def is_begun(self) -> bool:
        """Return whether a compression was begun in it."""
        return self._identity.exists()

    def has_settled(self) -> bool:
        """Return whether a step has settled what it does: training may have gone on from there."""
        return any(self.path.glob(f"steps/*/{DECISION}"))

    def discard(self) -> None:
        """Remove what was written before a step failed, and the folder, unless a step is done.

        What others have put into the folder stays, and the folder with it.
        """
        if any(self.path.glob(f"steps/*/{OUTCOME}")):
            return
        shutil.rmtree(self.path / "steps", ignore_errors=True)
        self.sweep()
        for path in (self._identity, self.dense, self.lock):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it isn't empty
            self.path.rmdir()

    def check_identity(self, identity: Mapping[str, Any]) -> None:
        """Write what a new compression is, or hold a resumed one against what it was begun with.

        Raises:
            ConfigError: If it was another one.
        """
        path = self._identity
        wanted = json.loads(json.dumps(identity))
        if not path.exists():
            write_atomic(path, json.dumps(wanted, indent=1).encode() + b"\n")
            return
        known = read_json(path)
        for key, value in wanted.items():
            if known.get(key) != value:
                was, now, words = differing(key, known.get(key), value)
                raise ConfigError(
                    f"{self.path} was begun with {key} {was}; received {now}.{words} Run it as it "
                    "was begun, or give another `--run NAME`."
                )

    def test_reads(self) -> int:
        """Return how often the test split has been read."""
        path = self.path / "test_reads.txt"
        text = path.read_text(errors="replace").strip() if path.exists() else "0"
        if not (text.isascii() and text.isdigit()):
            raise ConfigError(
                f"{path} is corrupt: expected one whole number, how often the test split has been "
                f"read. Received: {text[:20]!r}. Write the number into it."
            )
        return int(text)

    def count_test_read(self) -> int:
        """Note that the test split is about to be read; return how often it then has been."""
        reads = self.test_reads() + 1
        write_atomic(self.path / "test_reads.txt", f"{reads}\n".encode())
        return reads

    def read_report(self) -> Report | None:
        """Return the report; None where the compression isn't finished.

        Raises:
            ConfigError: If it is corrupt, or was changed.
        """
        return read_report(self.report) if self.report.exists() else None

    def sweep(self) -> None:
        """Remove temporary files that a killed process left half-written."""
        for path in self.path.rglob(".*.tmp"):
            path.unlink(missing_ok=True)
