from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from harness.errors import BackendUnavailable, DeviceUnreachable
from harness_backends.bundle import BOOT
from harness_backends.transport.ssh import over_ssh

LAUNCH = over_ssh("jetson", "nvidia@board", "/opt/py/bin/python3")


def test_ssh_asks_nothing_forwards_nothing_and_trusts_no_new_key() -> None:
    argv = LAUNCH.argv(7)
    options = {argv[i + 1] for i, part in enumerate(argv) if part == "-o"}
    assert argv[0] == "ssh"
    assert {
        "BatchMode=yes", "StrictHostKeyChecking=yes", "ForwardAgent=no",
        "ClearAllForwardings=yes", "ServerAliveInterval=5", "ServerAliveCountMax=3",
    } <= options  # fmt: skip
    assert argv[-3:-1] == ["--", "nvidia@board"]


def test_ssh_itself_understands_every_option() -> None:
    settings = subprocess.run(
        ["ssh", "-G", *LAUNCH.argv(7)[1:-1]], capture_output=True, text=True, check=True
    ).stdout
    for line in (
        "batchmode yes", "stricthostkeychecking true", "forwardagent no",
        "clearallforwardings yes", "requesttty false", "serveraliveinterval 5",
    ):  # fmt: skip
        assert line in settings.splitlines()


def test_the_shell_over_there_gets_the_boot_code_as_one_word() -> None:
    assert shlex.split(LAUNCH.argv(7)[-1]) == ["/opt/py/bin/python3", "-u", "-c", BOOT, "7"]


def test_the_boot_code_runs_what_it_reads() -> None:
    code = '{"boot": "print(sorted(s), sys.argv[1:])", "x": 1}'
    ran = subprocess.run(
        [sys.executable, "-c", BOOT, str(len(code))], input=code, capture_output=True, text=True
    )
    assert ran.stdout == f"['boot', 'x'] ['{len(code)}']\n"


@pytest.mark.parametrize(
    ("code", "said", "words", "passing"),
    [
        (255, "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
         "host key is not the one.*compare the fingerprint", False),
        (255, "No ED25519 host key is known for board and you have requested strict checking.\n"
         "Host key verification failed.", "is not known here. Run `ssh nvidia@board` once", False),
        (255, "nvidia@board: Permission denied (publickey).", "ssh-copy-id nvidia@board", False),
        (255, "ssh: Could not resolve hostname board: Name or service not known",
         "no machine of that name", True),
        (255, "ssh: connect to host board port 22: Connection refused", "no ssh server", True),
        (255, "ssh: connect to host board port 22: Connection timed out", "switched on", True),
        (255, "ssh: connect to host board port 22: No route to host", "switched on", True),
        (255, "kex_exchange_identification: Connection closed by remote host",
         "can't be reached. ssh: kex_exchange_identification", True),
        (255, "", "no reason given", True),
        (1, "Traceback ...\nMemoryError", "was reached, but .* code 1: MemoryError", False),
        (0, "", "ended with code 0 and said nothing", False),
    ],
)  # fmt: skip
def test_what_ssh_says_becomes_what_to_do(code: int, said: str, words: str, passing: bool) -> None:
    error = LAUNCH.explained(code, said)
    assert isinstance(error, DeviceUnreachable)
    assert error.passing is passing
    with pytest.raises(DeviceUnreachable, match=rf"(?s)nvidia@board.*{words}"):
        raise error


@pytest.mark.parametrize(
    ("code", "said", "words"),
    [
        (127, "sh: 1: /opt/py/bin/python3: not found", "not found"),
        (127, "", "there is no /opt/py/bin/python3 there"),
        (126, "bash: line 1: /opt/py/bin/python3: No such file or directory", "No such file"),
        (1, "Python 3.8 or newer is needed, this is 3.6.9", "this is 3.6.9"),
    ],
)
def test_a_python_that_is_not_fit_is_named_with_the_way_to_name_another(
    code: int, said: str, words: str
) -> None:
    remedy = "harness targets add jetson --force --python PATH"
    with pytest.raises(BackendUnavailable, match=rf"{words}.*{remedy}"):
        raise LAUNCH.explained(code, said)


def test_without_ssh_the_client_is_asked_for() -> None:
    with pytest.raises(BackendUnavailable, match="Install OpenSSH"):
        raise LAUNCH.explained(None, "[Errno 2] No such file or directory: 'ssh'")
