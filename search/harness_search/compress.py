"""`harness compress`: a pipeline of steps on a trained network, measured before and after."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.atomic import write_atomic
from harness.errors import ConfigError, TaskError
from harness.models.saving import save_weights
from harness.training import torch_kept
from harness_backends.registry import open_backend
from harness_results.compression import CompressionFolder
from harness_results.compression_picture import draw_compression
from harness_results.compression_table import markdown
from harness_results.files import disk_errors, locked
from harness_results.store import check_writable
from harness_results.winner import run_py
from harness_search.comparison import Comparison, timed_again
from harness_search.pipeline import check_order, foresee_steps, notes_on, run_steps
from harness_search.preflight import check_results_apart
from harness_search.settings import LONGEST_NAME
from harness_search.stopwatch import Stopwatch
from harness_search.teacher import train_or_load
from harness_search.tools import open_tools

if TYPE_CHECKING:
    from harness.compression.steps.base import Step
    from harness.target import Target
    from harness.tasks.base import Task
    from harness_results.compression_report import Report
    from harness_search.progress import Progress
    from harness_search.tools import Tools


@dataclass(frozen=True, slots=True)
class CompressSettings:
    """One compression.

    Attributes:
        target: What to time on.
        steps: In order; at least one.
        seed: Of everything random.
        run: Name; made from the rest where not given.
        results: The results folder.
        remeasure: Whether a finished compression is timed again.
    """

    target: Target
    steps: tuple[Step, ...]
    seed: int = 0
    run: str | None = None
    results: Path = Path("results")
    remeasure: bool = False

    def run_name(self, task: str) -> str:
        """Return `{task}-{target}-{steps}-{digest of their options}-s{seed}`, fit for a folder."""
        if self.run is not None:
            return self.run
        options = json.dumps([(step.name, step.options()) for step in self.steps])
        digest = hashlib.sha256(options.encode()).hexdigest()[:6]
        names = "+".join(step.name for step in self.steps)
        tail = f"-{digest}-s{self.seed}"
        head = re.sub(r"[^\w.+-]", "", f"{task}-{self.target.name}-{names}")
        return head[: LONGEST_NAME - len(tail)] + tail


@torch_kept()
def compress(
    settings: CompressSettings, task: Task, progress: Progress
) -> tuple[CompressionFolder, Report]:
    """Apply the steps and measure before and after, or go on where an earlier call stopped.

    A finished compression is read from its report, and its files are held against it; nothing is
    measured again unless that is asked for.

    Raises:
        HarnessError: See `harness.errors`; finished steps stay whole.
    """
    check_order(settings.steps)
    check_results_apart(settings.results, task)
    open_backend(settings.target)  # before anything is written: is there such a target here?
    tools = open_tools(settings.target, settings.seed, task, progress)
    for note in (*tools.task.notes, *notes_on(settings.steps)):
        progress.note(note)
    folder = CompressionFolder(settings.results, settings.run_name(task.name))
    begun = folder.is_begun()
    if not begun:
        foresee_steps(tools, settings.steps)
    check_writable(settings.results)
    spare = folder.create() or (begun and not folder.has_settled())
    busy = f"{folder.path} is being worked on by another process. Wait, or give another `--run`."
    with disk_errors(folder.path), locked(folder.lock, wait=False, busy=busy):
        folder.check_identity(_identity(tools, settings))
        folder.sweep()
        report = folder.read_report()
        if report is None:
            report = _run(tools, folder, settings, spare)
        else:
            report.check_files(folder.path)
            if settings.remeasure:
                report = timed_again(tools, folder, report)
            else:
                progress.note(
                    f"finished before, on {report.date_utc[:10]}; `--remeasure` times both files "
                    "anew"
                )
        _publish(folder, report)
    return folder, report


def _identity(tools: Tools, settings: CompressSettings) -> dict[str, Any]:
    task, facts = tools.task, tools.provenance["task"]
    return {
        "task": task.name, "data_sha256": facts["data_sha256"],
        "model_sha256": facts["model_sha256"], "objective": task.objective.description,
        "augmentation": repr(task.data.train.augmentation), "reduction": asdict(task.reduction),
        "recipe": asdict(task.recipe), "target": tools.target.options(), "seed": settings.seed,
        "steps": [{"name": step.name, **step.options()} for step in settings.steps],
        "torch": tools.provenance["versions"]["torch"],
        "fingerprint": tools.provenance["fingerprint"],
    }  # fmt: skip


def _run(
    tools: Tools, folder: CompressionFolder, settings: CompressSettings, spare: bool
) -> Report:
    """Do all the work; a spare folder goes where a step can't be done on this network."""
    own = folder.dense
    if tools.task.recipe.teacher_epochs:
        train_or_load(tools, own, Stopwatch())
    save_weights(tools.network, own)
    try:
        work, outcomes = run_steps(tools, folder, settings.steps)
    except (ConfigError, TaskError):
        if spare:
            folder.discard()
        raise
    tools.progress.phase("exporting before and after")
    tools.dense = tools.export(tools.network, folder.path / "before.onnx")
    after = tools.export(work.module, folder.path / "model.onnx", work.precision, work.simplified)
    save_weights(work.module, folder.path / "weights.safetensors")
    return Comparison(tools, folder, after).report(work, outcomes)


def _publish(folder: CompressionFolder, report: Report) -> None:
    """Write the report, and before it what is made from it alone: made again where it is gone."""
    texts = {"run.py": run_py(report.task), "table.md": markdown(report)}
    for name, text in texts.items():
        write_atomic(folder.path / name, text.encode())
    draw_compression(folder.path / "compression.png", report)
    write_atomic(folder.report, report.to_json())  # last: it says that all is there
