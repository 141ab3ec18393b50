"""Tables of several files, made alike before they are divided: the training table decides.

- Its columns are taken, in its order; one without a name that numbers the rows is left out.
- A column with texts there is read as texts elsewhere too, as written: `1` stays `1`, though a
  column of nothing but numbers and gaps would be read as `1.0`.
"""

from __future__ import annotations

import csv
import gzip
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api import types as kinds

from harness.data.samples import Samples, digests_of
from harness.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEPARATORS = (",", ";", "\t", "|")
_HEADER_BYTES = 65_536


def parsed(path: Path, **options: Any) -> pd.DataFrame:
    """Return the table of a CSV file, its column names without spaces around them.

    Args:
        path: The file; gzipped if it ends in `.gz`.
        options: For `pandas.read_csv`.

    Raises:
        ConfigError: If it is no CSV in UTF-8, or two columns have one name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of mixed types in a column: it is text then
            frame: pd.DataFrame = pd.read_csv(
                path, sep=separator(path), low_memory=False, skipinitialspace=True, **options
            )
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as exc:
        raise ConfigError(
            f"{path} is no readable CSV: {str(exc).strip()}. Expected a line of column names, then "
            "a line per sample, in UTF-8."
        ) from exc
    frame.columns = frame.columns.astype(str).str.strip()
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ConfigError(f"{path} has several columns called {twice[0]!r}. Rename all but one.")
    return frame


def separator(path: Path) -> str:
    """Return what parts the names in the header: the commonest of the usual characters."""
    opener: Any = gzip.open if path.suffix == ".gz" else Path.open
    with opener(path, "rb") as file:
        header = file.readline(_HEADER_BYTES).decode("utf-8")
    return max(_SEPARATORS, key=header.count)


def made_alike(parts: dict[str, Samples], paths: dict[str, str]) -> dict[str, Samples]:
    """Return tables with the training table's columns, and with digests.

    Args:
        parts: Tables, `"all"` or by split.
        paths: The file of each.

    Raises:
        ConfigError: If a table lacks a column that the training table has, or none is left.
    """
    source = "all" if "all" in parts else "train"
    like, notes = _without_numbering(Path(paths[source]), parts[source].inputs)
    texts = [column for column in like if not kinds.is_numeric_dtype(like[column].dtype)]
    found = {}
    for name, one in parts.items():
        frame = _with_columns(name, one.inputs, like)
        strange = [column for column in texts if _reads_otherwise(frame[column], like[column])]
        if strange:
            written = parsed(Path(paths[name]), dtype=str)
            # By position: where rows are named, the names are texts now.
            frame = frame.assign(**{str(column): written[column].array for column in strange})
        found[name] = replace(
            one, inputs=frame, digests=_digests(frame), notes=(*one.notes, *notes)
        )
    return found


def _reads_otherwise(column: pd.Series[Any], like: pd.Series[Any]) -> bool:
    """Whether a column was read as numbers where the training table has texts.

    Truth values beside gaps are no texts: they have one spelling once they are read.
    """
    truths = kinds.is_bool_dtype(column.dtype) and pd.api.types.infer_dtype(like) == "boolean"
    return bool(kinds.is_numeric_dtype(column.dtype)) and not truths


def _without_numbering(path: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Leave out what pandas writes as a table's index: `Unnamed`, whole numbers, none twice.

    Rows may have been dropped or shuffled since they were numbered.
    """
    counters = [
        column
        for column in frame
        if str(column).startswith("Unnamed:")
        and kinds.is_integer_dtype(frame[column].dtype)
        and frame[column].is_unique
    ]
    left = frame.drop(columns=counters)
    if left.shape[1] == 0:
        raise ConfigError(f"{path} has no columns left to learn from.")
    note = f"{path.name}: a column without a name that numbers the rows was left out."
    return left, (note,) if counters else ()


def _with_columns(name: str, frame: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    absent = [str(column) for column in like.columns if column not in frame]
    if absent:
        raise ConfigError(
            f"The {name} table lacks columns that the training table has: {', '.join(absent[:5])}."
        )
    return frame[list(like.columns)]


def _digests(frame: pd.DataFrame) -> NDArray[np.uint8]:
    """Return digests that are equal for equal rows of any file, uint8 `[M, 16]`.

    A missing cell makes floats of a whole column. Hashed before it is encoded: what is encoded
    depends on the division, which needs hashes.
    """
    comparable = frame.astype(
        {c: np.float64 if kinds.is_numeric_dtype(frame[c].dtype) else str for c in frame}
    )
    return digests_of(pd.util.hash_pandas_object(comparable, index=False).to_numpy()[:, None])
