"""Parquet files with encoded images, as the Hugging Face hub serves data sets.

Read by batches of rows: memory holds some hundred encoded images at a time.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.data.cache import cache_key, file_identities
from harness.data.encoded import stored_images
from harness.data.samples import Samples
from harness.data.sources import split_of
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from harness.data.options import DataSpec
    from harness.data.samples import Listener

_ROWS = 256
"""Rows that are read at once."""
_SHARD = re.compile(r"[a-z]+", re.IGNORECASE)
"""The word that a shard's name begins with: a split, in `train-00000-of-00002` or `train_0`."""


def read(place: str, spec: DataSpec, listen: Listener) -> dict[str, Samples]:
    """Return the images of a parquet file or of a folder of shards.

    Shards named as on the hub (`train-00000-of-00002.parquet`, `test-...`) bring their splits.

    Raises:
        ConfigError: If a file is no parquet file, lacks a column, or holds what is no image; or if
            some shards are named after splits and others not.
    """
    path = Path(place)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"There is no file *.parquet in {path}.")
    shards: dict[str | None, list[Path]] = {}
    for file in files:
        word = _SHARD.match(file.stem)
        shards.setdefault(split_of(word[0]) if word else None, []).append(file)
    if len(shards) == 1:
        return {"all": _samples(files, spec, listen)}
    _check_splits(path, shards)
    return {split: _samples(group, spec, listen) for split, group in shards.items() if split}


def _check_splits(path: Path, shards: dict[str | None, list[Path]]) -> None:
    """Refuse shards of which only some are named after splits, or none after the training split."""
    if None in shards or "train" not in shards:
        found = ", ".join(group[0].name for group in shards.values())
        raise ConfigError(
            f"{path} has shards of different splits: {found}. Expected that all are named after "
            "their splits (train-..., val-..., test-...), training shards among them, or none is. "
            "Take the others out, or name a file or folder per split: train=A,test=B."
        )


def _samples(files: list[Path], spec: DataSpec, listen: Listener) -> Samples:
    shards = _Shards(files, [_opened(file) for file in files])
    if not shards.total:
        raise ConfigError(f"{files[0]} has no rows.")
    target = _label_column(spec)
    for file, opened in zip(files, shards.opened, strict=True):
        _check_columns(file, opened.schema_arrow, spec.image, target)
    targets = _targets(shards, target)
    identities = file_identities(files)
    key = cache_key(identities, (spec.image, spec.size, spec.channels))
    (images, digests), notes = stored_images(
        key, shards.total, lambda: shards.images(spec.image), spec, shards.where, listen
    )
    # Names belong to numbers: another column may have been put in place of the hub's.
    numbered = targets.dtype.kind in "iu"
    classes = _class_names(shards.opened[0].schema_arrow, target) if numbered else ()
    return Samples(images, targets, digests, classes, notes=notes, where=shards.where)


@dataclass(frozen=True, slots=True)
class _Shards:
    """Parquet files that follow one another."""

    files: list[Path]
    opened: list[Any]

    @property
    def total(self) -> int:
        return sum(one.metadata.num_rows for one in self.opened)

    def where(self, index: int) -> str:
        ends = list(itertools.accumulate(one.metadata.num_rows for one in self.opened))
        shard = bisect.bisect_right(ends, index)
        return f"{self.files[shard].name} row {index - ([0, *ends])[shard]}"

    def images(self, column: str) -> Iterator[bytes]:
        for file, one in zip(self.files, self.opened, strict=True):
            with _mapped(file):
                for batch in one.iter_batches(_ROWS, columns=[column]):
                    found = batch.column(0)
                    if pa.types.is_struct(found.type):
                        found = pc.struct_field(found, "bytes")
                    # An absent image is an empty one: it can't be decoded, and is told as such.
                    yield from (value or b"" for value in found.to_pylist())


@contextlib.contextmanager
def _mapped(file: Path) -> Iterator[None]:
    """Turn what pyarrow raises on a file into a `ConfigError`."""
    try:
        yield
    except (pa.ArrowException, OSError) as exc:
        raise ConfigError(
            f"{file} is no readable parquet file: {exc}. Expected columns with encoded images and "
            "labels, as on the Hugging Face hub."
        ) from exc


def _opened(file: Path) -> Any:
    with _mapped(file):
        return pq.ParquetFile(file, memory_map=True)


def _label_column(spec: DataSpec) -> str:
    if len(spec.label) > 1:
        raise ConfigError(
            f"label= must be one column of a parquet file. Received: {'+'.join(spec.label)!r}."
        )
    return spec.label[0] if spec.label else "label"


def _check_columns(file: Path, schema: Any, image: str, label: str) -> None:
    for key, column in (("image", image), ("label", label)):
        if column not in schema.names:
            raise ConfigError(
                f"{file} has no column {column!r}. Its columns: {', '.join(schema.names)}. Name "
                f"the right one: {key}=COLUMN."
            )
    kind = schema.field(image).type
    if pa.types.is_struct(kind) and "bytes" in {kind.field(i).name for i in range(len(kind))}:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ConfigError(
            f"{file}: column {image!r} must hold encoded images (JPEG, PNG, ...) as bytes, or as a "
            f"struct with a field 'bytes'. Received: {kind}. Name the right one: image=COLUMN."
        )


def _targets(shards: _Shards, column: str) -> NDArray[Any]:
    parts = []
    for file, one in zip(shards.files, shards.opened, strict=True):
        with _mapped(file):
            found = one.read(columns=[column]).column(0)
        if found.null_count:
            raise ConfigError(
                f"{file}: {found.null_count:,} of {len(found):,} rows have no {column!r}. Take "
                "them out."
            )
        if not _is_plain(found.type):
            raise ConfigError(
                f"{file}: column {column!r} must hold numbers, truth values or texts. Received: "
                f"{found.type}. Name the right one: label=COLUMN."
            )
        if len(found):  # of an empty shard, NumPy would make floating-point numbers
            parts.append(np.asarray(found.to_pylist()))
    return np.concatenate(parts)


def _is_plain(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string,
             pa.types.is_large_string)  # fmt: skip
    return any(test(kind) for test in tests)


def _class_names(schema: Any, column: str) -> tuple[str, ...]:
    """Return the names that the hub's metadata give the labels; empty where there are none."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()
