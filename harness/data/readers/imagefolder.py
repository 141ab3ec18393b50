"""A folder of images: a subfolder per class, in one folder or in one per split."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.cache import cache_key, file_identities
from harness.data.encoded import stored_images
from harness.data.images import SUFFIXES
from harness.data.samples import Samples
from harness.data.sources import split_of
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.data.options import DataSpec
    from harness.data.samples import Listener

_LAYOUT = """Expected a subfolder per class:
  {root}/cat/1.jpg
  {root}/dog/2.jpg
or the same in train/, val/ and test/:
  {root}/train/cat/1.jpg
  {root}/test/cat/3.jpg"""


@dataclass(frozen=True, slots=True)
class _Found:
    """Images of a folder, with the numbers of their classes, and what else lay there."""

    paths: list[Path] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def read(place: str, spec: DataSpec, listen: Listener) -> dict[str, Samples]:
    """Return the images of a folder; see `harness.data.readers.read`.

    Raises:
        ConfigError: If it is not laid out as expected, has fewer than two classes, a class without
            images, or images that can't be decoded.
    """
    root = Path(place)
    try:
        return _parts(root, spec, listen)
    except OSError as exc:
        raise ConfigError(f"{exc.filename or root} can't be read: {exc.strerror}.") from exc


def _parts(root: Path, spec: DataSpec, listen: Listener) -> dict[str, Samples]:
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder. {_LAYOUT.format(root=root)}")
    folders = _split_folders(root)
    if not folders:
        return {"all": _samples(root, spec, listen)}
    parts = {split: _samples(one, spec, listen) for split, one in folders.items()}
    return parts if len(parts) > 1 else {"all": parts["train"]}


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each split; empty where the folders are classes.

    Folders are splits if one is called train and either all others are called after splits too, or
    it holds folders that the others don't: a class may be called train as well.
    """
    folders = _subfolders(root)
    named = [(split_of(one.name), one) for one in folders]
    strangers = [one.name for split, one in named if split is None]
    trains = [one for split, one in named if split == "train"]
    if not trains:
        return {}
    if strangers and len({split for split, _ in named if split}) == 1:
        inner = [{one.name for one in _subfolders(folder)} for folder in folders]
        if not inner[folders.index(trains[0])] or all(one == inner[0] for one in inner):
            return {}
    if strangers:
        raise ConfigError(
            f"{root} has folders of splits and others beside them: {', '.join(strangers[:5])}. "
            "Expected train/ with val/, test/ or both. Take the others out, or name the splits: "
            f"train={trains[0]},test=FOLDER. If all are classes, call {trains[0].name} otherwise."
        )
    if len({split for split, _ in named}) < len(named):
        raise ConfigError(
            f"{root} has several folders for one split: {', '.join(one.name for one in folders)}. "
            "Keep one of each, such as one of val, valid and validation."
        )
    return {split: one for split, one in named if split}


def _samples(root: Path, spec: DataSpec, listen: Listener) -> Samples:
    classes = [folder.name for folder in _subfolders(root)]
    found = _walk(root, classes)
    _check(root, classes, found)

    def where(index: int) -> str:
        return str(found.paths[index].relative_to(root))

    # By place, size and times: reading tens of thousands of small files takes many seconds.
    identities = file_identities(found.paths, by_content=False)
    key = cache_key(identities, (spec.size, spec.channels))
    (images, digests), notes = stored_images(
        key, len(found.paths), lambda: found.paths, spec, where, listen
    )
    if found.others:
        named = ", ".join(found.others[:3]) + (", ..." if len(found.others) > 3 else "")
        notes += (f"{len(found.others):,} files in {root} were left out: {named}.",)
    labels = np.array(found.labels, np.int64)
    return Samples(images, labels, digests, tuple(classes), notes=notes, where=where)


def _walk(root: Path, classes: list[str]) -> _Found:
    found = _Found([], [], [one.name for one in _files(root)])
    for number, name in enumerate(classes):
        for path in _files_below(root / name):
            if path.suffix.lower() in SUFFIXES:
                found.paths.append(path)
                found.labels.append(number)
            else:
                found.others.append(str(path.relative_to(root)))
    return found


def _check(root: Path, classes: list[str], found: _Found) -> None:
    if len(classes) < 2:
        loose = sum(Path(name).suffix.lower() in SUFFIXES for name in found.others)
        raise ConfigError(
            f"{root} has {loose:,} images outside of class folders and {len(classes)} class "
            f"folders; at least two classes are needed. {_LAYOUT.format(root=root)}"
        )
    filled = set(found.labels)
    empty = [name for number, name in enumerate(classes) if number not in filled]
    if empty:
        raise ConfigError(
            f"{len(empty)} of {len(classes)} class folders of {root} have no images: "
            f"{', '.join(empty[:5])}. Expected files that end in {', '.join(SUFFIXES)}. Fill the "
            "folders or remove them."
        )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))


def _raise(exc: OSError) -> None:
    raise exc


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield files in the folder and below, links followed; hidden ones are skipped."""
    seen = set()
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        if os.path.realpath(place) in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))
