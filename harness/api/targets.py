"""The user's own targets: add, remove, and say where each option comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from harness.errors import BackendUnavailable, ConfigError
from harness.target import Target
from harness_backends.emulation.build import build_root
from harness_backends.emulation.root import root_folder
from harness_backends.registry import BACKENDS, backend_class
from harness_backends.targets import (
    find_target,
    load_targets,
    no_board,
    shipped_tables,
    shipped_targets,
    user_file,
    user_tables,
    users_target,
)
from harness_backends.targets.userfile import file_locked, remove_table, set_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_DEFAULT_BACKEND = "onnxruntime"
_SOURCE = "`harness targets add`"


@dataclass(frozen=True, slots=True)
class Added:
    """What `add_target` did.

    Attributes:
        target: As it is now.
        path: The user's file.
        written: Keys of the user's table that were written, with their values.
        before: Values of those keys until now; empty for a new target.
        inherits: Whether the rest comes from a shipped target of the same name.
    """

    target: Target
    path: Path
    written: Mapping[str, Any]
    before: Mapping[str, Any]
    inherits: bool


def add_target(name: str, values: Mapping[str, Any], *, force: bool = False) -> Added:
    """Write a target into the user's file, or change the given keys of one that is there.

    Nothing is connected to. Of a shipped name only what differs is written.

    Args:
        name: Of the target: letters, digits and `.`, `_`, `-`.
        values: Options by name, as in the file, such as `{"hosts": ["pi@board"], "threads": 4}`.
        force: Whether a table of the user's that is there may be changed.

    Raises:
        ConfigError: If name or values don't fit, the table is there and `force` is not given, or
            the file can't be written; nothing is changed then.
    """
    _check_name(name)
    with file_locked():
        mine, shipped, known = user_tables(), shipped_targets().get(name), load_targets().get(name)
        own = mine.get(name)
        if own is not None and not force:
            raise ConfigError(
                f"Target {name!r} is in {user_file()} already. `--force` changes the options that "
                f"you give and leaves the others; `harness targets show {name}` shows it."
            )
        _check_place(name, values, shipped, known)
        given = values if known else {"backend": _DEFAULT_BACKEND, **values}
        target = users_target(name, {**(own or {}), **given}, shipped, _SOURCE)
        _check_backend(target)
        written = {
            key: _as_toml(getattr(target, key))
            for key in given
            if known is None or getattr(target, key) != getattr(known, key)
        }
        if written:
            set_values(name, written)
    before = {key: getattr(known, key) for key in written} if known is not None else {}
    return Added(target, user_file(), written, before, shipped is not None)


def is_emulated(name: str) -> bool:
    """Whether a target is an emulated machine, which is made and not reached."""
    known = load_targets().get(name)
    return known is not None and bool(known.emulated_cpu)


def make_emulated(progress: Callable[[str], None]) -> Path:
    """Make the emulated machine, from packages that are fetched; return its folder.

    Args:
        progress: Is told, in a few words, what is being done.

    Raises:
        BackendUnavailable: If it can't be made here.
    """
    folder = root_folder()
    build_root(folder, progress)
    return folder


def remove_target(name: str) -> bool:
    """Remove a target from the user's file; return whether a shipped one of its name is back.

    Raises:
        ConfigError: If the user has none of that name, or the file can't be written.
    """
    with file_locked():
        mine, shipped = user_tables(), shipped_targets()
        if name in mine:
            remove_table(name)
            return name in shipped
    if name in shipped:
        raise ConfigError(
            f"Target {name!r} is shipped, and {user_file()} has nothing of its name to remove."
        )
    own = f"Yours: {', '.join(mine)}." if mine else "It has none."
    raise ConfigError(f"{user_file()} has no target {name!r}. {own} See `harness targets`.")


def options_of(name: str) -> list[tuple[str, Any, str]]:
    """Return every option of a target with its value and where it comes from.

    Raises:
        ConfigError: If there is no such target, or the user's file is wrong.
    """
    target, own = find_target(name), user_tables().get(name, {})
    table, shipped = shipped_tables().get(name, {}), shipped_targets().get(name)

    def origin(key: str) -> str:
        if key in own:
            return "your file"
        inherited = key in table and getattr(target, key) == getattr(shipped, key)
        return "shipped" if inherited else "default"

    names = [one.name for one in fields(Target) if one.name != "name"]
    return [(key, getattr(target, key), origin(key)) for key in names]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "A target's name has 1 to 64 letters, digits, '.', '_' or '-', and begins with a "
            f"letter, a digit or '_'. Received: {name!r}."
        )


def _check_place(
    name: str, values: Mapping[str, Any], shipped: Target | None, known: Target | None
) -> None:
    """Refuse a target that says another place than it would be run at."""
    if "hosts" in values and shipped is not None and not shipped.board:
        raise ConfigError(
            f"Target {name!r} is {no_board(shipped)}. Give the board a name of its own."
        )
    if known is None and not values.get("hosts"):
        raise ConfigError(
            f"Where is {name!r}? A new target needs `--host USER@BOARD`, as ssh knows it."
        )
    if not values:
        raise ConfigError(f"Nothing to change of {name!r}. Give `--host` or another option.")
    description = values.get("description", "")
    if not isinstance(description, str) or not description.isprintable():
        raise ConfigError(f"`--description` must be one line of text. Received: {description!r}.")


def _check_backend(target: Target) -> None:
    try:
        backend_class(target.backend)
    except BackendUnavailable as exc:
        others = " or ".join(f"`--backend {name}`" for name in sorted(BACKENDS))
        raise BackendUnavailable(
            f"Target {target.name!r} would not be usable: {exc} Give {others}."
        ) from exc


def _as_toml(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
