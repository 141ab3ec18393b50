"""What the machine is, and what state it is in: read from files, unknown is None."""

from __future__ import annotations

import glob
import os
import platform
import re
import time
from typing import List, Optional, Tuple

from harness_backends.agent.frames import Header

CPUS = "/sys/devices/system/cpu/"
ARM_CPUS = {
    "0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72", "0xd09": "Cortex-A73", "0xd0a": "Cortex-A75", "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1", "0xd0d": "Cortex-A77", "0xd40": "Neoverse-V1", "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE", "0xd44": "Cortex-X1", "0xd49": "Neoverse-N2", "0xd4f": "Neoverse-V2",
}  # fmt: skip
"""Arm's numbers of its designs, as Linux tells them (Main ID Register, part number)."""
THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"
"""Where the kernel of a Raspberry Pi says what `vcgencmd get_throttled` does."""
THROTTLED_BITS = {
    0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit",
}  # fmt: skip
"""Now; 16 bits higher: since the board was started."""


def read_text(path: str) -> Optional[str]:
    """Return a file's stripped text, or None where it can't be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def machine_facts() -> Header:
    """Return what identifies the machine: CPU model, count, ISA flags, memory."""
    model: Optional[str] = None
    flags: List[str] = []
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in ("model name", "CPU part") and model is None:
            model = ARM_CPUS.get(value, value)
        if key in ("flags", "Features") and not flags:
            flags = sorted(value.split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu_model": model,
        "cpu_count": os.cpu_count(),
        "cpu_flags": flags,
        "architecture": platform.machine(),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "boot_id": read_text("/proc/sys/kernel/random/boot_id"),
        "device_model": (read_text("/proc/device-tree/model") or "").strip("\0") or None,
        "cpus_online": read_text(CPUS + "online"),
        "power_mode": power_mode(),
    }


def machine_state() -> Header:
    """Return what may change a latency: governor, limits, throttling, heat, steal, load, waiting.

    Sensors and ticks are those of the CPUs that this process may use; heat, load and waiting are
    the machine's. None is unknown, never fine.
    """
    own = sorted(os.sched_getaffinity(0))
    cpus = [CPUS + "cpu%d/" % n for n in own]
    ticks = cpu_ticks(read_text("/proc/stat") or "", own)
    governors = sorted(set(texts("cpufreq/scaling_governor", cpus)))
    gpus = sorted(glob.glob("/sys/class/devfreq/*gpu*/"))
    load = read_text("/proc/loadavg")
    temperatures = numbers("temp", sorted(glob.glob("/sys/class/thermal/thermal_zone*/")))
    stalled = re.search(r"some .*total=(\d+)", read_text("/proc/pressure/cpu") or "")
    return {
        "governor": ",".join(governors) if governors else None,
        "max_khz": min(numbers("cpufreq/scaling_max_freq", cpus), default=None),
        "khz": min(numbers("cpufreq/scaling_cur_freq", cpus), default=None),
        "limit_khz": max(numbers("cpufreq/cpuinfo_max_freq", cpus), default=None),
        "cpus_online": read_text(CPUS + "online"),
        "cpus_present": read_text(CPUS + "present"),
        "throttled": throttled()[0],
        "throttled_since_start": throttled()[1],
        "power_mode": power_mode(),
        "gpu_khz": [hertz // 1000 for hertz in numbers("cur_freq", gpus)] or None,
        "throttle_count": total(numbers("thermal_throttle/core_throttle_count", cpus)),
        "temperature_c": max(temperatures) / 1000.0 if temperatures else None,
        "cpu_ticks": sum(ticks) if ticks else None,
        "steal_ticks": ticks[7] if len(ticks) > 7 else None,
        "load_1min": float(load.split()[0]) if load else None,
        "stalled_us": int(stalled.group(1)) if stalled else None,
        "clock_s": time.monotonic(),
    }


def throttled() -> Tuple[Optional[List[str]], Optional[List[str]]]:
    """Return what holds a Raspberry Pi back now, and what did since it was started."""
    text = read_text(THROTTLED)
    try:
        bits = int(text, 16) if text else None
    except ValueError:
        bits = None
    if bits is None:
        return None, None
    now = [words for bit, words in THROTTLED_BITS.items() if bits >> bit & 1]
    return now, [words for bit, words in THROTTLED_BITS.items() if bits >> (bit + 16) & 1]


def power_mode() -> Optional[str]:
    """Return a Jetson's power mode, as `nvpmodel` keeps it: `"0001"`."""
    found = re.search(r"pmode:(\S+)", read_text("/var/lib/nvpmodel/status") or "")
    return found.group(1) if found else None


def cpu_ticks(stat: str, cpus: List[int]) -> List[int]:
    """Return the ticks of some CPUs by kind (user, nice, ..., steal), added up."""
    names = ["cpu%d" % n for n in cpus]
    rows = [line.split() for line in stat.splitlines()]
    own = [[int(tick) for tick in row[1:9]] for row in rows if row and row[0] in names]
    return [sum(kind) for kind in zip(*own)]


def texts(name: str, folders: List[str]) -> List[str]:
    """Return the texts of a file in several folders, where it can be read."""
    return [text for text in (read_text(folder + name) for folder in folders) if text]


def numbers(name: str, folders: List[str]) -> List[int]:
    """Return the whole numbers of a file in several folders, where it can be read."""
    return [int(text) for text in texts(name, folders) if text.lstrip("-").isdigit()]


def total(values: List[int]) -> Optional[int]:
    """Return the sum of what could be read; None where nothing could."""
    return sum(values) if values else None
