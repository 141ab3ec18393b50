"""Values of the keys that `--data` takes: each checked, and turned into what is used."""

from __future__ import annotations

import math
from typing import Any

from harness.errors import ConfigError
from harness.units import parse_count, parse_share

_NORMALIZE = ("auto", "none", "imagenet", "cifar10")


def _columns(value: Any, name: str) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value).split("+")
    found = tuple(str(part).strip() for part in parts)
    if not all(found) or len(set(found)) < len(found):
        raise ConfigError(f"`{name}` must be different columns joined by '+'. Received: {value!r}.")
    return found


def _one_column(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"`{name}` must be a column's name. Received: {value!r}.")
    return value


def _one_of(*known: str) -> Any:
    def check(value: Any, name: str) -> str:
        if value not in known:
            raise ConfigError(f"`{name}` must be {' or '.join(known)}. Received: {value!r}.")
        return str(value)

    return check


def _size(value: Any, name: str) -> tuple[int, int]:
    parts = value if isinstance(value, list) else str(value).lower().split("x")
    sides = [int(p) if str(p).strip().isdecimal() else 0 for p in parts]
    if len(sides) not in (1, 2) or not all(1 <= side <= 4096 for side in sides):
        raise ConfigError(
            f"`{name}` must be a side such as 32, or HEIGHTxWIDTH such as 32x48, from 1 to 4096 "
            f"pixels. Received: {value!r}."
        )
    return sides[0], sides[-1]


def _channels(value: Any, name: str) -> int:
    if str(value) not in ("1", "3"):
        raise ConfigError(f"`{name}` must be 1 or 3. Received: {value!r}.")
    return int(value)


def _fraction(value: Any, name: str) -> float:
    share = parse_share(str(value), name)
    if share >= 1:
        raise ConfigError(f"`{name}` must be below 1. Received: {value!r}.")
    return share


def _seed(value: Any, name: str) -> int:
    return parse_count(str(value), name, least=0)


def _normalize(value: Any, name: str) -> str:
    text = str(value).strip()
    if text not in _NORMALIZE:
        explicit_scale(text, name)
    return text


def explicit_scale(text: str, name: str = "normalize=") -> tuple[list[float], list[float]]:
    """Return means and deviations from `"0.5"` (both) or `"m1:m2:m3/s1:s2:s3"`.

    Raises:
        ConfigError: If it is neither, or a deviation is not above zero.
    """
    mean, slash, std = text.partition("/")
    try:
        means, stds = ([float(x) for x in side.split(":")] for side in (mean, std or mean))
    except ValueError:
        means, stds = [math.nan], []
    fits = bool(slash) or len(means) == 1
    if not fits or not all(map(math.isfinite, [*means, *stds])) or min(stds, default=0) <= 0:
        raise ConfigError(
            f"`{name}` must be {', '.join(_NORMALIZE)}, a number above zero such as 0.5 (mean and "
            "deviation), or means and deviations such as 0.49:0.48:0.45/0.25:0.24:0.26. "
            f"Received: {text!r}."
        )
    return means, stds


CHECKS = {
    "label": _columns, "image": _one_column, "drop": _columns, "size": _size,
    "kind": _one_of("classification", "regression"), "layout": _one_of("nchw", "nhwc"),
    "channels": _channels, "normalize": _normalize, "test_fraction": _fraction,
    "val_fraction": _fraction, "split_seed": _seed,
}  # fmt: skip
"""What turns the value of a key, from text or TOML, into what `DataSpec` has; by key."""
