"""What `--data` says: which source, and how its samples are read, split and scaled."""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.data.sources import SOURCE_KINDS, SPLIT_NAMES, find_kind
from harness.data.values import CHECKS
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_COMMON = ("normalize", "test_fraction", "val_fraction", "split_seed")
_KEYS = {
    "imagefolder": ("size", "channels"),
    "parquet": ("label", "image", "kind", "size", "channels"),
    "npz": ("kind", "size", "channels", "layout"),
    "csv": ("label", "drop", "kind"),
    "idx": ("size", "channels"),
    "digits": ("size", "channels"),
    "factory": ("kind", "size", "channels", "layout"),
}
"""Which keys a kind of source takes, besides `_COMMON`."""


@dataclass(frozen=True, slots=True)
class DataSpec:
    """A user's data, as asked.

    Attributes:
        source_kind: One of `harness.data.sources.SOURCE_KINDS`.
        places: The path or name of the source, under `"all"`, or one per split given, under
            `"train"`, `"validation"`, `"test"`.
        label: Target columns; empty for the source's default.
        image: The column with encoded images.
        drop: Columns of a table to leave out.
        kind: `"classification"`, `"regression"`, or None to tell by the targets.
        size: Height and width in pixels to which images are resized; None for their own.
        channels: 1 or 3; None for what the images have.
        layout: Of image arrays, `"nchw"`, `"nhwc"`, or None to tell by their shape.
        normalize: `"auto"`, `"none"`, `"imagenet"`, `"cifar10"`, or values as text; None for the
            source's default.
        test_fraction, val_fraction: Shares of samples to hold out, in (0, 1); None for 0.15, and
            at most 10,000.
        split_seed: Of the permutation that splits are made by.
    """

    source_kind: str
    places: tuple[tuple[str, str], ...]
    label: tuple[str, ...] = ()
    image: str = "image"
    drop: tuple[str, ...] = ()
    kind: str | None = None
    size: tuple[int, int] | None = None
    channels: int | None = None
    layout: str | None = None
    normalize: str | None = None
    test_fraction: float | None = None
    val_fraction: float | None = None
    split_seed: int = 0

    @classmethod
    def from_mapping(
        cls, table: Mapping[str, Any], base: Path | None = None, option: str = "--data"
    ) -> DataSpec:
        """Return the data that a TOML table, or keys of a text, ask for.

        Args:
            table: `source`, or two or three of `train`, `val`, `test`; and keys as in the text.
                Numbers may be numbers, and what `+` or `x` joins in the text may be a list.
            base: The folder that relative paths start from; None for the current one.
            option: Where this was said; for messages.

        Raises:
            ConfigError: If a key is unknown, a value doesn't fit, or there is no such source.
        """
        values = dict(table)
        given = _given_places(values, option)
        found = {name: find_kind(place, base, option) for name, place in given.items()}
        kinds = {kind for kind, _ in found.values()}
        if len(kinds) > 1:
            raise ConfigError(
                f"`{option}`: all splits must be of one kind. Received: {', '.join(sorted(kinds))}."
            )
        kind = kinds.pop()
        known = (*_KEYS[kind], *_COMMON)
        checked = {}
        for key, value in values.items():
            if key not in known:
                raise ConfigError(_unknown_key(key, kind, known, option))
            checked[key] = CHECKS[key](value, f"{option} {key}=")
        spec = cls(kind, tuple((name, place) for name, (_, place) in found.items()), **checked)
        spec._check_fractions(option)
        return spec

    def as_mapping(self) -> dict[str, Any]:
        """Return a JSON-able table from which `from_mapping` makes the same again."""
        prefix = SOURCE_KINDS[self.source_kind]
        table: dict[str, Any] = {
            "source" if name == "all" else name: prefix + place for name, place in self.places
        }
        for one in dataclasses.fields(self)[2:]:
            value = getattr(self, one.name)
            if value != one.default:
                table[one.name] = list(value) if isinstance(value, tuple) else value
        return table

    def _check_fractions(self, option: str) -> None:
        given = {name for name, _ in self.places}
        for key, split in (("test_fraction", "test"), ("val_fraction", "validation")):
            if split in given and getattr(self, key) is not None:
                raise ConfigError(
                    f"`{option}`: {key} says how much to hold out, but the {split} split is given. "
                    f"Leave one of the two out."
                )
        if (self.test_fraction or 0) + (self.val_fraction or 0) >= 1:
            raise ConfigError(
                f"`{option}`: test_fraction and val_fraction must leave samples to train on. "
                f"Received: {self.test_fraction} and {self.val_fraction}."
            )


def parse_data_spec(spec: str, base: Path | None = None, option: str = "--data") -> DataSpec:
    """Return the data that `SOURCE[,key=value...]` asks for; see `harness.data.spec.load_data`.

    Args:
        spec: The text.
        base: The folder that relative paths start from; None for the current one.
        option: Where this was said; for messages.

    Raises:
        ConfigError: If a key is unknown, a value doesn't fit, or there is no such source.
    """
    # A comma parts only where KEY= follows, so that paths and columns may hold commas.
    parts = re.split(r",(?=\s*\w+\s*=)", spec.strip())
    table: dict[str, Any] = {}
    if parts[0].partition("=")[0].strip() not in (*SPLIT_NAMES, *CHECKS):
        table["source"] = parts.pop(0).strip()
    for part in parts:
        key, _, value = (text.strip() for text in part.partition("="))
        if key in table:
            raise ConfigError(f"`{option}`: {key}= is given twice. Received: {spec!r}.")
        table[key] = value
    return DataSpec.from_mapping(table, base, option)


def _given_places(values: dict[str, Any], option: str) -> dict[str, str]:
    """Take the sources out of a table: one for all, or one per split."""
    given: dict[str, str] = {}
    for key in ("source", *SPLIT_NAMES):
        if key in values:
            name = SPLIT_NAMES.get(key, "all")
            if name in given:
                raise ConfigError(f"`{option}`: the {name} split is given twice.")
            given[name] = str(values.pop(key)).strip()
    if not all(given.values()) or (set(given) != {"all"} and not {"train"} < set(given)):
        raise ConfigError(
            f"`{option}` must be SOURCE[,key=value...], or train=SOURCE with val=SOURCE, "
            "test=SOURCE or both. "
            f"Received: {', '.join(f'{n} {p!r}' for n, p in given.items()) or 'no source'}."
        )
    if "all" in given and len(given) > 1:
        raise ConfigError(f"`{option}`: give one source for all, or one per split, not both.")
    return given


def _unknown_key(key: str, kind: str, known: tuple[str, ...], option: str) -> str:
    elsewhere = [other for other, keys in _KEYS.items() if key in keys]
    if elsewhere:
        return (
            f"`{option}`: {key}= is for {' and '.join(elsewhere)} data; this is {kind}. "
            f"Keys here: {', '.join(known)}."
        )
    near = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"`{option}`: unknown key {key!r}. Keys of {kind} data: {', '.join(known)}.{hint}"
