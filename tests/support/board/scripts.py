"""The shell scripts of a board: its login and its `python3`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OLD_PYTHON = """\
import platform, sys
VERSION = {version!r}
sys.version_info = type("version_info", (tuple,), dict(zip(("major", "minor", "micro"), VERSION),
    releaselevel="final", serial=0))((*VERSION, "final", 0))
sys.hexversion = VERSION[0] << 24 | VERSION[1] << 16 | VERSION[2] << 8 | 0xF0
sys.version = ".".join(map(str, VERSION)) + " (default) [GCC 8.4.0]"
platform.python_version = lambda: ".".join(map(str, VERSION))
"""
"""A sitecustomize module: the Python says that it is another."""
OLD_RUNTIME = """\
import sys
del sys.modules[__name__]
_path = sys.path[:]
sys.path[:] = [folder for folder in _path if folder != {folder!r}]
import onnxruntime
onnxruntime.__version__ = {version!r}
sys.path[:] = _path
"""
"""An `onnxruntime` package that is the real one and says that it is another."""


@dataclass(frozen=True)
class Settings:
    """How a board behaves at the next login.

    Attributes:
        noise: What its rc files print before anything else.
        python: Whether it has a `python3`.
        runtime: Whether its Python has ONNX Runtime and numpy.
        python_version: What its Python says that it is; None for the truth.
        runtime_version: What its ONNX Runtime says that it is; None for the truth.
        cpu: What is emulated, where that shall differ from what the board's files say: with
            "cortex-a53" int8 and fp16 models die of SIGILL, and float32 ones run.
        memory_bytes: Address space of each process; None for no limit.
        disk_bytes: Room in the home and temporary folder; None for no limit.
    """

    noise: str = ""
    python: bool = True
    runtime: bool = True
    python_version: tuple[int, int, int] | None = None
    runtime_version: str | None = None
    cpu: str | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None


def login_script(environment: Mapping[str, str], settings: Settings, unshare: str | None) -> str:
    """Return what sshd runs at each login, in place of what the client asked for.

    Args:
        environment: Of the board; nothing else of sshd's remains but the command.
        settings: Noise and limits.
        unshare: The program that makes a mount namespace, for a disk of its own; None where it is
            not allowed: files are then limited, and EFBIG is what a full disk says.
    """
    lines = ["#!/bin/sh", "umask 022"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    if settings.noise:
        lines.append(f"printf %s {shlex.quote(settings.noise)}")
    if settings.disk_bytes is not None and unshare:
        mount = f'/bin/mount -t tmpfs -o size={settings.disk_bytes} board-disk "$HOME"'
        mount = f'{mount} && cd "$HOME" && mkdir tmp && exec /bin/sh -c "$1"'
        asked = '"${SSH_ORIGINAL_COMMAND:-exec /bin/sh}"'
        if settings.memory_bytes is not None:
            lines.append(f"ulimit -v {settings.memory_bytes // 1024}")
        lines.append(f"exec {unshare} -Urm /bin/sh -c {shlex.quote(mount)} sh {asked}")
        return "\n".join(lines) + "\n"
    if settings.disk_bytes is not None:
        lines.append(f"ulimit -f {settings.disk_bytes // 512}")
    if settings.memory_bytes is not None:
        lines.append(f"ulimit -v {settings.memory_bytes // 1024}")
    lines += ['cd "$HOME"', 'exec /bin/sh -c "${SSH_ORIGINAL_COMMAND:-exec /bin/sh}"']
    return "\n".join(lines) + "\n"


def python_script(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the board's `python3`: it starts the emulated one."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return "\n".join(("#!/bin/sh", "ulimit -c 0", *lines, f'exec {shlex.join(argv)} "$@"')) + "\n"
