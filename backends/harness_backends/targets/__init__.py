"""Targets: the shipped TOML files beside this one, and the user's own."""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.folders import config_folder
from harness.target import Target, target_from_mapping

if TYPE_CHECKING:
    from pathlib import Path


def user_file() -> Path:
    """Return where the user's targets are: one TOML table per name."""
    return config_folder() / "targets.toml"


def load_targets() -> dict[str, Target]:
    """Return every target by name; a user's target of a shipped name inherits from it.

    Raises:
        ConfigError: If the user's file is no valid TOML or has a wrong key or value.
    """
    targets = {}
    for entry in sorted(resources.files(__package__).iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".toml"):
            name = entry.name.removesuffix(".toml")
            values = tomllib.loads(entry.read_text(encoding="utf-8"))
            targets[name] = target_from_mapping({"name": name, **values}, None, entry.name)
    for name, values in _user_tables().items():
        source = f"{user_file()}: [{name}]"
        if "name" in values:
            raise ConfigError(f"{source}: the table's name is the target's. Remove the key 'name'.")
        targets[name] = target_from_mapping({"name": name, **values}, targets.get(name), source)
    return targets


def find_target(name: str) -> Target:
    """Return a target by name.

    Raises:
        ConfigError: If there is none; the message names the nearest.
    """
    targets = load_targets()
    if name in targets:
        return targets[name]
    near = difflib.get_close_matches(name.lower(), targets, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"Unknown target {name!r}. Known: {', '.join(targets)}.{hint} See `harness targets`."
    )


def _user_tables() -> dict[str, dict[str, Any]]:
    path = user_file()
    if not path.exists():
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} can't be read: {exc}. Mend or remove the file.") from exc
    for name, values in tables.items():
        if not isinstance(values, dict):
            raise ConfigError(
                f"{path}: expected one table per target, such as [{name}]. Received: {values!r}."
            )
    return tables
