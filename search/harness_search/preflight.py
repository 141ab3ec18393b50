"""Before a search: what can be pruned, what a user should know, what records say of the task."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.importance import inapplicable_criteria
from harness.errors import ConfigError, TaskError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from harness.compression.pruning.dependency.graph import PruningGraph
    from harness.tasks.base import Task

_SHOWN = 3
"""Groups left whole that are named one by one."""


def prunable_graph(network: nn.Module, task: Task) -> PruningGraph:
    """Return the network's prunable groups.

    Raises:
        ConfigError: If it has none, or can't be run.
    """
    try:
        return pruning_graph(network, task.example_input(1))
    except TaskError as exc:  # bad input, found in time
        raise ConfigError(
            f"{exc} A search needs a convolution or a linear layer whose outputs are not the "
            "network's own, and that no recurrent layer or the like reads."
        ) from exc


def check_results_apart(results: Path, task: Task) -> None:
    """Check that what is written won't be read as samples by the next run.

    Raises:
        ConfigError: If the results folder lies in a folder of images.
    """
    for folder in task.data.folders:
        if results.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"The results folder must lie outside of the image folder {folder}, or the next "
                f"run would take pictures of results for samples. Received: {results.resolve()}. "
                "Choose another with `--results DIR`."
            )


def notes(task: Task, graph: PruningGraph, network: nn.Module) -> tuple[str, ...]:
    """Return what a user should know of model and data before the search."""
    whole = [f"{one.name} is left whole: {one.reason}" for one in graph.unprunable]
    if len(whole) > _SHOWN:
        whole[_SHOWN:] = [f"{len(whole) - _SHOWN} more groups are left whole"]
    return (*task.notes, *whole, *inapplicable_criteria(network, graph))


def task_facts(task: Task) -> dict[str, Any]:
    """Return what a record says of the task."""
    data, example = task.data, task.example_input(1)
    scale = data.validation.scale
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        "name": task.name, "metric": task.objective.metric.name, "data_sha256": data.sha256,
        "model_sha256": task.model_sha256(),
        "splits": {"origin": data.origin, **{name: len(one) for name, one in splits.items()}},
        "inputs": {
            "shape": list(example.shape[1:]), "dtype": str(example.dtype).removeprefix("torch."),
            "scale": None if scale is None else asdict(scale),
        },
        "columns": [asdict(column) for column in data.columns], "classes": _classes(task),
        "targets": list(data.target_names), "notes": list(task.notes),
        "source": dict(task.source),
    }  # fmt: skip


def _classes(task: Task) -> list[str]:
    """Return the classes' names, their numbers where they have none; empty without classes."""
    if not task.objective.classifies:
        return []
    return list(task.data.classes) or [str(i) for i in range(task.data.outputs or 0)]
