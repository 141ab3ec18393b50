"""Readers: a module per kind of source, each with `read(place, spec, listen)`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.data.options import DataSpec
    from harness.data.samples import Listener, Samples
    from harness.data.split import Data

_READERS = {
    "imagefolder": "imagefolder", "parquet": "parquet", "npz": "npz", "csv": "table", "idx": "idx",
    "digits": "digits", "factory": "factory",
}  # fmt: skip


def read(place: str, spec: DataSpec, listen: Listener) -> dict[str, Samples] | Data:
    """Return a source's samples, by the split that it puts them in.

    Args:
        place: A path or name, as the kind of source takes it.
        spec: How to read it.
        listen: Told how it goes.

    Returns:
        Under `"all"`, or under `"train"` with `"validation"`, `"test"` or both; or finished data,
        where the user's function made them.

    Raises:
        ConfigError: If the source is not what its kind should be.
    """
    module: Any = importlib.import_module(f"{__name__}.{_READERS[spec.source_kind]}")
    found: dict[str, Samples] | Data = module.read(place, spec, listen)
    return found
