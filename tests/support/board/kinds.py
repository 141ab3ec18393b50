"""The files by which a Raspberry Pi 5 and a Jetson Orin Nano tell what they are and how they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness_backends.emulation.cpus import CORES, EmulatedCpu, cpu_files, find_cpu

SYSTEM_CPU = "sys/devices/system/cpu"
BOOT_ID = "proc/sys/kernel/random/boot_id"
MODEL = "proc/device-tree/model"
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
POWER_MODE = "var/lib/nvpmodel/status"


@dataclass(frozen=True)
class Kind:
    """A kind of board.

    Attributes:
        cpu: What QEMU emulates.
        files: Makes the board's files, by path.
    """

    cpu: str
    files: Callable[[], dict[str, str]]


def pi5_files() -> dict[str, str]:
    """Return the files of a Raspberry Pi 5, idle and cool."""
    return {
        **cpu_files(find_cpu("cortex-a76")),
        **_common("Raspberry Pi 5 Model B Rev 1.0", 1_500_000, 2_400_000, CORES),
        **_zones({"cpu-thermal": 48_312}),
        THROTTLED: "0\n",
    }


def orin_files() -> dict[str, str]:
    """Return the files of a Jetson Orin Nano: two of six cores off, as power mode 1 has them."""
    gpu = "sys/class/devfreq/17000000.gpu"
    files = cpu_files(EmulatedCpu(0xD42, 0, 1, find_cpu("cortex-a76").features))
    return {
        **files,
        **_common("NVIDIA Jetson Orin Nano Developer Kit", 729_600, 1_510_400, 6),
        **_zones({"cpu-thermal": 47_500, "gpu-thermal": 46_100, "tj-thermal": 48_000}),
        f"{SYSTEM_CPU}/possible": "0-5\n",
        f"{SYSTEM_CPU}/present": "0-5\n",
        POWER_MODE: "pmode:0001 fmode:quiet\n",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
        f"{gpu}/cur_freq": "306000000\n",
        f"{gpu}/min_freq": "306000000\n",
        f"{gpu}/max_freq": "624750000\n",
    }


KINDS = {"pi5": Kind("cortex-a76", pi5_files), "orin": Kind("cortex-a76", orin_files)}


def boot_id(boots: int) -> str:
    """Return the boot_id after a number of reboots."""
    return f"{boots:08x}-2222-4333-8444-555555555555\n"


def _common(model: str, low_khz: int, high_khz: int, cores: int) -> dict[str, str]:
    files = {
        MODEL: f"{model}\0",
        BOOT_ID: boot_id(0),
        "proc/loadavg": "0.00 0.00 0.00 1/100 1000\n",
        "proc/meminfo": "MemTotal:        8245632 kB\nMemAvailable:    7500000 kB\n",
        "proc/stat": "cpu  100 0 100 10000 0 0 0 0 0 0\n",
    }
    for core in range(min(cores, CORES)):
        frequency = f"{SYSTEM_CPU}/cpu{core}/cpufreq"
        for key, value in (
            ("scaling_governor", "ondemand"), ("scaling_cur_freq", high_khz),
            ("scaling_min_freq", low_khz), ("scaling_max_freq", high_khz),
            ("cpuinfo_min_freq", low_khz), ("cpuinfo_max_freq", high_khz),
        ):  # fmt: skip
            files[f"{frequency}/{key}"] = f"{value}\n"
    return files


def _zones(temperatures: dict[str, int]) -> dict[str, str]:
    """Return thermal zones; temperatures in thousandths of a degree Celsius."""
    files = {}
    for number, (kind, milli) in enumerate(temperatures.items()):
        files[f"sys/class/thermal/thermal_zone{number}/type"] = f"{kind}\n"
        files[f"sys/class/thermal/thermal_zone{number}/temp"] = f"{milli}\n"
    return files
