"""MNIST's own file format, IDX: gzipped or plain; Debian's Fashion-MNIST, or a folder like it.

A file is two zero bytes, the type of a value (8: unsigned byte), the number of dimensions, the
dimensions as big-endian 32-bit numbers, and the values.

References:
    LeCun, Cortes & Burges (1998), "The MNIST database", at the end of its page.
    Xiao, Rasul & Vollgraf (2017), "Fashion-MNIST".
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.arrays import stored_array
from harness.data.samples import Samples, digests_of
from harness.data.sources import FASHION_MNIST
from harness.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.options import DataSpec
    from harness.data.samples import Listener

_PREFIXES = {"train": "train", "test": "t10k"}
_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
            "Bag", "Ankle boot")  # fmt: skip
_UNSIGNED_BYTE = 8


def read(place: str, spec: DataSpec, listen: Listener) -> dict[str, Samples]:
    """Return training and test images of a folder; see `harness.data.readers.read`.

    Raises:
        ConfigError: If a file is absent or no IDX file.
    """
    folder = Path(place)
    if not folder.is_dir() and place == FASHION_MNIST:
        raise ConfigError(
            f"Fashion-MNIST is not installed: there is no folder {folder}. On Debian or Ubuntu: "
            "`apt install dataset-fashion-mnist`. Elsewhere, name the folder of its four files: "
            "fashion-mnist:FOLDER."
        )
    classes = _CLASSES if place == FASHION_MNIST else ()
    return {split: _samples(folder, prefix, classes, spec) for split, prefix in _PREFIXES.items()}


def _samples(folder: Path, prefix: str, classes: tuple[str, ...], spec: DataSpec) -> Samples:
    images = read_idx(_file(folder, f"{prefix}-images-idx3-ubyte"), 3)
    labels = read_idx(_file(folder, f"{prefix}-labels-idx1-ubyte"), 1)
    if len(images) != len(labels):
        raise ConfigError(
            f"{folder}: {prefix} has {len(images):,} images and {len(labels):,} labels. Get the "
            "files anew."
        )
    stored = stored_array(images, spec, f"{prefix} of {folder.name}")
    return Samples(stored, labels.astype(np.int64), digests_of(stored), classes)


def _file(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise ConfigError(f"There is no {name}.gz or {name} in {folder}. MNIST has four such files.")


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array of an IDX file of unsigned bytes.

    Raises:
        ConfigError: If it is none, or has another number of dimensions.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as exc:
        raise ConfigError(f"{path} can't be read: {exc}. Get the file anew.") from exc
    head = 4 + 4 * dimensions
    if len(data) < head or data[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise ConfigError(
            f"{path} is no IDX file of unsigned bytes with {dimensions} dimensions: it starts with "
            f"{data[:4].hex(' ') or 'nothing'}. Get the file anew."
        )
    shape = struct.unpack(f">{dimensions}I", data[4:head])
    if len(data) - head != int(np.prod(shape, dtype=np.int64)):
        raise ConfigError(
            f"{path} should hold {' x '.join(map(str, shape))} bytes and holds "
            f"{len(data) - head:,}. Get the file anew."
        )
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
