"""The before/after report of a compression, and how it is kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.quantity import Quantity, quantity_on

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

SCHEMA = 3
_REMEDY = (
    "Restore it; or move report.json away and run the same command: finished steps are kept, and "
    "what they made is exported, scored and timed anew."
)


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
        training: How networks were trained, by the task's recipe: its `recipe`, `reduction` (the
            part of the training split that steps train on) and `augmentation`; what a step did
            otherwise is in its decision.
        files: SHA-256 of the files that can't be made from the report, by name.
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
    training: dict[str, Any]
    files: dict[str, str]
    change: dict[str, dict[str, float]]
    flags: list[str]
    test_reads: int
    seed: int
    versions: dict[str, str]
    environment: dict[str, Any]
    git: dict[str, Any]

    @property
    def quantity(self) -> Quantity:
        """What calls were measured in: time, or instructions on an emulated CPU."""
        return quantity_on(self.target["emulated_cpu"])

    def to_json(self) -> bytes:
        """Return the report as JSON, with a hash of all the rest."""
        content = json.loads(json.dumps(asdict(self), allow_nan=False))
        whole = {**content, "sha256": _sha256_of(content)}
        return json.dumps(whole, indent=1).encode() + b"\n"

    def check_files(self, folder: Path) -> None:
        """Check that the files are the ones that were reported on.

        Raises:
            ConfigError: If one is missing or was changed.
        """
        for name, expected in self.files.items():
            path = folder / name
            try:
                found = hash_of(path)
            except OSError as exc:
                raise ConfigError(f"{path} can't be read ({exc.strerror}). {_REMEDY}") from exc
            if found != expected:
                raise ConfigError(
                    f"{path} is not the file that was reported on: its hash differs. {_REMEDY}"
                )


def read_report(path: Path) -> Report:
    """Return the report in a file.

    Raises:
        ConfigError: If it can't be read, is of another version, or was changed.
    """
    content = read_json(path)
    expected = {"sha256", *(one.name for one in fields(Report))}
    if content.keys() != expected or content["schema"] != SCHEMA:
        raise ConfigError(f"{path} is no report of this version. {_REMEDY}")
    if content.pop("sha256") != _sha256_of(content):
        raise ConfigError(f"{path} was changed after it was written: its hash differs. {_REMEDY}")
    return Report(**content)


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, needed: Collection[str] = ()) -> dict[str, Any]:
    """Return a JSON object from a file of ours.

    Args:
        path: Which.
        needed: Keys that it must have.

    Raises:
        ConfigError: If it can't be read, or is none.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        missing = [key for key in needed if key not in content]
        if missing:
            raise ValueError(f"no {', '.join(missing)}")
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"{path} is corrupt: {exc}. Move its folder away, or give another `--run NAME`."
        ) from exc
    return content


def _sha256_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
