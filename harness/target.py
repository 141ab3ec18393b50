"""What a candidate is timed on: a backend, its options, and where it runs."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.quantity import Quantity, quantity_on

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HOST = re.compile(rf"(?:{_WORD}@)?(?:{_WORD}|[0-9A-Fa-f]*(?::[0-9A-Fa-f]*){{2,}}(?:%{_WORD})?)")
_PYTHON = re.compile(r"[~A-Za-z0-9_./][A-Za-z0-9_./+-]*")


@dataclass(frozen=True, slots=True)
class Target:
    """A device and the way in which it is used.

    Attributes:
        name: As given to `--target`.
        backend: Name of the backend that times on it.
        description: One line for people.
        threads: Intra-operator threads of the runtime.
        affinity: Numbers of the CPUs that it may run on; empty for all.
        batch: Samples per inference.
        shapes: Shapes by input name, where a file leaves sizes open.
        granule: Channel counts are searched in steps of this many; None to probe it. It changes
            what is searched, not what is measured, so it is not in the fingerprint.
        provider: The runtime's execution provider.
        provider_options: The provider's own options.
        session_config: The session's own configuration entries.
        board: What the device tree's model contains on such a board; empty for this machine. Away
            from one, the target is reached over ssh.
        hosts: The boards to use, as ssh knows them: `user@board` or an alias; more than one of a
            kind are one target.
        python: The Python to start there, 3.8 or newer, which sees the runtime.
        emulated_cpu: The ARM CPU that QEMU emulates on this machine; empty for a real one.
    """

    name: str
    backend: str
    description: str = ""
    threads: int = 1
    affinity: tuple[int, ...] = ()
    batch: int = 1
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    granule: int | None = None
    provider: str = "CPUExecutionProvider"
    provider_options: Mapping[str, str] = field(default_factory=dict)
    session_config: Mapping[str, str] = field(default_factory=dict)
    board: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    python: str = "python3"
    emulated_cpu: str = ""

    @property
    def quantity(self) -> Quantity:
        """What calls are measured in on it: time, or instructions where a CPU is emulated."""
        return quantity_on(self.emulated_cpu)

    def options(self) -> dict[str, Any]:
        """Return what changes a measurement: it enters the fingerprint.

        Where a board is, and which Python loads its runtime, is not part of it.
        """
        aside = ("description", "granule", "board", "hosts", "python")
        return {key: value for key, value in asdict(self).items() if key not in aside}

    def with_settings(self, settings: Sequence[str]) -> Target:
        """Return a copy with `key=value` texts applied; `table.key=value` sets one entry.

        Raises:
            ConfigError: If a text is no `key=value`, or the key or value doesn't fit.
        """
        values: dict[str, Any] = {}
        for text in settings:
            key, equals, value = (part.strip() for part in text.partition("="))
            if not equals or not key:
                raise ConfigError(f"`--set` must be KEY=VALUE. Received: {text!r}.")
            table, dot, entry = key.partition(".")
            if dot and entry and table in _TABLES:
                merged = values.setdefault(table, dict(getattr(self, table)))
                merged[entry] = value
            elif key in _SETTABLE:
                values[key] = value
            else:
                expected = ", ".join((*_SETTABLE, *(f"{name}.NAME" for name in _TABLES)))
                raise ConfigError(
                    f"`--set` knows no {key!r}. Expected one of: {expected}. Received: {text!r}."
                )
        return target_from_mapping(values, base=self, source="`--set`")


def target_from_mapping(values: Mapping[str, Any], base: Target | None, source: str) -> Target:
    """Build a target from TOML or command-line values, over `base` where one is given.

    Raises:
        ConfigError: If a key is unknown, or a value is of the wrong kind.
    """
    known = {one.name for one in fields(Target)}
    for key in values:
        if key not in known:
            settable = ", ".join(sorted(known - {"name"}))
            raise ConfigError(f"{source}: unknown key {key!r}. Expected one of: {settable}.")
    clean = {key: _CHECKS[key](key, value, source) for key, value in values.items()}
    if base is not None:
        return _consistent(replace(base, **clean), source)
    missing = {"name", "backend"} - clean.keys()
    if missing:
        raise ConfigError(
            f"{source}: missing {' and '.join(sorted(missing))}. Add the key; a backend is a "
            "runtime, such as 'onnxruntime'."
        )
    return _consistent(Target(**clean), source)


def _consistent(target: Target, source: str) -> Target:
    """Return a target whose options can go together.

    Raises:
        ConfigError: If they can't.
    """
    if target.hosts and target.emulated_cpu:
        raise ConfigError(
            f"{source}: a target is a board (hosts) or an emulated machine (emulated_cpu), not "
            f"both. Received: {', '.join(target.hosts)} and {target.emulated_cpu}. Remove one."
        )
    if target.emulated_cpu and target.threads > 1:
        raise ConfigError(
            f"{source}: an emulated machine counts the instructions of one thread, since threads "
            f"that wait for each other execute any number. Received: {target.threads} threads. "
            "Leave threads out."
        )
    return target


def _wrong(key: str, words: str, value: Any, source: str) -> ConfigError:
    return ConfigError(f"{source}: {key} must be {words}. Received: {value!r}.")


def _name(key: str, value: Any, source: str) -> str:
    if not isinstance(value, str) or (not value and key != "description"):
        raise _wrong(key, "text", value, source)
    return value


def _cpu(key: str, value: Any, source: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9.-]*", value):
        raise _wrong(key, "a CPU that QEMU knows, such as 'cortex-a76'", value, source)
    return value


def _words(key: str, value: Any, source: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(x, str) and x for x in value):
        raise _wrong(key, 'a list of texts such as ["Jetson"]', value, source)
    return tuple(value)


def _hosts(key: str, value: Any, source: str) -> tuple[str, ...]:
    words = 'a list of ssh destinations such as ["pi@192.168.0.7"]; a port goes into ~/.ssh/config'
    if not isinstance(value, (list, tuple)):
        raise _wrong(key, words, value, source)
    for host in value:
        # What begins with a hyphen would be an option of ssh, such as one that runs a command.
        if not isinstance(host, str) or not _HOST.fullmatch(host):
            raise _wrong(key, words, host, source)
    return tuple(dict.fromkeys(value))


def _python(key: str, value: Any, source: str) -> str:
    if not isinstance(value, str) or not _PYTHON.fullmatch(value):
        words = "a command or a path without spaces, such as 'python3' or '/opt/py/bin/python3'"
        raise _wrong(key, words, value, source)
    return value


def _number(value: Any) -> int:
    """Return a whole number from TOML or text; -1 for anything else."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _count(key: str, value: Any, source: str) -> int:
    count = _number(value)
    if count < 1:
        raise _wrong(key, "a whole number from 1", value, source)
    return count


