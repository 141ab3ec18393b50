"""The network as it was and as it has become, held against each other."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from harness.candidate import OnnxModel
from harness.compression.quantisation.precision import FP32
from harness.compression.sparsity.masks import nonzeros
from harness.export import OPSET
from harness.measurement.compare import AS_FAST
from harness.measurement.flags import faults
from harness.measurement.plans import final_plan
from harness.provenance import now_utc
from harness_results.compression_report import SCHEMA, Report, hash_of
from harness_results.record import latency_figures
from harness_search.pipeline import count_parameters

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.quantisation.precision import Precision
    from harness.compression.steps.base import Work
    from harness.measurement.types import Measurement
    from harness_results.compression import CompressionFolder
    from harness_search.pipeline import Outcome
    from harness_search.tools import Tools

KEPT = ("before.onnx", "model.onnx", "dense.safetensors", "weights.safetensors")
"""Files that a report is about, and that can't be made from it."""


class Comparison:
    """The network as it was and as it has become, held against each other."""

    def __init__(self, tools: Tools, folder: CompressionFolder, after: OnnxModel) -> None:
        self.tools, self.folder, self.after = tools, folder, after

    def report(self, work: Work, outcomes: list[Outcome]) -> Report:
        """Time both files together, score both on the same samples, and return the report."""
        tools, made = self.tools, self.tools.provenance
        measured = _timed(tools, self.after)
        scores, change, parity = self._scored(work)
        before = self._side(tools.network, tools.dense, FP32, measured["dense"])
        after = self._side(work.module, self.after, work.precision, measured["after"])
        for name, side in (("before", before), ("after", after)):
            side |= {"scores": scores[name], "parity": parity[name]}
        return Report(
            schema=SCHEMA, run=self.folder.run, date_utc=now_utc(), task=dict(made["task"]),
            target=_target(tools), steps=[outcome.as_json() for outcome in outcomes],
            before=before, after=after, training=_training(tools),
            files={name: hash_of(self.folder.path / name) for name in KEPT}, change=change,
            flags=_flags(measured, before, after), test_reads=self.folder.test_reads(),
            seed=tools.root_seed, versions=dict(made["versions"]),
            environment=_environment(tools, measured), git=dict(made["git"]),
        )  # fmt: skip

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


def timed_again(tools: Tools, folder: CompressionFolder, known: Report) -> Report:
    """Return a report whose latencies were measured anew, on the files that it is about.

    All else stays: the files are the same, so the test split isn't read again.
    """
    tools.dense = _kept(folder, "before.onnx", known.before)
    measured = _timed(tools, _kept(folder, "model.onnx", known.after))
    before = {**known.before, "latency": latency_figures(measured["dense"])}
    after = {**known.after, "latency": latency_figures(measured["after"])}
    return replace(
        known, date_utc=now_utc(), target=_target(tools), before=before, after=after,
        flags=_flags(measured, before, after), versions=dict(tools.provenance["versions"]),
        environment=_environment(tools, measured), git=dict(tools.provenance["git"]),
    )  # fmt: skip


def _kept(folder: CompressionFolder, name: str, side: dict[str, Any]) -> OnnxModel:
    return OnnxModel(
        folder.path / name, side["sha256"], side["size_bytes"], OPSET, side["params"], side["macs"]
    )


def _timed(tools: Tools, after: OnnxModel) -> dict[str, Measurement]:
    """Time both files in fresh processes; once more where that was disturbed."""
    doing = tools.target.quantity.doing
    tools.progress.phase(f"{doing} both files together, before and after, in fresh processes")
    measured = tools.timed({"after": after}, AS_FAST, final_plan(tools.target))
    if any(faults(one.flags) for one in measured.values()):
        tools.progress.phase(f"{doing} both once more: the first time was disturbed")
        measured = tools.timed({"after": after}, AS_FAST, final_plan(tools.target))
    return measured


def _flags(measured: dict[str, Measurement], *sides: dict[str, Any]) -> list[str]:
    flags = {*measured["after"].flags, *measured["dense"].flags}
    if not all(side["parity"]["passed"] for side in sides):
        flags.add("parity_failed")
    return sorted(flags)


def _target(tools: Tools) -> dict[str, Any]:
    return {**tools.target.options(), "backend_version": tools.facts["runtime_version"]}


def _environment(tools: Tools, measured: dict[str, Measurement]) -> dict[str, Any]:
    return {
        "fingerprint": tools.provenance["fingerprint"], "machine": dict(tools.facts["machine"]),
        **measured["after"].environment,
    }  # fmt: skip


def _training(tools: Tools) -> dict[str, Any]:
    task = tools.task
    return {
        "recipe": asdict(task.recipe), "reduction": asdict(task.reduction),
        "augmentation": repr(task.data.train.augmentation),
    }  # fmt: skip
