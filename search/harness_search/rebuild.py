"""The network of a finished compression in torch again: its steps' structure, its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from harness.compression.steps import step_class
from harness.compression.steps.base import Context, Work
from harness.errors import ConfigError, HarnessError
from harness.tasks import shipped_task
from harness.tasks.spec import build_task, spec_of_source
from harness_results.compression_report import read_report
from harness_search.tools import derived_seed

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from harness.tasks.base import Task
    from harness_results.compression_report import Report


def rebuild(folder: Path, task: Task | None = None) -> nn.Module:
    """Return a compression's network, float32, in evaluation mode.

    It gives what was trained: where the file ends in a softmax of the user's own file, or returns
    values in a unit, the network doesn't. Zeros of `sparsify` are in its weights.

    Args:
        folder: The compression's folder, finished.
        task: The task, where it was given as Python objects; None to make it from the report.

    Raises:
        ConfigError: If the compression isn't finished, its files were changed, or its task is
            another one or can't be made again.
    """
    path = folder / "report.json"
    if not path.exists():
        raise ConfigError(
            f"{folder} holds no finished compression: there is no report.json. Give the folder "
            "that `harness compress` names at its end, or let it finish."
        )
    report = read_report(path)
    report.check_files(folder)
    task = _task(report) if task is None else task
    if task.data.sha256 != report.task["data_sha256"]:
        raise ConfigError(
            f"The data of task {report.task['name']!r} are not those of {folder}: their hash "
            "differs. Restore the files as they were."
        )
    try:
        return _rebuilt(report, task, folder)
    except (OSError, SafetensorError, RuntimeError, HarnessError) as exc:
        raise ConfigError(
            f"The network of {folder} can't be rebuilt: {exc}. Restore the files that the dense "
            "network is made from as they were, and what its steps name."
        ) from exc


def _rebuilt(report: Report, task: Task, folder: Path) -> nn.Module:
    dense = task.model()
    dense.load_state_dict(load_file(str(folder / "dense.safetensors")))
    work = Work(dense.eval())
    for index, told in enumerate(report.steps):
        step = step_class(told["name"])(**told["options"])
        seed = derived_seed(report.seed, "step", index)
        work = step.rebuild(work, told["decision"], Context(task, dense, seed))
    work.module.load_state_dict(load_file(str(folder / "weights.safetensors")))
    return work.module.eval()


def _task(report: Report) -> Task:
    """Return the task of a report, made again from what it was made from."""
    source: dict[str, Any] = report.task["source"]
    if not source:
        raise ConfigError(
            f"The task of {report.run!r} was given as Python objects, so it can't be made again "
            "from here. Call `harness.rebuild` with the same model and data."
        )
    return shipped_task(source["task"]) if "task" in source else build_task(spec_of_source(source))
