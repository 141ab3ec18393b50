"""A table's columns to numbers: float32 `[M, F]`.

- Numbers stay as they are; truth values become 0 and 1; a text column becomes a column of 0 and 1
  per text that the training split has. Other texts, and missing ones, become all zeros.
- A missing number becomes the median of its column in the training split.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api import types as kinds

from harness.data.samples import Samples, digests_of
from harness.data.split import Column
from harness.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_TEXTS = 256
"""Different texts in a column; more are names, dates or sentences, no categories."""
_NAMED = 5


def encoded(
    parts: dict[str, Samples], train_rows: NDArray[np.int64]
) -> tuple[dict[str, Samples], tuple[Column, ...], tuple[str, ...]]:
    """Return tables as float32 `[M, F]`, which features come of each column, and notes.

    Args:
        parts: Tables from `harness.data.tables.made_alike`, `"all"` or by split.
        train_rows: int64 `[N]`, which rows of the first part are trained on: categories and
            medians are theirs.

    Raises:
        ConfigError: If a table has text where the training table has numbers; if a column has too
            many texts, nothing in the training rows, or an infinite number.
    """
    source = "all" if "all" in parts else "train"
    frames = {name: one.inputs for name, one in parts.items()}
    train = frames[source].iloc[train_rows]
    _check_texts(train)
    blocks: dict[str, list[NDArray[np.float32]]] = {name: [] for name in frames}
    described: list[Column] = []
    notes: list[str] = []
    for column in train.columns:
        _check_filled(column, train[column])
        encode = _numbers if kinds.is_numeric_dtype(train[column].dtype) else _indicators
        columns = {name: frame[column] for name, frame in frames.items()}
        made, found = encode(column, columns, train[column], notes)
        described.append(made)
        for name, block in found.items():
            blocks[name].append(block)
    tables = {}
    for name, one in parts.items():
        joined = np.ascontiguousarray(np.hstack(blocks[name]))
        # Digests are of what is learned from: another order of columns is another data set.
        tables[name] = replace(one, inputs=joined, digests=digests_of(joined))
    return tables, tuple(described), tuple(notes)


def _check_filled(column: str, train: pd.Series[Any]) -> None:
    if train.isna().all():
        raise ConfigError(
            f"Column {column!r} is empty in all {len(train):,} training rows. Leave it out: "
            f"drop={column}."
        )


def _check_texts(train: pd.DataFrame) -> None:
    texts = {
        str(column): train[column].nunique()
        for column in train.columns
        if not kinds.is_numeric_dtype(train[column].dtype)
    }
    limit = min(_MOST_TEXTS, max(2, len(train) // 2))
    wide = [column for column, count in texts.items() if count > limit]
    if wide:
        named = ", ".join(f"{column!r} {texts[column]:,}" for column in wide[:_NAMED])
        raise ConfigError(
            f"These columns have too many different texts in {len(train):,} training rows to be "
            f"categories: {named}. Leave them out (drop={'+'.join(wide)}), or turn them into "
            "numbers."
        )


def _numbers(
    column: str, columns: dict[str, pd.Series[Any]], train: pd.Series[Any], notes: list[str]
) -> tuple[Column, dict[str, NDArray[np.float32]]]:
    found = {}
    for name, one in columns.items():
        try:
            found[name] = pd.to_numeric(one).to_numpy(dtype=np.float64, na_value=np.nan)
        except (ValueError, TypeError) as exc:
            raise ConfigError(
                f"Column {column!r} holds numbers in the training table and something else in the "
                f"{name} table: {exc}."
            ) from exc
        _check_finite(column, name, found[name])
    median = float(train.astype(np.float64).median())
    gaps = sum(int(np.isnan(one).sum()) for one in found.values())
    if gaps:
        notes.append(f"{column}: {gaps:,} missing, set to the training median {median:.6g}.")
    filled = {n: np.nan_to_num(v, nan=median).astype(np.float32) for n, v in found.items()}
    return Column(str(column), missing=median), {n: v[:, None] for n, v in filled.items()}


def _check_finite(column: str, name: str, values: NDArray[np.float64]) -> None:
    with np.errstate(over="ignore"):
        infinite = np.flatnonzero(np.isinf(values.astype(np.float32)))
    if len(infinite):
        table = "" if name == "all" else f" of the {name} table"
        raise ConfigError(
            f"Column {column!r}{table} has {len(infinite):,} values that are infinite or too large "
            f"for float32, the first in row {infinite[0] + 1} below the header. Mend them, or "
            "leave them empty."
        )


def _indicators(
    column: str, columns: dict[str, pd.Series[Any]], train: pd.Series[Any], notes: list[str]
) -> tuple[Column, dict[str, NDArray[np.float32]]]:
    known = sorted(train.dropna().astype(str).unique())
    blocks, missing, unseen = {}, 0, 0
    for name, one in columns.items():
        texts = one.astype(object).where(one.notna(), None)
        rows = np.array([None if text is None else str(text) for text in texts], dtype=object)
        blocks[name] = np.stack([(rows == text) for text in known], axis=1).astype(np.float32)
        absent = np.array([row is None for row in rows])
        missing += int(absent.sum())
        unseen += int(((blocks[name].sum(axis=1) == 0) & ~absent).sum())
    done = f"{column}: {len(known)} categories, a column of 0 and 1 each"
    done += f"; {missing:,} missing" if missing else ""
    done += f"; {unseen:,} rows with a category that the training split lacks" if unseen else ""
    notes.append(f"{done}{' (all zeros)' if missing or unseen else ''}.")
    return Column(str(column), tuple(known)), blocks
