"""Widths of layers by name, as an option of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.compression.steps.options import share, whole

Layers = tuple[tuple[str, int | float], ...]
"""Names of groups with what each keeps: channels where whole, else a share above 0 and below 1."""


def layer_widths(given: Any) -> Layers:
    """Read `"conv1=8+conv2=50%"`, a table or pairs: channels kept, or the share of them."""
    pairs = _split(given) if isinstance(given, str) else given
    try:
        found = [
            (str(name).strip(), whole(1)(kept) if _is_count(kept) else share(kept))
            for name, kept in (pairs.items() if isinstance(pairs, Mapping) else pairs)
        ]
    except (TypeError, ValueError):
        found = []
    if not found or len(dict(found)) < len(found) or not all(name for name, _ in found):
        raise ValueError(
            "names, each once, with the channels that each keeps or the share of them, joined by "
            "'+', such as layer1.0.conv1=8+layer2.0.conv1=50%"
        )
    return tuple(found)


def _split(text: str) -> list[tuple[str, str]]:
    parts = (part.rpartition("=") for part in text.split("+"))
    return [(name, kept) for name, _, kept in parts]


def _is_count(kept: Any) -> bool:
    return isinstance(kept, int) or (isinstance(kept, str) and kept.strip().isdecimal())
