"""Options of steps: how each is read, from text or from Python, with one clear error."""

from __future__ import annotations

import difflib
import math
import operator
from dataclasses import MISSING, field, fields
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reader(Protocol):
    """Turns what a user gave into an option's value."""

    def __call__(self, given: Any, /) -> Any:
        """Return the value.

        Raises:
            ValueError: If it doesn't fit; the message says what was expected.
        """


def option(read: Reader, default: Any = MISSING, *, about: str) -> Any:
    """Return a dataclass field that is an option of a step.

    Args:
        read: Reads it, from text and from Python alike.
        default: What is taken where it isn't given; without one it has to be.
        about: One line for people.
    """
    return field(default=default, metadata={"read": read, "about": about})


def check_options(step: Any) -> None:
    """Read every option of a step that isn't at its default, in place.

    Raises:
        ConfigError: If a value doesn't fit.
    """
    for one in fields(step):
        given = getattr(step, one.name)
        given = tuple(given) if isinstance(given, list) else given  # as JSON has it
        if type(given) is type(one.default) and given == one.default:
            object.__setattr__(step, one.name, given)
            continue
        try:
            value = one.metadata["read"](given)
        except ValueError as exc:
            raise ConfigError(
                f"Step {step.name!r}: {one.name} must be {exc}. Received: {given!r}."
            ) from exc
        object.__setattr__(step, one.name, value)


def check_names(kind: type[Any], values: Mapping[str, Any]) -> None:
    """Check that a step has these options, and is given those that it needs.

    Raises:
        ConfigError: If not.
    """
    known = [one.name for one in fields(kind)]
    expected = f"Its options: {', '.join(known)}." if known else "It has no options."
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"Step {kind.name!r} has no option {name!r}. {expected}{hint}")
    for one in fields(kind):
        if one.default is MISSING and one.name not in values:
            raise ConfigError(
                f"Step {kind.name!r} needs {one.name}: {one.metadata['about']}. Give it as "
                f"'{kind.name}:{one.name}=...'."
            )


def share(given: Any) -> float:
    """Read a share above 0 and below 1: `"50%"`, `"0.5"` or 0.5."""
    text = str(given).strip()
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise ValueError("a share above 0 % and below 100 %, such as 50%")
    return value


def whole(least: int) -> Reader:
    """Return a reader of whole numbers from `least`."""

    def read(given: Any) -> int:
        written = isinstance(given, str) and given.strip().isdecimal()
        try:
            value = int(given) if written else operator.index(given)
        except (TypeError, ValueError):
            value = least - 1
        if isinstance(given, bool) or value < least:
            raise ValueError(f"a whole number from {least}")
        return value

    return read


def number(low: float, high: float = math.inf, *, with_low: bool = True) -> Reader:
    """Return a reader of numbers from `low` (or above it) to `high`."""
    words = f"a number {'from' if with_low else 'above'} {low:g}"
    words += "" if math.isinf(high) else f" to {high:g}"

    def read(given: Any) -> float:
        try:
            value = math.nan if isinstance(given, bool) else float(given)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value) or not low <= value <= high or (value == low and not with_low):
            raise ValueError(words)
        return value

    return read


def choice(*known: str) -> Reader:
    """Return a reader of one of several names."""

    def read(given: Any) -> str:
        if not isinstance(given, str) or given not in known:
            near = difflib.get_close_matches(str(given), known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"one of {', '.join(known)}{hint}")
        return str(given)

    return read


def names(given: Any) -> tuple[str, ...]:
    """Read names joined by `+`, or a list of them."""
    parts = given.split("+") if isinstance(given, str) else given
    if not isinstance(parts, (list, tuple)) or not all(isinstance(p, str) for p in parts):
        raise ValueError("names joined by '+', such as layer1.0+layer1.1")
    found = tuple(part.strip() for part in parts if part.strip())
    if not found:
        raise ValueError("at least one name")
    return found


def text(given: Any) -> str:
    """Read a text that isn't empty."""
    if not isinstance(given, str) or not given.strip():
        raise ValueError("a text")
    return given.strip()


def written(value: Any) -> str:
    """Return an option's value as a user would write it, so that its reader reads it again."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, tuple):
        return str(value)
    return "+".join("=".join(map(written, v)) if isinstance(v, tuple) else str(v) for v in value)


def flag(given: Any) -> bool:
    """Read `yes` or `no`, or a truth value."""
    if isinstance(given, bool):
        return given
    if not isinstance(given, str) or given not in ("yes", "no"):
        raise ValueError("yes or no")
    return given == "yes"
