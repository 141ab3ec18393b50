"""Make the emulated machine: Debian packages, two wheels, and the compiled counting plugin."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from typing import TYPE_CHECKING

from harness.errors import BackendUnavailable
from harness_backends.emulation import recipe
from harness_backends.emulation.cpus import CPUS, cpu_files
from harness_backends.emulation.debian import Archive, unpack
from harness_backends.emulation.folder import make_once
from harness_backends.emulation.root import ArmRoot
from harness_backends.emulation.running import require, run
from harness_backends.emulation.view import make_view

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_COMPILER = {"cc": "gcc libc6-dev"}
_TRIAL = (
    "import ctypes, glob, hashlib, json, mmap, resource, subprocess, tempfile, threading;"
    "import numpy, onnxruntime, platform; print(platform.machine())"
)


def build_root(folder: Path, progress: Callable[[str], None]) -> None:
    """Make the emulated machine, unless the folder has one of the present recipe already.

    It appears whole or not at all, and two at once don't collide (see `folder.make_once`). Nothing
    is installed on the host; an ordinary user's rights are enough.

    Args:
        folder: Where it shall lie, usually `root.root_folder()`; an older one is replaced.
        progress: Is told, in a few words, what is being done.

    Raises:
        BackendUnavailable: If it can't be made here; the message has the reason and the remedy.
    """
    check_machine()

    def make(made: Path, work: Path) -> None:
        check_tools(folder.parent)
        _make(made, work, progress)

    make_once(folder, recipe.recipe_version(), make)


def check_machine() -> None:
    """Check that this machine can emulate.

    Raises:
        BackendUnavailable: If it is no Linux on x86-64.
    """
    here = sys.platform, platform.machine()
    if here != ("linux", "x86_64"):
        raise BackendUnavailable(
            f"The emulated ARM machine needs Linux on x86-64. Received: {' '.join(here)}. Use a "
            "board over ssh (`harness targets add NAME --host USER@BOARD`), or target 'cpu'."
        )


def check_tools(folder: Path) -> None:
    """Check what can be known before anything is fetched.

    Args:
        folder: On the disk that the machine will lie on.

    Raises:
        BackendUnavailable: If a compiler, pip or room on the disk is missing.
    """
    require(_COMPILER)
    if importlib.util.find_spec("pip") is None:
        raise BackendUnavailable(
            f"The emulated ARM machine's wheels are fetched with pip, which {sys.executable} has "
            "not. Run `python -m ensurepip` with it."
        )
    free = shutil.disk_usage(folder).free
    if free < recipe.FREE_BYTES:
        raise BackendUnavailable(
            f"Making the emulated ARM machine takes {recipe.FREE_BYTES / 1e6:.0f} MB in {folder}, "
            f"where {free / 1e6:.0f} MB are free. Make room there, or set HARNESS_CACHE_DIR to a "
            "folder on another disk."
        )


def _make(made: Path, work: Path, progress: Callable[[str], None]) -> None:
    """Make everything in `made`; `work` is for what isn't kept.

    Raises:
        BackendUnavailable: If a step fails.
        OSError: If a folder can't be written.
    """
    root = ArmRoot(made)
    progress("Fetching Debian's list of packages")
    archive = Archive(work / "apt")
    progress(f"Fetching {len(recipe.ROOT_PACKAGES + recipe.QEMU_PACKAGES)} Debian packages")
    system = archive.fetch(recipe.ROOT_PACKAGES, work / "arm64")
    emulator = archive.fetch(recipe.QEMU_PACKAGES, work / "amd64")
    progress("Unpacking them")
    for package in system:
        unpack(package, root.system)
    for package in emulator:
        only = ["./usr/bin/qemu-aarch64"] if package.name.startswith("qemu-user_") else []
        unpack(package, made / "qemu", only)
    progress(f"Fetching {' and '.join(recipe.WHEELS)} for 64-bit ARM")
    _install_wheels(root.site)
    progress("Compiling the instruction counter")
    _compile(work / "insncount.c", made / "insncount.so")
    for name, cpu in CPUS.items():
        make_view(root.system, root.view(name), cpu_files(cpu))
    progress("Trying it")
    _try(root)
    names = sorted(path.name for path in (*system, *emulator))
    (made / "packages.txt").write_text("\n".join((*names, *recipe.WHEELS)) + "\n")


def _install_wheels(site: Path) -> None:
    platforms = [word for name in recipe.PLATFORMS for word in ("--platform", name)]
    run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-input", "--root-user-action=ignore", "--no-compile", "--no-deps",
            "--only-binary=:all:", "--implementation", "cp", "--python-version", recipe.PYTHON,
            *platforms, "--target", str(site), *recipe.WHEELS,
        ],
        "Fetching wheels for 64-bit ARM",
        "Check the network and pip's settings, then try again.",
    )  # fmt: skip


def _compile(source: Path, plugin: Path) -> None:
    source.write_bytes(recipe.plugin_source())
    run(
        ["cc", "-O2", "-shared", "-fPIC", "-o", str(plugin), str(source)],
        "Compiling the instruction counter",
        "Install a C compiler (`sudo apt-get install gcc libc6-dev`).",
    )


def _try(root: ArmRoot) -> None:
    """Import the runtime on every CPU's oldest and newest kind, or say that it doesn't work."""
    # What is imported here is compiled here, once: a start then takes half as long.
    compiling = {**root.environment(), "PYTHONDONTWRITEBYTECODE": ""}
    for cpu in ("cortex-a53", "cortex-a76"):
        told = run(
            [*root.argv(cpu, root.folder / "trial"), "-c", _TRIAL],
            f"Trying the emulated {cpu}", "Report it, with what `uname -a` prints.",
            extra=compiling,
        )  # fmt: skip
        if told.split() != ["aarch64"]:
            raise BackendUnavailable(f"The emulated {cpu} says that it is {told.strip()!r}.")
    (root.folder / "trial").unlink(missing_ok=True)
