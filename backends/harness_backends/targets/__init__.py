"""Targets: the shipped TOML files beside this one, and the user's own."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.folders import config_folder
from harness.target import Target, target_from_mapping
from harness_backends.emulation.cpus import CPUS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def user_file() -> Path:
    """Return where the user's targets are: one TOML table per name."""
    return config_folder() / "targets.toml"


def shipped_tables() -> dict[str, dict[str, Any]]:
    """Return the keys and values of every shipped target, by name."""
    return {
        entry.name.removesuffix(".toml"): tomllib.loads(entry.read_text(encoding="utf-8"))
        for entry in sorted(resources.files(__package__).iterdir(), key=lambda item: item.name)
        if entry.name.endswith(".toml")
    }


def shipped_targets() -> dict[str, Target]:
    """Return every shipped target by name, without anything of the user's."""
    return {
        name: target_from_mapping({"name": name, **values}, None, f"{name}.toml")
        for name, values in shipped_tables().items()
    }


def load_targets() -> dict[str, Target]:
    """Return every target by name; a user's target of a shipped name inherits from it.

    Raises:
        ConfigError: If the user's file is no valid TOML or has a wrong key or value.
    """
    targets = shipped_targets()
    for name, values in user_tables().items():
        source = f"{user_file()}: [{name}]"
        targets[name] = users_target(name, values, targets.get(name), source)
    return targets


def users_target(
    name: str, values: Mapping[str, Any], shipped: Target | None, source: str
) -> Target:
    """Return the target that a user's table makes, over the shipped one of its name if any.

    Args:
        name: Of the table.
        values: Of the table.
        shipped: The shipped target of that name; None for none.
        source: Where the values are from, for messages.

    Raises:
        ConfigError: If a key is unknown, or a value is of the wrong kind.
    """
    if "name" in values:
        raise ConfigError(f"{source}: the table's name is the target's. Remove the key 'name'.")
    # A granule belongs to a runtime: that of another one is probed.
    if shipped is not None and values.get("backend", shipped.backend) != shipped.backend:
        shipped = replace(shipped, granule=None)
    target = target_from_mapping({"name": name, **values}, shipped, source)
    if target.hosts and shipped is not None and not shipped.board:
        raise ConfigError(
            f"{source}: the shipped target of this name is {no_board(shipped)}. Give the board a "
            "name of its own."
        )
    if target.emulated_cpu and target.emulated_cpu not in CPUS:
        raise ConfigError(
            f"{source}: emulated_cpu must be one of {', '.join(CPUS)}. Received: "
            f"{target.emulated_cpu!r}."
        )
    return target


def no_board(target: Target) -> str:
    """Return what a target that is no board is, in words."""
    return (
        "the emulated machine, not a board" if target.emulated_cpu else "this machine, not a board"
    )


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


def user_tables() -> dict[str, dict[str, Any]]:
    """Return the keys and values of the user's targets, by name; none where there is no file.

    Raises:
        ConfigError: If the file can't be read, or holds something else than tables.
    """
    path = user_file()
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return parse_tables(text)
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} can't be read: {exc}. Mend or remove the file.") from exc


def parse_tables(text: str) -> dict[str, dict[str, Any]]:
    """Return the tables of a user's file.

    Raises:
        TOMLDecodeError: If it is no TOML.
        ConfigError: If it holds something else than tables.
    """
    tables = tomllib.loads(text)
    for name, values in tables.items():
        if not isinstance(values, dict):
            raise ConfigError(
                f"{user_file()}: expected one table per target, such as [{name}]. Received: "
                f"{values!r}."
            )
    return tables
