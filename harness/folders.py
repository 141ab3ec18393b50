"""Where this user's settings and caches are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_APP = "latency-harness"


def config_folder() -> Path:
    """Return the settings folder; `HARNESS_CONFIG_DIR` overrides the platform's."""
    override = os.environ.get("HARNESS_CONFIG_DIR")
    return Path(override) if override else platformdirs.user_config_path(_APP)


def cache_folder() -> Path:
    """Return the cache folder; `HARNESS_CACHE_DIR` overrides the platform's."""
    override = os.environ.get("HARNESS_CACHE_DIR")
    return Path(override) if override else platformdirs.user_cache_path(_APP)
