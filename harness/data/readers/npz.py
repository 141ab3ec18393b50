"""NumPy archives: `x` and `y`, or a pair per split as in Keras's mnist.npz."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.arrays import stored_array
from harness.data.samples import Samples, digests_of
from harness.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.options import DataSpec
    from harness.data.samples import Listener

_PAIRS = (("x", "y"), ("inputs", "labels"), ("inputs", "targets"), ("images", "labels"))
_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def read(place: str, spec: DataSpec, listen: Listener) -> dict[str, Samples]:
    """Return the samples of an archive; see `harness.data.readers.read`.

    Raises:
        ConfigError: If it is no archive of plain arrays, lacks an array, or arrays don't fit.
    """
    path = Path(place)
    arrays = _loaded(path)
    for inputs, targets in _PAIRS:
        if inputs in arrays and targets in arrays:
            return {"all": _samples(path, arrays, inputs, targets, spec)}
    given = {
        split: (f"x_{short}", f"y_{short}")
        for short, split in _SPLITS.items()
        if f"x_{short}" in arrays and f"y_{short}" in arrays
    }
    if "train" not in given:
        raise ConfigError(
            f"{path} must hold arrays x and y (or inputs and labels), or x_train and y_train with "
            f"x_val, y_val, x_test, y_test. Received: {', '.join(arrays) or 'none'}."
        )
    found = {split: _samples(path, arrays, *pair, spec) for split, pair in given.items()}
    return found if len(found) > 1 else {"all": found["train"]}


def _loaded(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array; np.savez writes several")
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        hint = " Pickled objects are not loaded: save plain arrays." if "pickle" in str(exc) else ""
        raise ConfigError(f"{path} is no readable .npz archive: {exc}.{hint}") from exc


def _samples(
    path: Path, arrays: dict[str, NDArray[Any]], inputs: str, targets: str, spec: DataSpec
) -> Samples:
    x, y = arrays[inputs], arrays[targets]
    if y.ndim == 0 or len(x) != len(y):
        raise ConfigError(
            f"{path}: {inputs} and {targets} must be as long as each other. Received: "
            f"{list(x.shape)} and {list(y.shape)}."
        )
    stored = stored_array(x, spec, f"{inputs} of {path.name}")
    normalize = "auto" if stored.dtype == np.uint8 else "none"
    return Samples(stored, y, digests_of(stored), normalize=normalize)
