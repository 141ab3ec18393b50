"""Tables: CSV, one line of numbers and texts per sample."""

from __future__ import annotations

import csv
import gzip
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api import types as kinds

from harness.data.samples import HEADER_LINES, Samples, digests_of
from harness.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.options import DataSpec
    from harness.data.samples import Listener

_SEPARATORS = (",", ";", "\t", "|")
_HEADER_BYTES = 65_536
_NAMED = 5


def read(place: str, spec: DataSpec, listen: Listener) -> dict[str, Samples]:
    """Return the rows of a table; its inputs are a DataFrame still.

    `harness.data.columns.encoded` makes numbers of them once it is known which are trained on.

    Raises:
        ConfigError: If the file is no CSV, lacks a column asked, or lacks targets.
    """
    path = Path(place)
    frame, notes = _loaded(path)
    _check_columns(path, frame, spec)
    targets = _targets(path, frame[list(spec.label)])
    inputs = frame.drop(columns=[*spec.label, *spec.drop])
    counter = [c for c in inputs if str(c).startswith("Unnamed:") and _counts(inputs[c])]
    if counter:
        inputs = inputs.drop(columns=counter)
        notes += (f"{path.name}: a column without a name that numbers the rows was left out.",)
    if inputs.shape[1] == 0:
        raise ConfigError(f"{path} has no columns left to learn from.")
    # Hashed before it is encoded: what is encoded depends on the division, which needs hashes.
    hashes = pd.util.hash_pandas_object(_comparable(inputs), index=False).to_numpy()
    digests = digests_of(hashes[:, None])
    return {
        "all": Samples(
            inputs, targets, digests, notes=notes,
            where=lambda i: f"line {i + HEADER_LINES + 1} of {path.name}",
        )
    }  # fmt: skip


def _comparable(inputs: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose rows equal those of another file that has them in another form.

    A missing cell makes floats of a whole column, and columns may come in another order.
    """
    columns = {
        name: one.astype(np.float64 if kinds.is_numeric_dtype(one) else str)
        for name, one in sorted(inputs.items(), key=lambda item: str(item[0]))
    }
    return pd.DataFrame(columns)


def _loaded(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    try:
        separator = _separator(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of mixed types in a column: it is text then
            frame = pd.read_csv(path, sep=separator, low_memory=False, skipinitialspace=True)
            frame.columns = frame.columns.astype(str).str.strip()
    except (OSError, EOFError, ValueError, csv.Error, pd.errors.ParserError) as exc:
        raise ConfigError(
            f"{path} is no readable CSV: {str(exc).strip()}. Expected a line of column names, then "
            "a line per sample, in UTF-8."
        ) from exc
    notes = () if separator == "," else (f"{path.name} is separated by {separator!r}.",)
    if frame.empty:
        raise ConfigError(f"{path} has no rows below its column names.")
    return frame, notes


def _separator(path: Path) -> str:
    """Return what parts the names in the header: the commonest of the usual characters."""
    opener: Any = gzip.open if path.suffix == ".gz" else Path.open
    with opener(path, "rb") as file:
        header = file.readline(_HEADER_BYTES).decode("utf-8")
    return max(_SEPARATORS, key=header.count)


def _check_columns(path: Path, frame: pd.DataFrame, spec: DataSpec) -> None:
    names = ", ".join(map(str, frame.columns[:30])) + (", ..." if frame.shape[1] > 30 else "")
    if not spec.label:
        raise ConfigError(
            f"{path}: say which column is the target: label=COLUMN. Its columns: {names}."
        )
    for key, columns in (("label", spec.label), ("drop", spec.drop)):
        absent = [column for column in columns if column not in frame]
        if absent:
            raise ConfigError(f"{path} has no column {absent[0]!r} ({key}=). Its columns: {names}.")


def _targets(path: Path, frame: pd.DataFrame) -> NDArray[Any]:
    missing = np.flatnonzero(frame.isna().any(axis=1))
    if len(missing):
        lines = ", ".join(str(i + HEADER_LINES + 1) for i in missing[:_NAMED])
        more = ", ..." if len(missing) > _NAMED else ""
        raise ConfigError(
            f"{path}: {len(missing):,} of {len(frame):,} rows have no target "
            f"({'+'.join(frame.columns)}): lines {lines}{more}. Take those rows out, or fill them "
            "in."
        )
    if frame.shape[1] > 1 and not all(kinds.is_numeric_dtype(one) for one in frame.dtypes):
        raise ConfigError(f"{path}: several target columns must all be numbers.")
    if frame.shape[1] > 1:
        return frame.to_numpy(dtype=np.float32)
    column = frame.iloc[:, 0]
    if kinds.is_numeric_dtype(column.dtype):
        return column.to_numpy()
    return column.astype(str).to_numpy(dtype=str)


def _counts(column: pd.Series[Any]) -> bool:
    return kinds.is_integer_dtype(column.dtype) and bool((column.diff().iloc[1:] == 1).all())
