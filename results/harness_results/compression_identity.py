"""How the compression that a folder was begun with differs from another one, in words."""

from __future__ import annotations

import json
from itertools import zip_longest
from typing import Any

from harness.compression.steps import step_class
from harness.errors import ConfigError


def differing(key: str, was: Any, now: Any) -> tuple[str, str, str]:
    """Return two values of an identity as text, and a sentence on what differs, where that helps.

    Args:
        key: Which part of the identity: steps are shown as a user writes them.
        was: What the folder was begun with, as JSON has it.
        now: What was asked for.
    """
    if key == "steps":
        texts = [_as_written(steps) for steps in (was, now)]
        if None not in texts:
            return " ".join(texts[0] or ()), " ".join(texts[1] or ()), _first(was, now)
    if isinstance(was, dict) and isinstance(now, dict):  # the keys alone in which they differ
        keys = [one for one in {**was, **now} if was.get(one) != now.get(one)]
        was, now = ({one: side[one] for one in keys if one in side} for side in (was, now))
    return json.dumps(was, ensure_ascii=False), json.dumps(now, ensure_ascii=False), ""


def _as_written(steps: Any) -> list[str] | None:
    """Return steps as `--step` takes them; None if one is none of this version's."""
    try:
        return [f"--step {step_class(step['name'])(**_options(step)).text()}" for step in steps]
    except (ConfigError, TypeError, KeyError):
        return None


def _options(step: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key != "name"}


def _first(was: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    """Return in what the first step that differs does."""
    for place, (one, other) in enumerate(zip_longest(was, now), start=1):
        if one == other:
            continue
        if one is None or other is None:
            return f" Step {place} is {'new' if one is None else 'missing'}."
        if one["name"] != other["name"]:
            return f" Step {place} was {one['name']} and is {other['name']}."
        changed = [
            f"{key} was {_shown(one.get(key))} and is {_shown(other.get(key))}"
            for key in {**one, **other}
            if one.get(key) != other.get(key)
        ]
        return f" In step {place}, {', '.join(changed)}."
    return ""


def _shown(value: Any) -> str:
    return "not given" if value is None else json.dumps(value, ensure_ascii=False)
