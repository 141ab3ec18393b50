"""The file of finished pairs: each is appended at once, so a stopped run loses one at most."""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path

Key = tuple[str, str, float, int, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One tool's figure for one pair.

    Attributes:
        condition: `"idle"` or `"burst"`.
        case: What the benchmark varies, such as the planted slow-down in percent; may be empty.
        seconds: Asked for the pair.
        index: Of the pair.
        tool, version: Who measured.
        value, lo, hi: As in `Ratio`; None where there is none.
        wall_s: What the tool really took for the pair, start-up included.
        error: Why there is no value; empty where there is one.
    """

    condition: str
    case: str
    seconds: float
    index: int
    tool: str
    version: str
    value: float | None
    lo: float | None
    hi: float | None
    wall_s: float
    error: str

    @property
    def key(self) -> Key:
        """What makes it another measurement than the others."""
        return self.condition, self.case, self.seconds, self.index, self.tool


class PairsFile:
    """A CSV of rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        names = ",".join(field.name for field in fields(Row)) + "\n"
        text = path.read_text() if path.exists() else ""
        # A run that was killed while writing leaves half a line.
        path.write_text(text[: text.rfind("\n") + 1] or names)

    def read(self) -> list[Row]:
        """Return all rows, oldest first."""
        with self._path.open(newline="") as file:
            return [_parsed(row) for row in csv.DictReader(file)]

    def append(self, row: Row) -> None:
        """Write one row through to the file."""
        with self._path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(astuple(row))


def _parsed(row: dict[str, str]) -> Row:
    numbers = {name: float(row[name]) if row[name] else None for name in ("value", "lo", "hi")}
    return Row(
        condition=row["condition"], case=row["case"], seconds=float(row["seconds"]),
        index=int(row["index"]), tool=row["tool"], version=row["version"], **numbers,
        wall_s=float(row["wall_s"]), error=row["error"],
    )  # fmt: skip
