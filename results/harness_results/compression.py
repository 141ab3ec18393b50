"""A compression's own folder: what was asked, each step's outcome, and the before/after report."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from harness.atomic import write_atomic
from harness.errors import ConfigError
from harness_results.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What a compression did to a network; SI units, None is unknown.

    Attributes:
        schema: Version of this layout.
        run: The compression's name.
        date_utc: When the report was made, ISO 8601.
        task: As in a `RunRecord`.
        target: Options of the target and the backend's version.
        steps: In order: `name`, `text` (as a user would write it), `options`, `decision`,
            `validation` (the float32 network's score after the step), `params`, `seconds`.
        before, after: Of the network as it was and as it has become: `params`, `nonzeros`, `macs`
            (multiply-accumulates for one sample), `size_bytes` and `sha256` of the file,
            `precision`, `latency` (as in a `RunRecord`; ratios are to `before`), `scores` by
            split, `parity` of the file with the torch network.
        change: By split, what the metric rose by, with its paired 95 % interval: `value`, `lo`,
            `hi`.
        flags: Blocking flags and notes of the measurement.
        test_reads: How often this compression had read the test split, this reading included.
        seed: Of everything random.
        versions: Of the packages that matter.
        environment: `fingerprint`, `machine`, and its state around each process's timing.
        git: `commit` and `dirty` of the working folder.
    """

    schema: int
    run: str
    date_utc: str
    task: dict[str, Any]
    target: dict[str, Any]
    steps: list[dict[str, Any]]
    before: dict[str, Any]
    after: dict[str, Any]
    change: dict[str, dict[str, float]]
    flags: list[str]
    test_reads: int
    seed: int
    versions: dict[str, str]
    environment: dict[str, Any]
    git: dict[str, Any]

    def to_json(self) -> bytes:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=1, allow_nan=False).encode() + b"\n"


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

    def step(self, index: int, name: str) -> Path:
        """Return the folder of a step, counted from 0."""
        return self.path / "steps" / f"{index + 1:02d}-{name}"

    def create(self) -> None:
        """Make the folder.

        Raises:
            ConfigError: If it can't be written.
        """
        with disk_errors(self.results):
            self.path.mkdir(parents=True, exist_ok=True)

    def check_identity(self, identity: Mapping[str, Any]) -> None:
        """Write what a new compression is, or hold a resumed one against what it was begun with.

        Raises:
            ConfigError: If it was another one.
        """
        path = self.path / "compression.json"
        wanted = json.loads(json.dumps(identity))
        if not path.exists():
            write_atomic(path, json.dumps(wanted, indent=1).encode() + b"\n")
            return
        known = read_json(path)
        for key, value in wanted.items():
            if known.get(key) != value:
                was, now = (json.dumps(one, ensure_ascii=False) for one in (known.get(key), value))
                raise ConfigError(
                    f"{self.path} was begun with {key} {was}; received {now}. Run it as it was "
                    "begun, or give another `--run NAME`."
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
            ConfigError: If the file is corrupt.
        """
        if not self.report.exists():
            return None
        content = read_json(self.report)
        if content.keys() != {one.name for one in fields(Report)} or content["schema"] != SCHEMA:
            raise ConfigError(
                f"{self.report} is no report of this version. Move it away, and run the same "
                "command to measure again."
            )
        return Report(**content)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file of ours.

    Raises:
        ConfigError: If it can't be read, or is none.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"{path} is corrupt: {exc}. Move its folder away, or give another `--run NAME`."
        ) from exc
    return content
