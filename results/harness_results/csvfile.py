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
_SHOWN, _LONGEST = 4, 20
"""Columns that an error names, and the most characters of each."""
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
        found = rows[0] if rows else []
        raise ConfigError(f"{path} is not the table of {what}: {_unlike(found, columns)}. {remedy}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(columns):
            raise ConfigError(
                f"{path}, line {number}: expected {len(columns)} cells, received {len(row)}. "
                f"{remedy}"
            )
    return [dict(zip(columns, row, strict=True)) for row in rows[1:]]


def _unlike(found: Sequence[str], columns: Sequence[str]) -> str:
    """Return how the first row of a file differs from the columns that it must have."""
    lacking, others = (
        [n for n in a if n not in b] for a, b in ((columns, found), (found, columns))
    )
    if not found:
        return "the file is empty"
    if len(lacking) == len(columns):
        return (
            f"its columns must be {_listed(columns)}. Received a file of another kind, which "
            f"begins with {_listed(found)}"
        )
    if lacking or others:
        told = [f"it {verb} {_listed(names)}" for verb, names in
                (("lacks the columns", lacking), ("has the columns", others)) if names]  # fmt: skip
        return " and ".join(told)
    return f"its columns must be in the order {_listed(columns)}"


def _listed(names: Sequence[str]) -> str:
    """Return the first few columns of a table, each cut where it is long."""
    words = [name if name.isprintable() else repr(name) for name in names[:_SHOWN]]
    words = [word if len(word) <= _LONGEST else f"{word[:_LONGEST]}..." for word in words]
    return ", ".join(words) + (", ..." if len(names) > _SHOWN else "")
