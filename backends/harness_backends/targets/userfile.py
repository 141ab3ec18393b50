"""Editing the user's targets file: comments and order survive, and no writer loses another's work.

What is written is read back before it replaces the file: it must hold what was there and the one
change, nothing else.
"""

from __future__ import annotations

import fcntl
import os
import tomllib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.items import Table

from harness.atomic import write_atomic
from harness.errors import ConfigError
from harness_backends.targets import user_file, user_tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tomlkit import TOMLDocument
    from tomlkit.items import Item, Key

    Body = list[tuple[Key | None, Item]]


@contextmanager
def file_locked() -> Iterator[None]:
    """Hold the user's targets file, so that what is read in it is still so when it is written.

    The lock is on a file beside it, which no writer replaces; the kernel frees it on any death.

    Raises:
        ConfigError: If the settings folder can't be made or written.
    """
    path = user_file()
    with _refusals():
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with _refusals():
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def set_values(name: str, values: Mapping[str, Any]) -> None:
    """Set keys of a user's table, which is made where there is none; hold `file_locked`.

    Raises:
        ConfigError: If the file can't be read, edited or written.
    """
    tables = user_tables()
    document = _document()
    table = document.get(name)
    if table is None:
        document[name] = table = tomlkit.table()
    after = _cut_trailing(table)
    for key, value in values.items():
        table[key] = value
    if isinstance(table, Table):
        table.value.body.extend(after)
    _write(document, {**tables, name: {**tables.get(name, {}), **values}})


def remove_table(name: str) -> None:
    """Remove a user's table; what is noted after it belongs to the next and stays.

    Hold `file_locked`; the table must be there.

    Raises:
        ConfigError: If the file can't be read, edited or written.
    """
    tables = user_tables()
    document = _document()
    kept: Body = []
    for key, item in document.body:
        own = key is not None and key.key == name
        kept.extend(_cut_trailing(item) if own else [(key, item)])
    document.body[:] = kept
    _write(document, {key: values for key, values in tables.items() if key != name})


def _document() -> TOMLDocument:
    path = user_file()
    # As bytes: reading as text would change the ends of its lines.
    text = path.read_bytes().decode("utf-8") if path.exists() else ""
    return tomlkit.parse(text if not text or text.endswith("\n") else text + "\n")


def _cut_trailing(item: Any) -> Body:
    """Cut off and return the blank lines and comments after a table's last value."""
    if not isinstance(item, Table):
        return []
    body = item.value.body
    end = len(body)
    while end and body[end - 1][0] is None:
        end -= 1
    trailing = body[end:]
    del body[end:]
    return trailing or _cut_trailing(body[-1][1] if body else None)


def _write(document: TOMLDocument, expected: Mapping[str, Any]) -> None:
    text, path = document.as_string(), user_file()
    try:
        whole = tomllib.loads(text) == expected
    except tomllib.TOMLDecodeError:
        whole = False
    if not whole:
        raise ConfigError(
            f"{path} is laid out in a way that can't be edited safely; it was left as it is. Edit "
            "it by hand, or write each target as one [table]."
        )
    with _refusals():
        write_atomic(path.resolve(), text.encode("utf-8"))  # a link stays a link


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ConfigError(
            f"{user_file()} can't be written ({exc.strerror}). Mend its folder, or name another "
            "settings folder with HARNESS_CONFIG_DIR."
        ) from exc
