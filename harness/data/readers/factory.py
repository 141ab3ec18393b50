"""Data that a user's own function returns."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.data.arrays import stored_array
from harness.data.items import read_items
from harness.data.objects import from_tensor
from harness.data.samples import Samples, digests_of
from harness.data.sources import SPLIT_NAMES
from harness.data.split import Data
from harness.errors import ConfigError
from harness.importing import load_object, user_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.data.options import DataSpec
    from harness.data.samples import Listener

_SEED = 20260101
_EXPECTED = (
    "one data set, (train, validation, test), a dict with those names, or a "
    "harness.data.split.Data; a data set has len() and [i] -> (input, target), or is a pair of "
    "arrays (inputs, targets)"
)


def read(place: str, spec: DataSpec, listen: Listener) -> dict[str, Samples] | Data:
    """Return what a function returns; see `harness.data.readers.read`.

    Args:
        place: `FILE.py:NAME` or `pkg.module:NAME`: a function without arguments, or a data set.
        spec: How to read arrays.
        listen: Told how it goes.

    Raises:
        ConfigError: If the function fails, or returns something else than data.
    """
    with _seeded():
        found = load_object(place, "--data")
        if callable(found) and not _is_dataset(found):
            with user_code(place, "--data"):
                found = found()
    return from_object(found, place, spec, listen)


def from_object(
    found: Any, place: str, spec: DataSpec, listen: Listener
) -> dict[str, Samples] | Data:
    """Return the samples of data sets or arrays, by the names of splits; a `Data` as it is.

    Args:
        found: See `_EXPECTED`.
        place: Where it is from, for messages.
        spec: How to read arrays.
        listen: Told how it goes.

    Raises:
        ConfigError: If it is something else.
    """
    if isinstance(found, Data):
        _check_no_keys(place, spec)
        return found
    with _seeded():
        return {
            name: _samples(one, place if name == "all" else f"{place} ({name})", spec, listen)
            for name, one in _parts(found, place).items()
        }


def _check_no_keys(place: str, spec: DataSpec) -> None:
    """Refuse keys that finished data would leave without effect."""
    keys = [f"{key}=" for key in spec.as_mapping() if key not in ("source", *SPLIT_NAMES)]
    if keys:
        raise ConfigError(
            f"`--data`: {place} gives a harness.data.split.Data, which is split and scaled "
            f"already. Leave out {', '.join(keys)}, or do in the function what they ask."
        )


def _parts(found: Any, place: str) -> dict[str, Any]:
    """Return data sets by the names of splits, or one under `"all"`."""
    if isinstance(found, dict) and set(found) <= set(SPLIT_NAMES):
        given = {name: one for name, one in found.items() if one is not None}
        named = {SPLIT_NAMES[name]: one for name, one in given.items()}
        if len(named) < len(given):
            raise ConfigError(
                f"`--data`: {place} gives several data sets for one split: "
                f"{', '.join(map(repr, given))}. Keep one of val, valid and validation."
            )
        if "train" in named:
            return named if len(named) > 1 else {"all": named["train"]}
    elif isinstance(found, tuple) and len(found) == 3 and all(map(_is_data, found)):
        return dict(zip(("train", "validation", "test"), found, strict=True))
    elif not isinstance(found, dict) and _is_data(found):
        return {"all": found}
    raise ConfigError(f"`--data`: {place} must give {_EXPECTED}. Received: {_kind_of(found)}.")


def _is_data(one: Any) -> bool:
    return _is_pair(one) or _is_dataset(one)


def _is_pair(one: Any) -> bool:
    """Whether it is (inputs, targets), each an array, or targets a tuple of arrays."""
    if not isinstance(one, (tuple, list)) or len(one) != 2 or not _is_array(one[0]):
        return False
    targets = one[1]
    return _is_array(targets) or (isinstance(targets, tuple) and all(map(_is_array, targets)))


def _is_array(one: Any) -> bool:
    return isinstance(one, (torch.Tensor, np.ndarray))


def _is_dataset(one: Any) -> bool:
    return (
        hasattr(one, "__getitem__")
        and hasattr(one, "__len__")
        and not isinstance(one, (type, str, bytes, dict, tuple))
        and not _is_array(one)
    )


def _kind_of(found: Any) -> str:
    if isinstance(found, dict):
        return f"a dict with {', '.join(map(repr, found)) or 'nothing'}"
    if isinstance(found, (tuple, list)):
        kinds = ", ".join(type(one).__name__ for one in found[:4])
        return f"{type(found).__name__} of {len(found)}: {kinds}"
    if isinstance(found, torch.utils.data.IterableDataset):
        return "an IterableDataset; put its items in a list"
    if isinstance(found, torch.utils.data.DataLoader):
        return "a DataLoader; return its data set"
    return type(found).__name__


def _samples(one: Any, what: str, spec: DataSpec, listen: Listener) -> Samples:
    notes: tuple[str, ...] = ()
    if _is_pair(one):
        inputs, targets = _array(one[0]), one[1]
        targets = tuple(map(_array, targets)) if isinstance(targets, tuple) else _array(targets)
    else:
        items = read_items(one, what, spec, listen)
        inputs, targets, notes = items.inputs, items.targets, items.notes
        if items.are_pictures:
            spec = replace(spec, layout="nchw")  # as they were stored: `layout=` is of arrays
    for part in targets if isinstance(targets, tuple) else (targets,):
        if part.ndim == 0 or len(part) != len(inputs):
            raise ConfigError(
                f"`--data`: {what} has {len(inputs):,} inputs and targets of shape "
                f"{list(part.shape)}. One target per input is needed."
            )
    stored = stored_array(inputs, spec, f"inputs of {what}")
    normalize = "auto" if stored.dtype == np.uint8 else "none"
    return Samples(stored, targets, digests_of(stored), normalize=normalize, notes=notes)


def _array(one: Any) -> Any:
    return from_tensor(one) if isinstance(one, torch.Tensor) else one


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Fix the generators that a user's code may draw from, so that data are the same every time."""
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        random.seed(_SEED)
        np.random.seed(_SEED % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
