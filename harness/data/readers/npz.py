"""NumPy archives: `x` and `y`, or a pair per split as in Keras's mnist.npz."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.arrays import stored_array
from harness.data.samples import Samples, digests_of
from harness.data.sources import split_of
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.data.options import DataSpec
    from harness.data.samples import Listener

_PAIRS = (("x", "y"), ("inputs", "labels"), ("inputs", "targets"), ("images", "labels"))
_OF_SPLIT = re.compile(r"([xy])_([a-z]+)", re.IGNORECASE)
_EXPECTED = (
    "Expected arrays x and y (or inputs and labels), or x_train and y_train with x_val, y_val, "
    "x_test, y_test"
)


def read(place: str, spec: DataSpec, listen: Listener) -> dict[str, Samples]:
    """Return the samples of an archive; see `harness.data.readers.read`.

    Raises:
        ConfigError: If it is no archive of plain arrays, lacks an array, has one of a split too
            many, or arrays don't fit.
    """
    path = Path(place)
    pairs = _pairs(path, _from_archive(path, lambda archive: archive.files))
    found = {split: _samples(path, *pair, spec) for split, pair in pairs.items()}
    return found if len(found) > 1 else {"all": next(iter(found.values()))}


def _pairs(path: Path, names: list[str]) -> dict[str, tuple[str, str]]:
    """Return the names of inputs and targets, by split or under `"all"`."""
    received = f"{_EXPECTED}. Received: {', '.join(names) or 'none'}."
    sided: dict[str, dict[str, str]] = {"x": {}, "y": {}}
    for name in names:
        match = _OF_SPLIT.fullmatch(name)
        split = split_of(match[2]) if match else None
        if match and split and sided[match[1].lower()].setdefault(split, name) != name:
            raise ConfigError(f"{path} has several arrays for the {split} split. {received}")
    inputs, targets = sided["x"], sided["y"]
    whole = next(((x, y) for x, y in _PAIRS if x in names and y in names), None)
    if whole and (inputs or targets):
        raise ConfigError(f"{path} has {' and '.join(whole)} beside arrays of splits. {received}")
    if whole:
        return {"all": whole}
    alone = [*inputs.keys() ^ targets.keys()]
    if alone or "train" not in inputs:
        lacking = f"only one of x and y for the {alone[0]} split" if alone else "no such pair"
        raise ConfigError(f"{path} has {lacking}. {received}")
    return {split: (inputs[split], targets[split]) for split in inputs}


def _from_archive(path: Path, pick: Callable[[Any], Any]) -> Any:
    """Return what `pick` takes from the archive; arrays it leaves alone are not read."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array; np.savez writes several")
            return pick(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        hint = " Pickled objects are not loaded: save plain arrays." if "pickle" in str(exc) else ""
        raise ConfigError(f"{path} is no readable .npz archive: {exc}.{hint}") from exc


def _samples(path: Path, inputs: str, targets: str, spec: DataSpec) -> Samples:
    x, y = _from_archive(path, lambda archive: (archive[inputs], archive[targets]))
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ConfigError(
            f"{path}: {inputs} and {targets} must be as long as each other. Received: "
            f"{list(x.shape)} and {list(y.shape)}."
        )
    stored = stored_array(x, spec, f"{inputs} of {path.name}")
    normalize = "auto" if stored.dtype == np.uint8 else "none"
    return Samples(stored, y, digests_of(stored), normalize=normalize)
