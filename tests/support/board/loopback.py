"""A board reached by ssh: OpenSSH's server on this machine's loopback, with its own keys."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from harness.errors import BackendUnavailable
from support.board.cache import sshd_argv
from support.board.machine import MARKER, Board, all_pids, send
from support.board.privileges import as_this_user

HOST = "board"
"""By which name `ssh` knows the board, with `Loopback.config`."""
_LIMIT_S = 10.0
_SSHD = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
StrictModes no
AllowTcpForwarding no
X11Forwarding no
PrintMotd no
MaxStartups 50
SetEnv {marker}={id} HOME={home}
ForceCommand {login}
"""
_CLIENT = """\
Host {host}
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/user
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
"""


class Loopback:
    """A server that lands every login on a board.

    Args:
        board: Where it lands.

    Raises:
        BackendUnavailable: If there is no ssh client or server, or no way to start one here.
    """

    def __init__(self, board: Board) -> None:
        self.board, self.folder = board, board.folder / "ssh"
        client = shutil.which("ssh")
        if client is None or shutil.which("ssh-keygen") is None:
            raise BackendUnavailable("There is no `ssh` here. Install openssh-client.")
        self._server = sshd_argv()
        self.folder.mkdir(mode=0o700)
        for name in ("host", "user", "other"):
            self._make_key(name)
        self.accept_key()
        self.path_folder = self.folder / "bin"
        self.path_folder.mkdir()
        wrapper = self.path_folder / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {client} -F {self.config} "$@"\n')
        wrapper.chmod(0o755)
        self.port, self._process = self._started()
        self.know_host()

    @property
    def config(self) -> Path:
        """The client's settings: `ssh -F CONFIG board`."""
        return self.folder / "ssh_config"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, in which `ssh` knows the board by the name of `HOST`."""
        return {**os.environ, "PATH": f"{self.path_folder}{os.pathsep}{os.environ['PATH']}"}

    def ssh(
        self, command: str, *options: str, limit_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the board by plain `ssh`."""
        return subprocess.run(
            ["ssh", "-T", "-o", "BatchMode=yes", *options, HOST, command], env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s,
        )  # fmt: skip

    def know_host(self) -> None:
        """Let the client know the server's key."""
        key = " ".join((self.folder / "host.pub").read_text().split()[:2])
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}\n")

    def forget_host(self) -> None:
        """Let the client know no key of the server."""
        (self.folder / "known_hosts").write_text("")

    def change_host_key(self) -> None:
        """Give the server another key than the client knows."""
        self.stop()
        for path in (self.folder / "host", self.folder / "host.pub"):
            path.unlink()
        self._make_key("host")
        self.start()

    def accept_key(self) -> None:
        """Let the client's key in."""
        shutil.copy(self.folder / "user.pub", self.folder / "authorized_keys")

    def refuse_key(self) -> None:
        """Let another key in than the client's."""
        shutil.copy(self.folder / "other.pub", self.folder / "authorized_keys")

    def kill_connections(self) -> None:
        """Cut every connection, as a pulled cable that is noticed; the board itself goes on."""
        self._signal_sessions(signal.SIGKILL)

    def freeze_connections(self) -> None:
        """Let every connection fall silent without an end: half-open."""
        self._signal_sessions(signal.SIGSTOP)

    def thaw_connections(self) -> None:
        """Let frozen connections go on."""
        self._signal_sessions(signal.SIGCONT)

    def reboot(self) -> None:
        """Cut every connection, end everything on the board, and start it again."""
        self.kill_connections()
        self.board.reboot()

    def stop(self) -> None:
        """End the server, so that new connections are refused; those that are there stay."""
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        """Start a stopped server again, on the same port."""
        self._process = self._start(self.port)
        if not _answers(self._process, self.port):
            raise BackendUnavailable(self._why())

    def close(self) -> None:
        """End the server and all its connections."""
        self.kill_connections()
        self.stop()

    def _started(self) -> tuple[int, subprocess.Popen[bytes]]:
        """Start the server on a port that is free; another process may be faster, so try twice."""
        for _ in range(5):
            port = _free_port()
            process = self._start(port)
            if _answers(process, port):
                return port, process
            process.kill()
            process.wait()
        raise BackendUnavailable(self._why())

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        settings = _SSHD.format(
            port=port, folder=self.folder, marker=MARKER, id=self.board.id, home=self.board.home,
            login=self.board.login,
        )  # fmt: skip
        (self.folder / "sshd_config").write_text(settings)
        self.config.write_text(
            _CLIENT.format(host=HOST, port=port, user=getpass.getuser(), folder=self.folder)
        )
        argv = as_this_user(
            [*self._server, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self._log)],
            self.folder / "system",
        )
        with self._log.open("ab") as log:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _why(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
        return f"sshd can't be started here: {lines[-1]}. Install openssh-server."

    def _make_key(self, name: str) -> None:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self.folder / name],
            check=True, capture_output=True,
        )  # fmt: skip

    def _signal_sessions(self, number: signal.Signals) -> None:
        """Send a signal to the server's processes for connections, not to what they started."""
        for pid in self._sessions():
            send(pid, number)

    def _sessions(self) -> list[int]:
        on_board = set(self.board.pids())
        parents = {pid: _parent(pid) for pid in all_pids()}
        found, generation = [], {self._process.pid}
        while generation:
            generation = {p for p, parent in parents.items() if parent in generation} - on_board
            found += sorted(generation)
        return found


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a server takes connections; False where it ends or stays silent."""
    deadline = time.monotonic() + _LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if not probe.connect_ex(("127.0.0.1", port)):
                return probe.recv(4) == b"SSH-"
        time.sleep(0.01)
    return False
