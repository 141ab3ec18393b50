"""One board: its files, its Python, its processes. No network: see `loopback.Loopback`."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from harness_backends.emulation.root import ArmRoot
from harness_backends.emulation.view import make_view
from support.board.kinds import BOOT_ID, KINDS, SYSTEM_CPU, THROTTLED, boot_id
from support.board.scripts import (
    OLD_PYTHON,
    OLD_RUNTIME,
    Settings,
    login_script,
    python_script,
)

MARKER = "HARNESS_TEST_BOARD"
"""Environment variable of everything that runs on a board; its value is the board's own."""
TOOLS = (
    "sh", "cat", "echo", "env", "false", "head", "id", "kill", "ls", "mkdir", "mktemp", "mv", "rm",
    "sleep", "true", "wc",
)  # fmt: skip
"""Programs of the host that a board has; no python3 among them."""
_LIMIT_S = 10.0


class Board:
    """A board in a folder of its own; the root that it shares with others stays as it is.

    Args:
        folder: Made.
        root: The emulated machine.
        kind: One of `kinds.KINDS`.
    """

    def __init__(self, folder: Path, root: ArmRoot, kind: str = "pi5") -> None:
        self.id, self.folder, self._root, self._kind = secrets.token_hex(8), folder, root, kind
        self.settings = Settings()
        self.view, self.home, self.bin = folder / "view", folder / "home", folder / "bin"
        make_view(root.system, self.view, KINDS[kind].files())
        (self.home / "tmp").mkdir(parents=True)
        self._make_tools()
        self._boots = 0
        unshare = shutil.which("unshare")
        may = (
            unshare
            and not subprocess.run([unshare, "-Urm", "true"], capture_output=True).returncode
        )
        self.unshare = unshare if may else None
        self.change()

    @property
    def login(self) -> Path:
        """The script that every login runs."""
        return self.folder / "login"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a login."""
        return {
            MARKER: self.id, "HOME": str(self.home), "TMPDIR": str(self.home / "tmp"),
            "PATH": str(self.bin),
        }  # fmt: skip

    def pipe_argv(self) -> list[str]:
        """Return the argument list of the board's Python over a plain pipe, without ssh."""
        return [str(self.bin / "python3")]

    def change(self, **changes: Any) -> None:
        """Change settings (see `scripts.Settings`) for the logins from now on."""
        self.settings = dataclasses.replace(self.settings, **changes)
        python = self.bin / "python3"
        python.unlink(missing_ok=True)
        if self.settings.python:
            _script(python, python_script(self._python_argv(), self._python_environment()))
        _script(self.login, login_script(self.environment, self.settings, self.unshare))

    def write(self, path: str, text: str) -> None:
        """Change one of the board's files, such as `kinds.BOOT_ID`."""
        (self.view / path).parent.mkdir(parents=True, exist_ok=True)
        (self.view / path).write_text(text)

    def throttle(self, flags: int = 0x4) -> None:
        """Let a Raspberry Pi say that it is throttled; 0x4: now."""
        self.write(THROTTLED, f"{flags:x}\n")

    def take_cores_offline(self, online: str = "0-1") -> None:
        """Leave only these cores online."""
        self.write(f"{SYSTEM_CPU}/online", f"{online}\n")

    def reboot(self) -> None:
        """End everything that runs, and start again: another boot_id."""
        self.end_processes()
        self._boots += 1
        self.write(BOOT_ID, boot_id(self._boots))

    def processes(self) -> list[str]:
        """Return the command lines of what runs on the board."""
        return [_command_line(pid) for pid in self.pids()]

    def wait_until_idle(self, limit_s: float = _LIMIT_S) -> list[str]:
        """Return what still runs when nothing does any more, or the limit is reached."""
        deadline = time.monotonic() + limit_s
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def end_processes(self) -> None:
        """End everything that runs on the board, as cutting its power does."""
        deadline = time.monotonic() + _LIMIT_S
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                send(pid, signal.SIGKILL)
            time.sleep(0.01)

    def close(self) -> None:
        """End and remove everything."""
        self.end_processes()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_tools(self) -> None:
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool, path="/bin:/usr/bin") or f"/bin/{tool}")
        _script(self.bin / "uname", "#!/bin/sh\necho aarch64\n")

    def _python_argv(self) -> list[str]:
        cpu = self.settings.cpu or KINDS[self._kind].cpu
        *qemu, python = self._root.argv_of_view(cpu, self.view)
        # The name by which it was started, so that sys.executable can be started again.
        return [*qemu, "-0", str(self.bin / "python3"), python]

    def _python_environment(self) -> dict[str, str]:
        own = self.folder / "python"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        if self.settings.python_version:
            code = OLD_PYTHON.format(version=self.settings.python_version)
            (own / "sitecustomize.py").write_text(code)
        if self.settings.runtime_version:
            (own / "onnxruntime").mkdir()
            code = OLD_RUNTIME.format(folder=str(own), version=self.settings.runtime_version)
            (own / "onnxruntime/__init__.py").write_text(code)
        folders = [str(own), *([str(self._root.site)] if self.settings.runtime else [])]
        environment = {**self._root.environment(), "PYTHONPATH": ":".join(folders)}
        return {**self.environment, **environment}

    def pids(self) -> list[int]:
        """Return the numbers of the processes that run on the board."""
        mark, own = f"{MARKER}={self.id}".encode(), os.getpid()
        return [
            pid for pid in all_pids() if pid != own and mark in _read(pid, "environ").split(b"\0")
        ]


def all_pids() -> list[int]:
    """Return the numbers of the processes of this machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process, if it is still there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _script(path: Path, text: str) -> None:
    """Write a program whole: a login may be reading the one before."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o755)
    fresh.replace(path)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it is gone, or another user's
        return b""


def _command_line(pid: int) -> str:
    return shlex.join(_read(pid, "cmdline").decode(errors="replace").split("\0")[:-1])