def _cpus(key: str, value: Any, source: str) -> tuple[int, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(_number(part) >= 0 for part in parts):
        raise _wrong(key, "CPU numbers such as 2,3 ([2, 3] in a file)", value, source)
    return tuple(sorted({_number(part) for part in parts}))


def _texts(key: str, value: Any, source: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong(key, "a table of texts", value, source)
    wrong = [entry for entry, text in value.items() if not isinstance(text, str)]
    if wrong:
        raise _wrong(f"{key}.{wrong[0]}", "text (in quotes)", value[wrong[0]], source)
    return dict(value)


def _shapes(key: str, value: Any, source: str) -> dict[str, tuple[int, ...]]:
    if not isinstance(value, dict):
        raise _wrong(key, "a table of shapes", value, source)
    return {name: _shape(f"{key}.{name}", one, source) for name, one in value.items()}


def _shape(key: str, value: Any, source: str) -> tuple[int, ...]:
    parts = value.split("x") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(_number(part) >= 1 for part in parts):
        raise _wrong(key, "sizes such as 1x3x32x32 ([1, 3, 32, 32] in a file)", value, source)
    return tuple(_number(part) for part in parts)


_CHECKS: Mapping[str, Callable[[str, Any, str], Any]] = {
    "name": _name, "backend": _name, "description": _name, "provider": _name,
    "threads": _count, "batch": _count, "granule": _count, "affinity": _cpus,
    "shapes": _shapes, "provider_options": _texts, "session_config": _texts,
    "board": _words, "hosts": _hosts, "python": _python, "emulated_cpu": _cpu,
}  # fmt: skip
_SETTABLE = ("threads", "affinity", "batch", "granule", "provider")
_TABLES = ("shapes", "provider_options", "session_config")
