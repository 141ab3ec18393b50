"""What boards are made of, kept between runs: the emulated machine and OpenSSH's server."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import platformdirs

from harness_backends.emulation.build import build_root
from harness_backends.emulation.debian import Archive, unpack
from harness_backends.emulation.folder import make_once
from harness_backends.emulation.root import ArmRoot, find_root

SSHD_PACKAGES = tuple(
    f"{name}:amd64" for name in (
        "openssh-server", "libc6", "libwrap0", "libnsl2", "libtirpc3", "libaudit1", "libcap-ng0",
        "libpam0g", "libsystemd0", "libcap2", "libgcrypt20", "libgpg-error0", "liblzma5",
        "libzstd1", "liblz4-1", "libselinux1", "libpcre2-8-0", "libgssapi-krb5-2", "libkrb5-3",
        "libk5crypto3", "libkrb5support0", "libkeyutils1", "libcom-err2", "libssl3", "libcrypt1",
        "zlib1g",
    )
)  # fmt: skip


def rig_cache() -> Path:
    """Return the folder that survives; `HARNESS_TEST_CACHE` overrides the user's cache."""
    override = os.environ.get("HARNESS_TEST_CACHE")
    return Path(override) if override else platformdirs.user_cache_path("latency-harness-tests")


def cached_root() -> ArmRoot:
    """Return the emulated machine, made now where it isn't there.

    Raises:
        BackendUnavailable: If it can't be made here.
    """
    folder = rig_cache() / "arm64"
    build_root(folder, lambda _: None)
    return find_root(folder)


def sshd_argv() -> list[str]:
    """Return how OpenSSH's server is started: the installed one, else Debian's, unpacked.

    Raises:
        BackendUnavailable: If it is not installed and can't be fetched.
    """
    installed = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
    if installed:
        return [installed]
    folder = rig_cache() / "sshd"
    version = hashlib.sha256(repr(SSHD_PACKAGES).encode()).hexdigest()
    make_once(folder, version, _unpack_sshd)
    libraries = [
        str(folder / name) for name in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
    ]
    loader = f"{libraries[0]}/ld-linux-x86-64.so.2"
    # -r: connections are served by a fork; a second start would be without the loader.
    return [loader, "--library-path", ":".join(libraries), str(folder / "usr/sbin/sshd"), "-r"]


def _unpack_sshd(made: Path, work: Path) -> None:
    archive = Archive(work / "apt")
    for package in archive.fetch(SSHD_PACKAGES, work / "packages"):
        unpack(package, made)
