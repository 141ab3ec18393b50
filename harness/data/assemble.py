"""From samples that were read to data in three splits."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.data.describe import describe
from harness.data.division import divided
from harness.data.scaling import find_scale
from harness.data.split import Data, Split
from harness.data.targets import labelled
from harness.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.division import Division
    from harness.data.options import DataSpec
    from harness.data.samples import Samples
    from harness.data.split import Column, Targets
    from harness.data.targets import Labelled


def assembled(parts: dict[str, Samples], spec: DataSpec) -> Data:
    """Return data in three splits, scaled and described.

    Args:
        parts: What was read, under `"all"`, or under `"train"` and others.
        spec: How to split and scale it.

    Raises:
        ConfigError: If it can't be learned from as it is.
    """
    _check_lengths(parts)
    if spec.source_kind == "csv":
        from harness.data.tables import made_alike  # pandas is slow to import

        parts = made_alike(parts, dict(spec.places))
    targets = labelled(parts, spec.kind)
    source = "all" if "all" in parts else "train"
    classes = targets.targets[source] if targets.kind == "classification" else None
    division = divided({n: one.digests for n, one in parts.items()}, classes, spec)
    notes = _notes(parts, targets, division)
    columns: tuple[Column, ...] = ()
    if spec.source_kind == "csv":
        from harness.data.columns import encoded

        parts, columns, more = encoded(parts, division.rows["train"])
        notes += more
    _check_shapes(parts)
    _check_classes(targets, division)
    splits = {
        name: _split(parts[part], targets.targets[part], division.rows[name])
        for name, part in division.part.items()
    }
    normalize = spec.normalize or parts[source].normalize
    scale = find_scale(splits["train"], normalize)
    splits = {name: replace(one, scale=scale) for name, one in splits.items()}
    data = Data(
        name=_name(spec), kind=targets.kind, outputs=_outputs(targets),
        sha256=_sha256(parts, targets, division, scale), classes=targets.classes,
        train=splits["train"], validation=splits["validation"], test=splits["test"],
        columns=columns, target_names=spec.label, folders=_folders(spec),
        origin=division.origin, notes=notes,
    )  # fmt: skip
    return replace(data, description=describe(data, normalize))


def _check_lengths(parts: dict[str, Samples]) -> None:
    for name, one in parts.items():
        if not len(one):
            raise ConfigError(f"There are no samples ({name}).")


def _check_shapes(parts: dict[str, Samples]) -> None:
    shapes = {name: (one.inputs.shape[1:], str(one.inputs.dtype)) for name, one in parts.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{n} {d} {list(s)}" for n, (s, d) in shapes.items())
        raise ConfigError(
            f"The samples of all splits must have one shape and type. Received: {found}. For "
            "images, add size= and channels=."
        )


def _check_classes(targets: Labelled, division: Division) -> None:
    """Refuse a division that leaves a class without training samples."""
    if targets.kind != "classification":
        return
    seen = {
        name: set(targets.targets[part][division.rows[name]].tolist())
        for name, part in division.part.items()
    }
    unseen = sorted((seen["validation"] | seen["test"]) - seen["train"])
    if unseen:
        named = ", ".join(targets.classes[i] for i in unseen[:5])
        raise ConfigError(
            f"No training samples are left of {len(unseen)} classes: {named}. Lower test_fraction= "
            "and val_fraction=, or add samples."
        )


def _split(samples: Samples, targets: Any, rows: Any) -> Split:
    inputs = _tensor(samples.inputs)
    whole = len(rows) == len(inputs)
    parts = targets if isinstance(targets, tuple) else (targets,)
    tensors = tuple(_tensor(part) for part in parts)
    stored: Targets = tensors if isinstance(targets, tuple) else tensors[0]
    return Split(inputs, stored, rows=None if whole else _tensor(rows))


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """Return an array as a tensor of the same memory, unless torch can't have it."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _notes(parts: dict[str, Samples], targets: Labelled, division: Division) -> tuple[str, ...]:
    read_notes = tuple(note for one in parts.values() for note in one.notes)
    return tuple(dict.fromkeys(read_notes + targets.notes + division.notes))


def _outputs(targets: Labelled) -> int | None:
    if targets.kind == "classification":
        return len(targets.classes)
    if targets.kind == "regression":
        return int(next(iter(targets.targets.values())).shape[1])
    return None


def _folders(spec: DataSpec) -> tuple[Path, ...]:
    """Return the folders of which every image, at any depth, is a sample."""
    if spec.source_kind != "imagefolder":
        return ()
    return tuple(Path(place) for _, place in spec.places)


def _name(spec: DataSpec) -> str:
    """Return a short name: of the file, the folder or the function."""
    place = spec.places[0][1]
    if spec.source_kind == "factory":
        stem = place.rpartition(":")[2]
    elif spec.source_kind == "digits":
        stem = "digits-8x8"  # the embedded task is called digits
    else:
        stem = Path(place).name.split(".")[0]
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "data"


def _sha256(parts: dict[str, Samples], targets: Labelled, division: Division, scale: object) -> str:
    """Return a hash of all that is learned from; of inputs, their digests are hashed."""
    digest = hashlib.sha256(f"{targets.kind} {targets.classes} {scale}".encode())
    for name, samples in sorted(parts.items()):
        inputs = samples.inputs
        digest.update(f"{name} {inputs.dtype} {inputs.shape}".encode())
        digest.update(samples.digests.tobytes())
        own = targets.targets[name]
        for part in own if isinstance(own, tuple) else (own,):
            digest.update(f"{part.dtype} {part.shape}".encode())
            digest.update(part.tobytes())
    for name, rows in sorted(division.rows.items()):
        digest.update(f"{name} {division.part[name]} {len(rows)}".encode())
        digest.update(rows.tobytes())
    return digest.hexdigest()
