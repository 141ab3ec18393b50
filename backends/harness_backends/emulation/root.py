"""Where the emulated machine lies, and how a Python is started in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import BackendUnavailable
from harness.folders import cache_folder
from harness_backends.emulation.cpus import find_cpu
from harness_backends.emulation.folder import made_by
from harness_backends.emulation.recipe import PYTHON, WHEELS, recipe_version

if TYPE_CHECKING:
    from pathlib import Path

PYTHON_PATH = f"usr/bin/python{PYTHON}"
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
_REMEDY = "Run `harness targets add qemu-arm64`: it takes under a minute."
_NOT_FOR_THE_GUEST = "LD_PRELOAD,LD_LIBRARY_PATH,PYTHONHOME"


@dataclass(frozen=True, slots=True)
class ArmRoot:
    """A machine that `build.build_root` made.

    Attributes:
        folder: With `root` (the ARM system), `site` (its Python packages), `qemu` (of the host's
            architecture), `views` and `insncount.so`.
    """

    folder: Path

    @property
    def system(self) -> Path:
        """The ARM system's `usr` and `lib`."""
        return self.folder / "root"

    @property
    def site(self) -> Path:
        """ONNX Runtime and numpy for the emulated Python."""
        return self.folder / "site"

    def view(self, cpu: str) -> Path:
        """Return what a program on an emulated CPU sees as `/`."""
        return self.folder / "views" / cpu

    def runtime_version(self, cpu: str) -> str:
        """Return the version of its ONNX Runtime.

        Raises:
            ConfigError: If there is no such CPU.
        """
        find_cpu(cpu)
        return WHEELS[0].partition("==")[2]

    def argv(self, cpu: str, counts: Path | None = None) -> list[str]:
        """Return the argument list of an emulated Python; its own arguments are appended.

        The emulated Python may start another with the same list. `environment()` goes with it.

        Args:
            cpu: QEMU's name, one of `cpus.CPUS`.
            counts: Absolute path of the file to which marks are appended (see `counting`); nothing
                is counted where none is given.

        Raises:
            ConfigError: If there is no such CPU.
        """
        find_cpu(cpu)
        return self.argv_of_view(cpu, self.view(cpu), counts)

    def argv_of_view(self, cpu: str, view: Path, counts: Path | None = None) -> list[str]:
        """Return what `argv` does, for a view of one's own (see `view.make_view`)."""
        counting = []
        if counts is not None:
            out = str(counts).replace(",", ",,")  # QEMU splits options at commas
            counting = ["-plugin", f"{self.folder / 'insncount.so'},out={out}"]
        return [*self._qemu(), "-cpu", cpu, "-L", str(view), *counting, str(view / PYTHON_PATH)]

    def environment(self) -> dict[str, str]:
        """Return the environment variables that an emulated Python needs, over any others."""
        return {
            "PYTHONPATH": str(self.site),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ORT_DISABLE_TELEMETRY": "1",
            "OPENBLAS_NUM_THREADS": "1",  # numpy would start idle threads, one per core
        }

    def _qemu(self) -> list[str]:
        """Return the beginning of the list: QEMU, started by its own loader.

        So it sees its own C library and needs no LD_LIBRARY_PATH, which the guest would inherit.
        """
        base = self.folder / "qemu"
        loader = base / _LIBRARIES[0] / "ld-linux-x86-64.so.2"
        libraries = ":".join(str(base / name) for name in _LIBRARIES)
        return [
            str(loader), "--library-path", libraries, str(base / "usr/bin/qemu-aarch64"),
            "-U", _NOT_FOR_THE_GUEST,
        ]  # fmt: skip


def root_folder() -> Path:
    """Return where this user's emulated machine lies, there or not."""
    return cache_folder().absolute() / "arm64"


def find_root(folder: Path | None = None) -> ArmRoot:
    """Return the emulated machine.

    Args:
        folder: Where it lies; `root_folder()` unless given.

    Raises:
        BackendUnavailable: If it was not made yet, or by an older recipe.
    """
    base = folder if folder is not None else root_folder()
    version = made_by(base)
    if version is None:
        raise BackendUnavailable(f"The emulated ARM machine is not there yet. {_REMEDY}")
    if version != recipe_version():
        raise BackendUnavailable(f"The emulated ARM machine is of another version. {_REMEDY}")
    return ArmRoot(base)
