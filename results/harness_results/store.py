"""The results folder: where everything of a study lies."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.atomic import write_atomic
from harness.errors import ConfigError
from harness_results.files import disk_errors
from harness_results.record import RunRecord, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.measurement.types import LatencySample


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """`<results>/studies/<study>`.

    Attributes:
        results: The results folder.
        study: The study's name.
    """

    results: Path
    study: str

    @property
    def path(self) -> Path:
        """The study's own folder."""
        return self.results / "studies" / self.study

    @property
    def database(self) -> Path:
        """Optuna's storage."""
        return self.path / "study.db"

    @property
    def records(self) -> Path:
        """Records and their raw samples."""
        return self.path / "records"

    @property
    def superseded(self) -> Path:
        """Records from before a study was measured again."""
        return self.records / "superseded"

    @property
    def models(self) -> Path:
        """Exported files and weights."""
        return self.path / "models"

    @property
    def winner(self) -> Path:
        """The winner's folder."""
        return self.path / "winner"

    @property
    def test_counter(self) -> Path:
        """How often the test split has been read: one number, ahead of the records."""
        return self.path / "test_reads.txt"

    @property
    def lock(self) -> Path:
        """Held by the one process that works on the study."""
        return self.path / ".lock"

    def create(self) -> None:
        """Make the folders.

        Raises:
            ConfigError: If they can't be written.
        """
        with disk_errors(self.results):
            for folder in (self.records, self.models):
                folder.mkdir(parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Remove what a killed process left half-written: temporary files, samples alone."""
        for path in self.path.rglob(".*.tmp"):
            path.unlink(missing_ok=True)
        for path in self.records.glob("*.npz"):
            if not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)

    def write(self, record: RunRecord, samples: Mapping[str, Sequence[LatencySample]]) -> None:
        """Write a record and the raw samples beside it; the record last, so it is never alone.

        Args:
            record: What to write.
            samples: By name, such as `"probe.candidate"` or `"probe.reference"`; one sample per
                process.
        """
        arrays: dict[str, Any] = {}
        for name, taken in samples.items():
            for process, sample in enumerate(taken):
                for key, values in sample.arrays().items():
                    arrays[f"{name}.{process}.{key}"] = values
        if arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            write_atomic(self.records / f"{record.run_id}.npz", buffer.getvalue())
        write_atomic(self.records / f"{record.run_id}.json", record.to_json())

    def read(self) -> list[RunRecord]:
        """Return all records: trials by number, then the rest by time.

        Raises:
            ConfigError: If one is corrupt.
        """
        return sorted(_read_all(self.records), key=_order)

    def supersede(self, record: RunRecord) -> None:
        """Put a record and its samples aside, unchanged."""
        self.superseded.mkdir(exist_ok=True)
        for suffix in (".npz", ".json"):
            path = self.records / f"{record.run_id}{suffix}"
            if path.exists():
                path.rename(self.superseded / path.name)

    def test_reads(self) -> int:
        """Return how often the study has read the test split, whatever became of the finals.

        Raises:
            ConfigError: If the count, or a record, is corrupt.
        """
        counted = 0
        if self.test_counter.exists():
            text = self.test_counter.read_text(errors="replace").strip()
            if not (text.isascii() and text.isdigit()):
                raise ConfigError(
                    f"{self.test_counter} is corrupt: expected one whole number, how often the "
                    f"study has read the test split. Received: {text[:20]!r}. Restore the file, or "
                    "write the number into it."
                )
            counted = int(text)
        finals = [r for r in (*self.read(), *_read_all(self.superseded)) if r.kind == "final"]
        return max([counted, *(int(record.search["test_reads"]) for record in finals)])

    def count_test_read(self) -> int:
        """Note that the test split is about to be read; return how often it then has been.

        To be called before the reading: a kill right after it must not hide it.
        """
        reads = self.test_reads() + 1
        write_atomic(self.test_counter, f"{reads}\n".encode())
        return reads


def _read_all(folder: Path) -> list[RunRecord]:
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(read_record(path))
        except ConfigError:
            if path.exists():  # else its own search has put it aside since the listing
                raise
    return found


def finals_of_whole_sets(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the finals whose set is complete: its dense record, written last, is there."""

    def key(record: RunRecord) -> tuple[str, str, int, int]:
        search = record.search
        return record.study, record.budget["text"], search["trials"], search["test_reads"]

    finals = [record for record in records if record.kind == "final"]
    whole = {key(record) for record in finals if record.role == "dense"}
    return [record for record in finals if key(record) in whole]


def _order(record: RunRecord) -> tuple[bool, int, str]:
    is_trial = record.kind == "trial"
    return (not is_trial, (record.index or 0) if is_trial else 0, record.date_utc)


def all_records(results: Path) -> Iterator[tuple[StudyFolder, RunRecord]]:
    """Yield every record under a results folder, study by study.

    Raises:
        ConfigError: If one is corrupt.
    """
    for path in sorted((results / "studies").glob("*/records")):
        folder = StudyFolder(results, path.parent.name)
        for record in folder.read():
            yield folder, record


def find_record(results: Path, run_id: str) -> tuple[StudyFolder, RunRecord]:
    """Return a record by its id.

    Raises:
        ConfigError: If there is none, or it is corrupt.
    """
    for path in (results / "studies").glob("*/records/*.json"):
        if path.stem == run_id:
            return StudyFolder(results, path.parent.parent.name), read_record(path)
    raise ConfigError(
        f"No record {run_id!r} under {results}. RUN_IDs are in leaderboard.csv and trials.csv; "
        "`--results DIR` names another folder."
    )


def check_writable(results: Path) -> None:
    """Make the results folder and prove that a file can be written there.

    Raises:
        ConfigError: If not.
        ResultsError: If the disk is full.
    """
    with disk_errors(results):
        results.mkdir(parents=True, exist_ok=True)
        if not results.is_dir():
            raise ConfigError(f"{results} is not a folder. Choose another with `--results DIR`.")
        probe = results / f".writable-{os.getpid()}"
        write_atomic(probe, b"\0" * 4096)
        probe.unlink(missing_ok=True)


def relative(path: Path, folder: StudyFolder) -> str:
    """Return `path` within the study's folder, for records."""
    return str(Path(path).relative_to(folder.path))
