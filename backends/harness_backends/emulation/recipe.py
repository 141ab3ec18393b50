"""What the emulated machine is made of."""

from __future__ import annotations

import hashlib
import json
from importlib import resources

from harness_backends.emulation.cpus import CPUS, cpu_files

LAYOUT = 2
"""Raise it when `build.py` puts the same parts together in another way."""
SUITE = "bookworm"
"""Debian's release: its QEMU has version 1 of the plugin API, as `insncount.c` needs."""
PYTHON = "3.11"
"""Python of that release."""
WHEELS = ("onnxruntime==1.31.1", "numpy==2.4.6")
"""Versions as in constraints.txt; nothing else is needed to run a model."""
PLATFORMS = tuple(
    f"{kind}_aarch64" for kind in ("manylinux_2_28", "manylinux_2_27", "manylinux2014")
)
"""Wheels that fit the root's C library, 2.36."""
ROOT_PACKAGES = tuple(
    f"{name}:arm64" for name in (
        "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6",
        "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libbz2-1.0", "liblzma5",
        "libssl3", "libuuid1", "libcrypt1",
    )
)  # fmt: skip
"""A Python of 64-bit ARM with what its standard library needs, but for terminals and databases."""
QEMU_PACKAGES = tuple(
    f"{name}:amd64" for name in (
        "qemu-user", "libc6", "libgcc-s1", "libcapstone4", "libglib2.0-0", "libgnutls30",
        "libnuma1", "liburing2", "zlib1g", "libpcre2-8-0", "libp11-kit0", "libidn2-0",
        "libunistring2", "libtasn1-6", "libnettle8", "libhogweed6", "libgmp10", "libffi8",
    )
)  # fmt: skip
"""QEMU that can load plugins (the static one can't), with every library: the host's aren't used."""
FREE_BYTES = 500_000_000
"""Room on the disk that making takes, rounded up, an older one beside it; 200 MB stay."""


def plugin_source() -> bytes:
    """Return the counting plugin's C source."""
    return resources.files(__package__).joinpath("insncount.c").read_bytes()


def recipe_version() -> str:
    """Return a text that changes with anything that the machine is made of."""
    parts = [
        LAYOUT, SUITE, PYTHON, WHEELS, PLATFORMS, ROOT_PACKAGES, QEMU_PACKAGES,
        {name: cpu_files(cpu) for name, cpu in CPUS.items()},
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode() + plugin_source()).hexdigest()
