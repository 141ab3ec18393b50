"""What a candidate is timed on: a backend, its options, and where it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Target:
    """A device and the way in which it is used; everything here enters the fingerprint.

    Attributes:
        name: As given to `--target`.
        backend: Name of the backend that times on it.
        description: One line for people.
        threads: Intra-operator threads of the runtime.
        batch: Samples per inference.
        granule: Channel counts are searched in steps of this many channels.
        needs_host: True for a board that is reached over the network.
    """

    name: str
    backend: str
    description: str = ""
    threads: int = 1
    batch: int = 1
    granule: int = 16
    needs_host: bool = False

    def options(self) -> dict[str, Any]:
        """Return what changes a measurement: all fields but the prose."""
        return {key: value for key, value in asdict(self).items() if key != "description"}

    def with_settings(self, settings: Sequence[str]) -> Target:
        """Return a copy with `key=value` texts applied.

        Raises:
            ConfigError: If a text is no `key=value`, or the key or value doesn't fit.
        """
        pairs: dict[str, str] = {}
        for text in settings:
            key, equals, value = text.partition("=")
            if not equals or not key:
                raise ConfigError(f"`--set` must be KEY=VALUE. Received: {text!r}.")
            if key.strip() not in _COUNTS:
                raise ConfigError(
                    f"`--set` knows no {key.strip()!r}. Expected one of: {', '.join(_COUNTS)}. "
                    f"Received: {text!r}."
                )
            pairs[key.strip()] = value.strip()
        return target_from_mapping(pairs, base=self, source="`--set`")


_COUNTS = ("threads", "batch", "granule")


def target_from_mapping(values: Mapping[str, Any], base: Target | None, source: str) -> Target:
    """Build a target from TOML or command-line values, over `base` where one is given.

    Raises:
        ConfigError: If a key is unknown, or a value is of the wrong kind.
    """
    known = {field.name for field in fields(Target)}
    for key in values:
        if key not in known:
            settable = ", ".join(sorted(known - {"name"}))
            raise ConfigError(f"{source}: unknown key {key!r}. Expected one of: {settable}.")
    clean = {key: _checked(key, value, source) for key, value in values.items()}
    if base is not None:
        return replace(base, **clean)
    missing = {"name", "backend"} - clean.keys()
    if missing:
        raise ConfigError(f"{source}: missing {' and '.join(sorted(missing))}. Add the key.")
    return Target(**clean)


def _checked(key: str, value: Any, source: str) -> Any:
    if key in _COUNTS:
        return _count(key, value, source)
    kind, words = (bool, "true or false") if key == "needs_host" else (str, "text")
    if not isinstance(value, kind) or (key in ("name", "backend") and not value):
        raise ConfigError(f"{source}: {key} must be {words}. Received: {value!r}.")
    return value


def _count(key: str, value: Any, source: str) -> int:
    try:
        count = int(value) if not isinstance(value, (bool, float)) else 0
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise ConfigError(f"{source}: {key} must be a whole number from 1. Received: {value!r}.")
    return count
