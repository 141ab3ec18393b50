"""`harness compress`: a pipeline of steps on a trained network, measured before and after."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.atomic import write_atomic
from harness.compression.quantisation.precision import FP32
from harness.compression.sparsity.masks import nonzeros
from harness.measurement.compare import AS_FAST
from harness.measurement.flags import is_blocked
from harness.measurement.rounds import FINAL
from harness.models.saving import save_weights
from harness.provenance import now_utc
from harness.training import torch_kept
from harness_backends.registry import open_backend
from harness_results.compression import SCHEMA, CompressionFolder, Report
from harness_results.compression_picture import draw_compression
from harness_results.compression_table import markdown
from harness_results.files import disk_errors, locked
from harness_results.record import latency_figures
from harness_results.store import check_writable
from harness_results.winner import run_py
from harness_search.pipeline import check_order, count_parameters, run_steps
from harness_search.preflight import check_results_apart
from harness_search.settings import LONGEST_NAME
from harness_search.stopwatch import Stopwatch
from harness_search.teacher import train_or_load
from harness_search.tools import open_tools

if TYPE_CHECKING:
    from torch import nn

    from harness.candidate import OnnxModel
    from harness.compression.quantisation.precision import Precision
    from harness.compression.steps.base import Step, Work
    from harness.measurement.types import Measurement
    from harness.target import Target
    from harness.tasks.base import Task
    from harness_search.pipeline import Outcome
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
    """

    target: Target
    steps: tuple[Step, ...]
    seed: int = 0
    run: str | None = None
    results: Path = Path("results")

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

    A finished compression is read from its report: nothing is measured again.

    Raises:
        HarnessError: See `harness.errors`; finished steps stay whole.
    """
    check_order(settings.steps)
    check_results_apart(settings.results, task)
    open_backend(settings.target)  # before anything is written: is there such a target here?
    tools = open_tools(settings.target, settings.seed, task, progress)
    folder = CompressionFolder(settings.results, settings.run_name(task.name))
    check_writable(settings.results)
    folder.create()
    busy = f"{folder.path} is being worked on by another process. Wait, or give another `--run`."
    with disk_errors(folder.path), locked(folder.lock, wait=False, busy=busy):
        folder.check_identity(_identity(tools, settings))
        report = folder.read_report()
        if report is None:
            report = _run(tools, folder, settings)
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


def _run(tools: Tools, folder: CompressionFolder, settings: CompressSettings) -> Report:
    own = folder.path / "dense.safetensors"
    if tools.task.recipe.teacher_epochs:
        train_or_load(tools, own, Stopwatch())
    save_weights(tools.network, own)
    work, outcomes = run_steps(tools, folder, settings.steps)
    tools.progress.phase("exporting before and after")
    tools.dense = tools.export(tools.network, folder.path / "before.onnx")
    after = tools.export(work.module, folder.path / "model.onnx", work.precision, work.simplified)
    report = _Comparison(tools, folder, after).report(work, outcomes)
    save_weights(work.module, folder.path / "weights.safetensors")
    (folder.path / "run.py").write_text(run_py(report.task))
    (folder.path / "table.md").write_text(markdown(report), encoding="utf-8")
    draw_compression(folder.path / "compression.png", report)
    write_atomic(folder.report, report.to_json())  # last: it says that all is there
    return report


class _Comparison:
    """The network as it was and as it has become, held against each other."""

    def __init__(self, tools: Tools, folder: CompressionFolder, after: OnnxModel) -> None:
        self.tools, self.folder, self.after = tools, folder, after

    def report(self, work: Work, outcomes: list[Outcome]) -> Report:
        """Time both files together, score both on the same samples, and return the report."""
        tools, made = self.tools, self.tools.provenance
        measured = self._timed()
        scores, change, parity = self._scored(work)
        before = self._side(tools.network, tools.dense, FP32, measured["dense"])
        after = self._side(work.module, self.after, work.precision, measured["after"])
        for name, side in (("before", before), ("after", after)):
            side |= {"scores": scores[name], "parity": parity[name]}
        flags = {*measured["after"].flags, *measured["dense"].flags}
        flags |= set() if all(one["passed"] for one in parity.values()) else {"parity_failed"}
        machine = dict(tools.facts["machine"])
        return Report(
            schema=SCHEMA, run=self.folder.run, date_utc=now_utc(), task=dict(made["task"]),
            target={**tools.target.options(), "backend_version": tools.facts["runtime_version"]},
            steps=[outcome.as_json() for outcome in outcomes], before=before, after=after,
            change=change, flags=sorted(flags), test_reads=self.folder.test_reads(),
            seed=tools.root_seed, versions=dict(made["versions"]),
            environment={"fingerprint": made["fingerprint"], "machine": machine,
                         **measured["after"].environment},
            git=dict(made["git"]),
        )  # fmt: skip

    def _timed(self) -> dict[str, Measurement]:
        """Time both in fresh processes; once more where that was disturbed."""
        self.tools.progress.phase("timing before and after together, in fresh processes")
        measured = self.tools.timed({"after": self.after}, AS_FAST, FINAL)
        if any(is_blocked(one.flags) for one in measured.values()):
            self.tools.progress.phase("timing both once more: the first time was disturbed")
            measured = self.tools.timed({"after": self.after}, AS_FAST, FINAL)
        return measured

    def _scored(self, work: Work) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return scores by side and split, changes by split, and each side's parity."""
        tools, data = self.tools, self.tools.task.data
        tools.progress.phase("scoring the exported files")
        scores: dict[str, Any] = {"before": {}, "after": {}}
        change, parity = {}, {}
        for name, split in (("validation", data.validation), ("test", data.test)):
            if name == "test":
                self.folder.count_test_read()
            got = {
                "before": tools.outputs(tools.dense, split),
                "after": tools.outputs(self.after, split),
            }
            for side, outputs in got.items():
                scores[side][name] = asdict(tools.score(outputs, split))
            found = tools.task.objective.change(got["before"], got["after"], split)
            change[name] = asdict(found)
            if name == "validation":
                parity["before"] = tools.parity(tools.network, got["before"], split)
                parity["after"] = tools.parity(work.module, got["after"], split, work.precision)
        return scores, change, parity

    def _side(
        self, module: nn.Module, model: OnnxModel, precision: Precision, measured: Measurement
    ) -> dict[str, Any]:
        return {
            "params": count_parameters(module), "nonzeros": nonzeros(module), "macs": model.macs,
            "size_bytes": model.size_bytes, "sha256": model.sha256, "precision": precision.name,
            "latency": latency_figures(measured),
        }  # fmt: skip
