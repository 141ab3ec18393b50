"""The dense network's training: from the work's own folder, from the cache, or made now."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from harness.bfloat16 import bfloat16_is_faster
from harness.errors import ConfigError
from harness.folders import cache_folder
from harness.models.saving import save_weights
from harness.training import fit

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from harness_search.stopwatch import Stopwatch
    from harness_search.tools import Tools


def train_or_load(tools: Tools, own: Path, watch: Stopwatch) -> None:
    """Give the dense network its trained weights.

    Args:
        tools: Whose network it is.
        own: Where the work that is under way keeps them, so that it goes on with the very same.
        watch: Takes the time of a training.
    """
    cached = cached_teacher(tools)
    for path in (own, cached):
        state = _load(path)
        if state is not None:
            try:
                tools.network.load_state_dict(state)
            except RuntimeError as exc:
                raise ConfigError(
                    f"{path} doesn't hold the dense network's weights: {exc}. Restore it, or "
                    "delete it: they are then taken from the cache, or trained again."
                ) from exc
            tools.network.eval()
            if path == cached:
                tools.progress.note(f"teacher: trained weights taken from the cache, {cached.name}")
            return
    _train(tools, watch)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        save_weights(tools.network, cached)
    except OSError as exc:  # a cache is a convenience: the study keeps its own copy
        tools.progress.note(f"teacher: not cached in {cached.parent} ({exc.strerror})")


def _train(tools: Tools, watch: Stopwatch) -> None:
    recipe = tools.task.recipe
    tools.progress.phase("training the dense model (the teacher)")

    def on_batch(done: int, total: int) -> None:
        tools.lock.breathe()
        tools.progress.advance(done, total)

    with watch.phase("train"), tools.lock.shared():
        fit(
            tools.network, tools.task.data.train, tools.task.objective, recipe,
            epochs=recipe.teacher_epochs, lr=recipe.teacher_lr, seed=0, on_batch=on_batch,
        )  # fmt: skip


def cached_teacher(tools: Tools) -> Path:
    """Return where trained weights are cached: named by all that they depend on."""
    task, facts = tools.task, tools.provenance["task"]
    parts: tuple[Any, ...] = (
        facts["model_sha256"], facts["data_sha256"], task.recipe.teacher(),
        task.objective.description, repr(task.data.train.augmentation),
        bfloat16_is_faster() and task.objective.bfloat16, tools.provenance["versions"]["torch"],
    )  # fmt: skip
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    name = f"{task.name}-{digest[:16]}.safetensors"
    return cache_folder() / "teachers" / name


def _load(path: Path) -> dict[str, torch.Tensor] | None:
    try:
        return load_file(str(path))
    except (OSError, SafetensorError):
        return None  # absent, or cut short by a full disk: train again
