"""A board through the system's OpenSSH: the user's keys, settings and jump hosts just work."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from harness.errors import BackendUnavailable, DeviceUnreachable
from harness.measurement import hostlock
from harness_backends.bundle import BOOT
from harness_backends.transport.launch import KEPT_FAR, Launch

if TYPE_CHECKING:
    from harness.errors import HarnessError

_OPTIONS = {
    "BatchMode": "yes",  # asks nothing: there may be nobody
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",  # with the count: a dead line is noticed in 20 s
    "ServerAliveCountMax": "3",
    "ForwardAgent": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "ControlMaster": "no",  # on a line that others share, its end is not ours to notice
    "ControlPath": "none",
    "RequestTTY": "no",
}
WATCHDOG_S = 20.0
"""After so long without a word, the board takes the other side for gone."""
_FOLDER = "~/.cache/latency-harness/sent"
_NO_PYTHON = (126, 127)
"""A shell's codes for a command that is not there, or that can't be run."""
_REFUSED = 255


def over_ssh(target: str, host: str, python: str) -> Launch:
    """Return how an agent is started on a board.

    Args:
        target: The target's name, for messages.
        host: As ssh knows it.
        python: The Python to start there.
    """
    options = [part for key, value in _OPTIONS.items() for part in ("-o", f"{key}={value}")]

    def argv(size: int) -> list[str]:
        # ssh hands the rest to a shell over there; `python` has no character that one would heed.
        return ["ssh", "-T", *options, "--", host, f"{python} -u -c {shlex.quote(BOOT)} {size}"]

    return Launch(
        where=host, argv=argv, worker=(python, "-u"), folder=_FOLDER, keeps_bytes=KEPT_FAR,
        locks=str(hostlock.FOLDER),
        explained=lambda code, said: _explained(target, host, python, code, said),
        watchdog_s=WATCHDOG_S, far=True,
    )  # fmt: skip


def _explained(target: str, host: str, python: str, code: int | None, said: str) -> HarnessError:
    """Return what is wrong, and what to do, where a board could not be reached."""
    if code is None:
        return BackendUnavailable(f"`ssh` can't be started ({said}). Install OpenSSH's client.")
    last = said.splitlines()[-1] if said else ""
    if "or newer is needed" in said or code in _NO_PYTHON:
        fault = last or f"there is no {python} there"
        return BackendUnavailable(
            f"{python} on {host} can't be used: {fault}. Install Python 3.8 or newer there, or "
            f"name one: `harness targets add {target} --force --python PATH`."
        )
    if code != _REFUSED:
        ended = f"It ended with code {code}" + (f": {last}" if last else " and said nothing")
        return DeviceUnreachable(
            f"{host} was reached, but no timing process began there. {ended}. If {python} is no "
            f"Python, name one: `harness targets add {target} --force --python PATH`."
        )
    for words, remedy, passing in _REMEDIES:
        if words in said:
            return DeviceUnreachable(f"{host}: {remedy.format(host=host)} ssh: {last}", passing)
    return DeviceUnreachable(f"{host} can't be reached. ssh: {last or 'no reason given'}", True)


_REMEDIES = (
    (
        "IDENTIFICATION HAS CHANGED",
        "its host key is not the one that ssh knows, so another machine may answer in its place. "
        "If the board was set up anew, remove the old key (`ssh-keygen -R`, see `ssh {host}` for "
        "the exact command), run `ssh {host}` once and compare the fingerprint.",
        False,
    ),
    (
        "Host key verification failed",
        "its host key is not known here. Run `ssh {host}` once, compare the fingerprint with the "
        "board's own (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there), and say yes.",
        False,
    ),
    (
        "Permission denied",
        "it refused the login. Run `ssh-copy-id {host}` once, so that it takes a key of yours "
        "without asking; `ssh {host} true` should then say nothing.",
        False,
    ),
    ("Could not resolve", "there is no machine of that name. Check the name.", True),
    ("Connection refused", "it is there, but no ssh server answers. Switch ssh on there.", True),
    ("timed out", "it does not answer. Is it switched on, and in this network?", True),
    ("No route to host", "it does not answer. Is it switched on, and in this network?", True),
)
"""What ssh says, what to do, and whether it may pass by itself, as while a board starts."""
