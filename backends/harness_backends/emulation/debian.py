"""Debian packages, fetched and unpacked in a private folder: nothing is installed on the host."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BackendUnavailable
from harness_backends.emulation.recipe import SUITE
from harness_backends.emulation.running import require, run

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
"""Where a Debian host says which mirror it uses."""
_PROGRAMS = {"apt-get": "apt", "dpkg-deb": "dpkg", "tar": "tar"}
MIRROR = "HARNESS_DEBIAN_MIRROR"
"""Environment variable with the URL of a mirror of Debian, for hosts that use none."""
_ONLINE = "Check the network (and `http_proxy`, where there is a proxy), then try again"
_CONFIG = """\
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; "arm64"; }};
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Debug::NoLocking "1";
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/debian.sources";
Dir::Etc::sourceparts "/dev/null";
"""
_SOURCES = """\
Types: deb
URIs: {mirror}
Suites: {suite}
Components: main
Signed-By: {keyring}
"""


class Archive:
    """A release of Debian, with apt's state in a folder of its own.

    Signatures are checked by apt, against the keys that Debian ships.

    Args:
        folder: Made; may be removed when all is fetched.

    Raises:
        BackendUnavailable: If apt or Debian's keys are missing, or the network is.
        OSError: If the folder can't be written.
    """

    def __init__(self, folder: Path) -> None:
        require(_PROGRAMS)
        if not KEYRING.exists():
            raise BackendUnavailable(
                f"Debian's packages can't be verified without {KEYRING}. Install "
                "debian-archive-keyring (`sudo apt-get install debian-archive-keyring`)."
            )
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "state" / "status").touch()
        config = folder / "apt.conf"
        config.write_text(_CONFIG.format(folder=folder))
        sources = _SOURCES.format(mirror=mirror(), suite=SUITE, keyring=KEYRING)
        (folder / "debian.sources").write_text(sources)
        self._environment = {"APT_CONFIG": str(config)}
        run(
            ["apt-get", "-q", "update"], "Fetching Debian's list of packages", f"{_ONLINE}.",
            extra=self._environment,
        )  # fmt: skip

    def fetch(self, packages: Sequence[str], folder: Path) -> list[Path]:
        """Fetch packages, not what they depend on.

        Args:
            packages: As `name:architecture`.
            folder: Made, where absent.

        Returns:
            The packages' files, by name.

        Raises:
            BackendUnavailable: If one can't be fetched.
        """
        folder.mkdir(parents=True, exist_ok=True)
        run(
            ["apt-get", "-q", "download", *packages], "Fetching Debian packages", f"{_ONLINE}.",
            folder, self._environment,
        )  # fmt: skip
        return sorted(folder.glob("*.deb"))


def mirror() -> str:
    """Return the mirror of Debian that this host uses, or that `MIRROR` names.

    Raises:
        BackendUnavailable: If there is neither.
    """
    named = os.environ.get(MIRROR)
    if named:
        return named.rstrip("/")
    for path in SOURCES:
        try:
            text = path.read_text()
        except OSError:
            continue
        found = re.search(r"^(?:URIs:|deb\s).*?(https?://\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
        if found:
            return found[1]
    raise BackendUnavailable(
        "The emulated ARM machine is made of Debian's packages, and this host uses no mirror of "
        f"them. Set {MIRROR} to the URL of one."
    )


def unpack(package: Path, into: Path, members: Sequence[str] = ()) -> None:
    """Unpack a package's files, less what is in `usr/share`.

    Args:
        package: A `.deb`.
        into: Made, where absent.
        members: The paths to take, as `./usr/bin/name`; all unless given.

    Raises:
        BackendUnavailable: If it can't be unpacked.
    """
    into.mkdir(parents=True, exist_ok=True)
    reader = ["dpkg-deb", "--fsys-tarfile", str(package)]
    writer = ["tar", "-x", "-C", str(into), "--no-same-owner", "--exclude=./usr/share", *members]
    with subprocess.Popen(reader, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reading:
        written = subprocess.run(writer, stdin=reading.stdout, capture_output=True)
        _, reason = reading.communicate()
        told = written.stderr or reason
    if reading.returncode or written.returncode:
        lines = told.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise BackendUnavailable(
            f"Unpacking {package.name} failed: {lines[0]}. Free some space on the disk, or try "
            "again."
        )
