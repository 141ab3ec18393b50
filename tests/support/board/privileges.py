"""Starting OpenSSH's server as whoever we are, without a change to the machine.

An ordinary user's server needs nothing. Root's wants a user `sshd`, the folder `/run/sshd` and an
account that isn't locked: it gets them in a mount namespace of its own.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_MOUNT = (
    'mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/shadow" /etc/shadow && '
    'mount --bind "$1/run" /run && shift && exec "$@"'
)


def as_this_user(argv: Sequence[str], folder: Path) -> list[str]:
    """Return the argument list that starts a server.

    Args:
        argv: The server and its arguments.
        folder: For the namespace's files.
    """
    if os.geteuid() or not _may_mount():
        return list(argv)
    _write_files(folder)
    return ["unshare", "--mount", "/bin/sh", "-c", _MOUNT, "sh", str(folder), *argv]


@functools.cache
def _may_mount() -> bool:
    """Return whether this process may make mount namespaces; containers' root often may not."""
    if shutil.which("unshare") is None:
        return False
    trial = ["unshare", "--mount", "mount", "--bind", "/etc/passwd", "/etc/passwd"]
    return subprocess.run(trial, capture_output=True).returncode == 0


def _write_files(folder: Path) -> None:
    (folder / "run/sshd").mkdir(parents=True, exist_ok=True)
    me = pwd.getpwuid(os.geteuid())
    lines = [f"{me.pw_name}:x:{me.pw_uid}:{me.pw_gid}::{me.pw_dir}:/bin/sh"]
    lines += [
        line for line in _lines("/etc/passwd") if line.split(":")[0] not in (me.pw_name, "sshd")
    ]
    lines.append("sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin")
    (folder / "passwd").write_text("\n".join(lines) + "\n")
    # "*": no password fits, but the account is not locked, as "!" would say.
    (folder / "shadow").write_text(f"{me.pw_name}:*:19000:0:99999:7:::\n")
    (folder / "shadow").chmod(0o600)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
