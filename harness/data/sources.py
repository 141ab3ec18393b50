"""Kinds of sources, and which kind a text means."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from harness.errors import ConfigError

SOURCE_KINDS = {
    "imagefolder": "imagefolder:", "parquet": "parquet:", "npz": "npz:", "csv": "csv:",
    "idx": "fashion-mnist:", "digits": "", "factory": "",
}  # fmt: skip
"""Kind -> the prefix that forces it; empty where the text itself tells."""
_PREFIXES = {prefix: kind for kind, prefix in SOURCE_KINDS.items() if prefix}
_SUFFIXES = {".parquet": "parquet", ".npz": "npz", ".csv": "csv", ".tsv": "csv", ".csv.gz": "csv"}
SPLIT_NAMES = {"train": "train", "val": "validation", "valid": "validation",
               "validation": "validation", "test": "test"}  # fmt: skip
"""What users call the splits -> what we call them."""
_STORED_NAMES = SPLIT_NAMES | {"training": "train", "testing": "test"}
"""What folders, files and arrays of splits are called besides."""
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
"""Where Debian's package dataset-fashion-mnist puts it."""
_EXPECTED = (
    "a folder of images (a subfolder per class), FILE.csv, FILE.parquet, FILE.npz, a folder of "
    "parquet files, fashion-mnist, digits, or a function as FILE.py:NAME or pkg.module:NAME"
)


def split_of(name: str) -> str | None:
    """Return the split that the name of a folder or an array means; None where it means none.

    Args:
        name: In upper or lower case, such as `Training` or `val`.
    """
    return _STORED_NAMES.get(name.lower())


def find_kind(text: str, base: Path | None, option: str) -> tuple[str, str]:
    """Return a source's kind and its place: a path from the root on, or a name.

    Args:
        text: As the user gave it.
        base: The folder that relative paths start from; None for the current one.
        option: Where this was said; for messages.

    Raises:
        ConfigError: If there is no such source, or its kind can't be told.
    """
    for prefix, kind in _PREFIXES.items():
        if text.startswith(prefix):
            return kind, str(_existing(text.removeprefix(prefix), base, option))
    if text == "fashion-mnist":
        return "idx", FASHION_MNIST
    if text == "digits":
        return "digits", text
    if re.search(r"\.py:[\w.]+$", text):
        file, _, name = text.rpartition(":")
        return "factory", f"{_absolute(file, base)}:{name}"
    if re.fullmatch(r"[A-Za-z_][\w.]*:[\w.]+", text):
        return "factory", text
    path = _existing(text, base, option)
    for suffix, kind in _SUFFIXES.items():
        if path.name.lower().endswith(suffix):
            return kind, str(path)
    if path.is_dir():
        return "parquet" if any(path.glob("*.parquet")) else "imagefolder", str(path)
    raise ConfigError(
        f"`{option}`: can't tell what kind of data {text!r} is. Expected {_EXPECTED}. Where the "
        f"name doesn't tell, put one of these before it: {', '.join(_PREFIXES)}."
    )


def _absolute(text: str, base: Path | None) -> Path:
    return ((base or Path.cwd()) / Path(text).expanduser()).resolve()


def _existing(text: str, base: Path | None, option: str) -> Path:
    names: list[str] = []
    path = Path(text)
    try:
        path = _absolute(text, base)
        if text and path.exists():
            return path
        names = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    except (OSError, RuntimeError, ValueError):
        pass  # no permission, no such user, no possible name: there is no such file for us
    near = difflib.get_close_matches(path.name, [*names, "fashion-mnist", "digits"], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"`{option}`: there is no file or folder {text!r}.{hint} Expected {_EXPECTED}."
    )
