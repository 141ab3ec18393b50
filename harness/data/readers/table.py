"""Tables: CSV, one row of numbers and texts per sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api import types as kinds

from harness.data.samples import DIGEST_BYTES, Samples
from harness.data.tables import parsed, separator
from harness.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.options import DataSpec
    from harness.data.samples import Listener

_NAMED = 5


def read(place: str, spec: DataSpec, listen: Listener) -> dict[str, Samples]:
    """Return the rows of a table; its inputs are a DataFrame still, without digests.

    `harness.data.tables.made_alike` makes it like the training table, and
    `harness.data.columns.encoded` makes numbers of it once it is known which are trained on.

    Raises:
        ConfigError: If the file is no CSV, lacks a column asked, or lacks targets.
    """
    path = Path(place)
    frame, notes = _loaded(path)
    _check_columns(path, frame, spec)
    labels = _with_all_texts(path, frame[list(spec.label)])
    notes += _called_missing(path, frame[list(spec.label)], labels)
    targets = _targets(path, labels)
    inputs = frame.drop(columns=[*spec.label, *spec.drop])
    undigested = np.empty((0, DIGEST_BYTES), np.uint8)
    return {
        "all": Samples(
            inputs, targets, undigested, notes=notes,
            where=lambda i: f"row {i + 1} of {path.name}",
        )
    }  # fmt: skip


def _with_all_texts(path: Path, labels: pd.DataFrame) -> pd.DataFrame:
    """Return target columns in which a class may be called NA, None or null."""
    classes = [
        column
        for column in labels
        if labels[column].isna().any()
        and pd.api.types.infer_dtype(labels[column], skipna=True) == "string"
    ]
    if not classes:
        return labels
    written = parsed(path, dtype=str, keep_default_na=False, na_values=[""])
    return labels.assign(**{str(column): written[column].array for column in classes})


def _called_missing(path: Path, read: pd.DataFrame, labels: pd.DataFrame) -> tuple[str, ...]:
    """Say which classes have names that mostly mean that there is none."""
    notes = []
    for column in labels:
        names = labels[column][(read[column].isna() & labels[column].notna()).to_numpy()]
        notes += [
            f"{path.name}: {count:,} rows are of a class called {name!r} ({column}). If they have "
            "no class, take them out."
            for name, count in names.value_counts().items()
        ]
    return tuple(notes)


def _loaded(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    frame = parsed(path)
    if frame.empty:
        raise ConfigError(f"{path} has no rows below its column names.")
    character = separator(path)
    return frame, () if character == "," else (f"{path.name} is separated by {character!r}.",)


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
        rows = ", ".join(str(i + 1) for i in missing[:_NAMED])
        more = ", ..." if len(missing) > _NAMED else ""
        raise ConfigError(
            f"{path}: {len(missing):,} of {len(frame):,} rows have no target "
            f"({'+'.join(frame.columns)}): rows {rows}{more} below the header. Take those rows "
            "out, or fill them in."
        )
    if frame.shape[1] > 1 and not all(kinds.is_numeric_dtype(one) for one in frame.dtypes):
        raise ConfigError(f"{path}: several target columns must all be numbers.")
    if frame.shape[1] > 1:
        return frame.to_numpy(dtype=np.float32)
    column = frame.iloc[:, 0]
    if kinds.is_numeric_dtype(column.dtype):
        return column.to_numpy()
    return column.astype(str).to_numpy(dtype=str)
