"""What a study is: fixed at its start, checked at every resumption."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.atomic import write_atomic
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness_results.store import StudyFolder

FILE = "study.json"
_CAUSES = {
    "model_sha256": " The initial weights are part of a study: seed before building the network "
    "(`torch.manual_seed(0)`).",
    "objective": " What a loss or metric refers to is part of it: a global that it changes itself "
    "makes it another one.",
    "scored": " These are the validation and test samples that are scored.",
    "sensitivity": " These are hashes of the table's rows: one that has gained or changed rows "
    "since is another one.",
    "space": " These are hashes of all that may be suggested: the groups, their widths, the "
    "residual blocks, what is tuned of the distillation, the importance criteria and the "
    "precisions, which may be others in another version of `harness`.",
    "precisions": " Give the same `--precision`; a study of a version that had none can't be gone "
    "on with: begin another one (`--study NAME`).",
}
"""What may have changed without being meant to, by the part of the identity."""


def check_identity(
    folder: StudyFolder, identity: Mapping[str, Any], setup: Mapping[str, Any], remeasure: bool
) -> bool:
    """Write a new study's identity, or hold a resumed one against what it was begun with.

    Args:
        folder: The study's folder.
        identity: What must never change: task, data, target, budget, statistic, seed, recipe,
            space.
        setup: What may change if everything is measured again: fingerprint and versions.
        remeasure: Whether the user allows that.

    Returns:
        Whether the setup changed, so that the study has to be measured again.

    Raises:
        ConfigError: If the study is another one, or its setup changed without `remeasure`.
    """
    path = folder.path / FILE
    wanted = json.loads(json.dumps({"identity": identity, "setup": setup}))
    if not path.exists():
        write_atomic(path, json.dumps(wanted, indent=1).encode() + b"\n")
        return False
    try:
        known = json.loads(path.read_bytes())
        begun, old_setup = known["identity"], known["setup"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigError(
            f"{path} is corrupt: {exc}. Start another study with `--study NAME`."
        ) from exc
    for key, value in wanted["identity"].items():
        if begun.get(key) != value:
            was, now = _differing(begun.get(key), value)
            raise ConfigError(
                f"Study {folder.study!r} was begun with {key} {_shown(was)}; received "
                f"{_shown(now)}.{_CAUSES.get(key, '')} Run it as it was begun, or give another "
                "`--study NAME`."
            )
    changed = sorted(k for k, v in wanted["setup"].items() if old_setup.get(k) != v)
    if known.get("remeasuring"):
        if not remeasure:
            raise ConfigError(
                f"Study {folder.study!r} was interrupted while it was measured again, so its "
                "latencies are of two setups. Add `--remeasure` to finish that."
            )
        return True
    if changed and not remeasure:
        was, now = ({k: s.get(k) for k in changed} for s in (old_setup, wanted["setup"]))
        raise ConfigError(
            f"Study {folder.study!r} was measured on another setup: {_shown(was)} then, "
            f"{_shown(now)} now, and latencies don't carry over. Add `--remeasure` to time its "
            "models again here, or give another `--study NAME`."
        )
    return bool(changed)


def begun_with(folder: StudyFolder) -> dict[str, Any]:
    """Return what a study was begun with; empty for a new one, and for a file to be refused."""
    try:
        found: dict[str, Any] = json.loads((folder.path / FILE).read_bytes())["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found


def mark_remeasuring(folder: StudyFolder) -> None:
    """Note in the study's file that its latencies are of two setups until `accept_setup`."""
    path = folder.path / FILE
    known = json.loads(path.read_bytes())
    write_atomic(path, json.dumps({**known, "remeasuring": True}, indent=1).encode() + b"\n")


def accept_setup(
    folder: StudyFolder, identity: Mapping[str, Any], setup: Mapping[str, Any]
) -> None:
    """Write the study's file anew, once everything has been measured on a new setup."""
    text = json.dumps({"identity": identity, "setup": setup}, indent=1)
    write_atomic(folder.path / FILE, text.encode() + b"\n")


def _differing(was: Any, now: Any) -> tuple[Any, Any]:
    """Return what differs: of two mappings, the entries that do."""
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return was, now
    keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    return {key: was.get(key) for key in keys}, {key: now.get(key) for key in keys}


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
