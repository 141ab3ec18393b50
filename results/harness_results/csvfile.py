"""CSV cells: unknown is empty, and no cell can start a spreadsheet formula."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

REMEDY = (
    "It is made from the records: `harness leaderboard rebuild`, with the same `--results`, writes "
    "it anew."
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: Any) -> str:
    """Return a value as a cell: six significant digits, lower-case booleans, unknown empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def uncell(text: str) -> str:
    """Return the text that `cell` made a cell of."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a table as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(row.get(column)) for column in columns] for row in rows)
    return buffer.getvalue().encode()


def read_csv(
    path: Path, columns: Sequence[str], what: str = "a leaderboard", remedy: str = REMEDY
) -> list[dict[str, str]]:
    """Return the rows of a table that `to_csv` wrote, also where a spreadsheet saved it again.

    Args:
        path: The file.
        columns: What it must have.
        what: The kind of table, for messages.
        remedy: What to do where it is corrupt, for messages.

    Raises:
        ConfigError: If the file can't be read, or is no such table.
    """
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True))
    except FileNotFoundError as exc:
        raise ConfigError(f"No such file: {path}. Run a search first, or name the CSV.") from exc
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"{path} is not a readable CSV: {exc}. {remedy}") from exc
    if not rows or rows[0] != list(columns):
        received = f"{len(rows[0])} others" if rows else "an empty file"
        raise ConfigError(
            f"{path}: expected the {len(columns)} columns of {what}, received {received}. {remedy}"
        )
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(columns):
            raise ConfigError(
                f"{path}, line {number}: expected {len(columns)} cells, received {len(row)}. "
                f"{remedy}"
            )
    return [dict(zip(columns, row, strict=True)) for row in rows[1:]]
