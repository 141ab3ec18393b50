"""The ARM CPUs that are emulated, and the files in which Linux describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

CORES = 4
"""Cores that an emulated machine shows, whatever the host has."""
_ARMV8 = "fp asimd aes pmull sha1 sha2 crc32 cpuid"
_ARMV8_2 = (
    "fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
)


@dataclass(frozen=True, slots=True)
class EmulatedCpu:
    """A CPU as `/proc/cpuinfo` tells it; the values are those of QEMU's model.

    Attributes:
        part: Arm's number of the design.
        variant: Major revision.
        revision: Minor revision.
        features: Instruction sets in Linux's words; must be those of QEMU's AT_HWCAP.
    """

    part: int
    variant: int
    revision: int
    features: str


CPUS: Mapping[str, EmulatedCpu] = {
    "cortex-a53": EmulatedCpu(0xD03, 0, 4, _ARMV8),
    "cortex-a57": EmulatedCpu(0xD07, 1, 0, _ARMV8),
    "cortex-a72": EmulatedCpu(0xD08, 0, 3, _ARMV8),
    "cortex-a76": EmulatedCpu(0xD0B, 4, 1, _ARMV8_2),
    "neoverse-n1": EmulatedCpu(0xD0C, 4, 1, _ARMV8_2),
}
"""By QEMU's name."""


def find_cpu(name: str) -> EmulatedCpu:
    """Return an emulated CPU by QEMU's name.

    Raises:
        ConfigError: If it is not one of `CPUS`.
    """
    if name not in CPUS:
        raise ConfigError(
            f"emulated_cpu must be one of {', '.join(CPUS)}. Received: {name!r}. Choose one that "
            "is like the board's: cortex-a72 for a Raspberry Pi 4, cortex-a76 for a Raspberry Pi 5."
        )
    return CPUS[name]


def cpuinfo(cpu: EmulatedCpu, cores: int = CORES) -> str:
    """Return the text of `/proc/cpuinfo`."""
    lines = (
        "BogoMIPS\t: 108.00",
        f"Features\t: {cpu.features}",
        "CPU implementer\t: 0x41",
        "CPU architecture: 8",
        f"CPU variant\t: {cpu.variant:#x}",
        f"CPU part\t: {cpu.part:#x}",
        f"CPU revision\t: {cpu.revision}",
    )
    described = "\n".join(lines)
    return "".join(f"processor\t: {core}\n{described}\n\n" for core in range(cores))


def cpu_files(cpu: EmulatedCpu, cores: int = CORES) -> dict[str, str]:
    """Return the files, by path, by which programs learn what CPU they run on.

    ONNX Runtime's CPU detection crashes on the host's: it expects ARM's words.
    """
    system, every = "sys/devices/system/cpu", f"0-{cores - 1}\n"
    files = {"proc/cpuinfo": cpuinfo(cpu, cores), f"{system}/kernel_max": "255\n"}
    files |= {f"{system}/{kind}": every for kind in ("possible", "present", "online")}
    for core in range(cores):
        topology = f"{system}/cpu{core}/topology"
        for key, value in (
            ("physical_package_id", "0"), ("core_id", f"{core}"), ("cluster_id", "0"),
            ("core_siblings_list", every.strip()), ("thread_siblings_list", f"{core}"),
            ("package_cpus_list", every.strip()), ("core_cpus_list", f"{core}"),
        ):  # fmt: skip
            files[f"{topology}/{key}"] = f"{value}\n"
    return files
