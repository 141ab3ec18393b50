"""A candidate's life: fitted to the budget, timed, distilled, exported, scored, recorded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from harness.budget import Budget, Decision
from harness.candidate import Candidate, OnnxModel
from harness.compression.pruning.prune import choose_channels
from harness.compression.quantisation.precision import PROBE_CALIBRATION, Precision
from harness.compression.steps.kept import network_identity
from harness.errors import BackendError, ExportError, MeasurementError, TaskError
from harness.manner import find_manner
from harness.measurement.plans import probe_plan
from harness.models.saving import save_weights
from harness.provenance import now_utc
from harness.training import SoftTargets, fit
from harness_results.record import RunRecord, latency_figures, make_record
from harness_search.projection import Probe, fit_to_budget
from harness_search.recording import common_fields, environment, search_fields, share_of_dense
from harness_search.stopwatch import Stopwatch
from harness_search.tools import samples_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from harness.measurement.types import Measurement
    from harness_search.bases import Base
    from harness_search.ladder import Ladder, Widths
    from harness_search.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a trial is to try.

    Attributes:
        index: The trial's number in its study.
        role: `"uniform"`, `"global"`, `"sensitivity"`, `"depth"`, a precision's name, `"searched"`
            or `"longer"`.
        budget: What it has to meet.
        aim: Share of the dense latency to aim at, at most the budget's.
        base: What channels are pruned from: the dense network, or it without some blocks.
        ladder: The idea, at every size.
        params: Criterion, temperature, distillation weight and precision among them.
        suggestion: The sampler's parameters; None for a warm start.
        limit: Share of the dense latency from which on it can't win; None for the budget alone.
    """

    index: int
    role: str
    budget: Budget
    aim: float
    base: Base
    ladder: Ladder
    params: Mapping[str, Any]
    suggestion: Mapping[str, Any] | None
    limit: float | None = None


def run_trial(bench: Workbench, proposal: Proposal) -> RunRecord:
    """Try a proposal and return its record, already on disk.

    A candidate over its budget ends untrained; one that a runtime, the exporter or training fails
    on ends with the reason. Both are recorded.
    """
    life = _Life(bench, proposal)
    try:
        probe = life.fit_to_budget()
        if not probe.within:
            return life.record(*_beyond_limits(bench, probe, proposal.limit))
        return life.judge(life.distil(probe))
    except (BackendError, ExportError, MeasurementError, TaskError) as exc:
        return life.record("failed", f"{type(exc).__name__}: {exc}", None)


def run_longer(bench: Workbench, proposal: Proposal, source: RunRecord, epochs: int) -> RunRecord:
    """Train an earlier trial's network on and return the new trial's record, already on disk.

    Args:
        bench: The session.
        proposal: The same network.
        source: The trial whose weights are taken.
        epochs: How many more.
    """
    life = _Life(bench, proposal)
    try:
        record = life.judge(life.train_on(source, epochs))
    except (BackendError, ExportError, MeasurementError, TaskError) as exc:
        record = life.record("failed", f"{type(exc).__name__}: {exc}", None)
    checkpoint_of(bench, proposal.index).unlink(missing_ok=True)
    return record


def checkpoint_of(bench: Workbench, index: int) -> Path:
    """Return where a long training keeps its state."""
    return bench.model_path(f"trial-{index:04d}.ckpt")


class _Life:
    """The stations of one trial, and what they leave for its record."""

    def __init__(self, bench: Workbench, proposal: Proposal) -> None:
        self.bench, self.proposal, self.watch = bench, proposal, Stopwatch()
        self.name, self.precision = f"trial-{proposal.index:04d}", proposal.params["precision"]
        self.probes: list[Probe] = []
        self.base = proposal.base
        self.widths: Widths = dict(proposal.ladder[0])
        self.history: dict[str, list[int]] = {}
        self.model: OnnxModel | None = None
        self.weights: Path | None = None
        self.latency: dict[str, dict[str, Any]] = {}
        self.scores: dict[str, dict[str, Any]] = {}
        self.parity: dict[str, Any] | None = None
        self.training: dict[str, Any] | None = None
        self.environment: Mapping[str, Any] = {}
        self.samples: dict[str, Any] = {}

    def fit_to_budget(self) -> Probe:
        """Choose widths by the latency model and by timing, before any training."""
        bench, proposal = self.bench, self.proposal
        model, graph = bench.latency_models[self.precision], self.base.graph

        def measure(widths: Widths) -> Probe:
            probe = self._probe(widths)
            self.probes.append(probe)
            if probe.measured is not None:
                model.add(graph.macs(widths), probe.share)
            return probe

        def aim(known_within: bool) -> float:
            # Room for the probe's interval, and at first for the model's own error: once a network
            # within is known, one that turns out to be over costs no more than its timing.
            room = 0.0 if known_within else model.error()
            return proposal.aim * (1 - self._half_width() - room)

        def predict(widths: Widths) -> float:
            return bench.predict(self.base, widths, self.precision)

        chosen, _ = fit_to_budget(proposal.ladder, measure, predict, aim)
        self.widths, self.history, self.model = chosen.widths, chosen.history, chosen.model
        if chosen.measured is not None:
            self._keep("probe", chosen.measured)
        return chosen

    def distil(self, probe: Probe) -> nn.Module:
        """Train the pruned network from the dense teacher's soft targets."""
        bench, epochs = self.bench, self.bench.task.recipe.trial_epochs
        bench.progress.phase(f"trial {self.proposal.index}: distilling")
        student = self._pruned(probe.widths)
        with self.watch.phase("teacher_outputs"):
            teacher = bench.teacher(bench.train_split())
            if self.proposal.params["kd_weight"] > 0:
                for epoch in range(epochs):
                    teacher(epoch)
        self.training = self._train(student, epochs, None)
        return student

    def train_on(self, source: RunRecord, epochs: int) -> nn.Module:
        """Train an earlier trial's network for more epochs; what is interrupted goes on."""
        bench, name = self.bench, f"trial {self.proposal.index}"
        before = source.training
        assert before is not None  # it is complete
        bench.progress.phase(f"{name}: distilling the network of trial {source.index} on")
        self.widths, self.history = dict(self.proposal.ladder[0]), source.pruning or {}
        with self.watch.phase("prune"), bench.lock.shared():
            student = self.base.pruned(bench.network, bench.example[:1], self.history)
            path = bench.folder.path / source.model["weights"]
            try:
                student.load_state_dict(load_file(str(path)))
            except (OSError, SafetensorError, RuntimeError) as exc:
                raise TaskError(
                    f"The weights of trial {source.index} can't be read: {exc}"
                ) from exc
        found = self._train(student, epochs, checkpoint_of(bench, self.proposal.index))
        earlier = before.get("epochs_before", 0) + before["epochs"]
        self.training = {**found, "continues": source.index, "epochs_before": earlier}
        return student

    def _train(self, student: nn.Module, epochs: int, checkpoint: Path | None) -> dict[str, Any]:
        bench, params, recipe = self.bench, self.proposal.params, self.bench.task.recipe
        split, objective = bench.train_split(), bench.task.objective
        identity = "" if checkpoint is None else network_identity(bench.network)
        soft = SoftTargets(
            bench.teacher(split), params["temperature"] or 1.0, params["kd_weight"], identity
        )
        seed = bench.seed("train", self.proposal.index)
        with self.watch.phase("train"), bench.lock.shared():
            manner = find_manner(student, split, objective, recipe)
            fit(
                student, split, objective, recipe, epochs=epochs, lr=recipe.trial_lr, seed=seed,
                soft=soft, manner=manner, checkpoint=checkpoint, on_batch=self._on_batch,
            )  # fmt: skip
        full = len(bench.task.data.train)
        return {
            "epochs": epochs, "lr": recipe.trial_lr, "batch": recipe.batch,
            "optimizer": recipe.optimizer, "seed": seed, "bfloat16": manner.bfloat16,
            "samples": len(split), "of": full,
            "reduction": bench.task.reduction.method if len(split) < full else None,
        }  # fmt: skip

    def judge(self, student: nn.Module) -> RunRecord:
        """Export a trained network, score and time the file, and return the trial's record."""
        exported = self.export(student)
        self.check_and_score(student, exported)
        feasible = self.time_again(exported)
        return self.record("complete", None, feasible)

    def export(self, student: nn.Module) -> OnnxModel:
        """Write the trained network as ONNX and its weights as safetensors."""
        with self.watch.phase("export"), self.bench.lock.shared():
            path = self.bench.model_path(self.name)
            precision = Precision(self.precision)
            self.model = self.bench.export(student, path.with_suffix(".onnx"), precision)
            self.weights = save_weights(student, path.with_suffix(".safetensors"))
        return self.model

    def check_and_score(self, student: nn.Module, exported: OnnxModel) -> None:
        """Compare the file with the network, and score the file on the validation split."""
        bench, split = self.bench, self.bench.task.data.validation
        bench.progress.phase(f"trial {self.proposal.index}: scoring the exported file")
        with self.watch.phase("score"):
            got = bench.outputs(exported, split)
            self.parity = bench.parity(student, got, split, Precision(self.precision))
            self.scores["validation"] = asdict(bench.score(got, split))

    def time_again(self, exported: OnnxModel) -> bool:
        """Time the trained file; what ships is what is measured."""
        bench, budget = self.bench, self.proposal.budget
        doing = bench.target.quantity.doing
        bench.progress.phase(f"trial {self.proposal.index}: {doing} the trained network")
        with self.watch.phase("timing"):
            measured = bench.timed({"candidate": exported}, budget, probe_plan(bench.target))
        self.samples.update(samples_of("retimed", measured, "candidate"))
        self._keep("retimed", measured["candidate"])
        decision = budget.decide(measured["candidate"].stats)
        return decision is Decision.FEASIBLE and self._fits_size(exported)

    def record(self, status: str, reason: str | None, feasible: bool | None) -> RunRecord:
        """Write and return the trial's record."""
        bench, proposal = self.bench, self.proposal
        flags: list[str] = next(
            (self.latency[p]["flags"] for p in ("retimed", "probe") if p in self.latency), []
        )
        if self.parity is not None and not self.parity["passed"]:
            flags = sorted({*flags, "parity_failed"})
        candidate = Candidate(
            self.base.widths(self.widths, bench.space.dense), proposal.params["criterion"],
            proposal.params["temperature"], proposal.params["kd_weight"], self.precision,
            self.base.blocks,
        )  # fmt: skip
        timings = self.watch.report()
        record = make_record(
            now_utc(),
            **common_fields(bench, proposal.budget, candidate, self.model, self.weights),
            kind="trial", role=proposal.role, index=proposal.index, status=status, reason=reason,
            feasible=feasible, suggestion=proposal.suggestion and dict(proposal.suggestion),
            pruning=self.history, probes=[self._entry(probe) for probe in self.probes],
            latency=self.latency, scores=self.scores, parity=self.parity,
            training=self.training, flags=flags, environment=environment(bench, self.environment),
            timings_s=timings, search=search_fields(bench, proposal.index + 1),
        )  # fmt: skip
        bench.folder.write(record, self.samples)
        return record

    def _probe(self, widths: Widths) -> Probe:
        bench, budget = self.bench, self.proposal.budget
        doing = bench.target.quantity.doing
        bench.progress.phase(
            f"trial {self.proposal.index}: {doing} the untrained network, before any training"
        )
        smaller = self._pruned(widths)
        with self.watch.phase("export"), bench.lock.shared():
            precision = Precision(self.precision, PROBE_CALIBRATION)
            model = bench.export(smaller, bench.model_path("probe.onnx"), precision)
        if not self._fits_size(model):
            share = bench.latency_models[self.precision].predict(self.base.graph.macs(widths))
            return Probe(widths, self.history, model, None, share, within=False)
        with self.watch.phase("timing"):
            measured = bench.timed({"candidate": model}, budget, probe_plan(bench.target))
        stats = measured["candidate"].stats
        self.samples.update(samples_of(f"probe{len(self.probes)}", measured, "candidate"))
        share, limit = share_of_dense(measured, "candidate", budget), self.proposal.limit
        within = budget.decide(stats) is Decision.FEASIBLE and (limit is None or share < limit)
        return Probe(widths, self.history, model, measured["candidate"], share, within)

    def _pruned(self, widths: Widths) -> nn.Module:
        bench = self.bench
        with self.watch.phase("prune"):
            base = self.base
            scores = bench.scores(self.proposal.params["criterion"], base.blocks)
            self.widths, self.history = widths, choose_channels(base.graph, scores, widths)
            with bench.lock.shared():
                return base.pruned(bench.network, bench.example[:1], self.history)

    def _entry(self, probe: Probe) -> dict[str, Any]:
        widths = self.base.widths(probe.widths, self.bench.space.dense)
        return {"widths": widths, "share": probe.share, "within": probe.within,
                "timed": probe.measured is not None}  # fmt: skip

    def _fits_size(self, model: OnnxModel) -> bool:
        limit = self.bench.settings.max_size_bytes
        return limit is None or model.size_bytes <= limit

    def _half_width(self) -> float:
        measured = [p.measured for p in self.probes if p.measured is not None]
        if not measured:
            return 0.015  # what an idle machine reaches
        return measured[-1].stats.judged(self.proposal.budget).half_width

    def _keep(self, phase: str, measurement: Measurement) -> None:
        self.latency[phase] = latency_figures(measurement)
        self.environment = measurement.environment

    def _on_batch(self, done: int, total: int) -> None:
        self.bench.lock.breathe()
        self.bench.progress.advance(done, total)


def _beyond_limits(bench: Workbench, probe: Probe, limit: float | None) -> tuple[str, str, bool]:
    if probe.measured is None:
        allowed = bench.settings.max_size_bytes
        return "over_size", f"{probe.model.size_bytes} bytes, {allowed} allowed", False
    noun = bench.target.quantity.noun
    reason = f"{probe.share:.3f} of the dense {noun} before training"
    if limit is not None:
        reason += f"; the best within the loss takes {limit:.3f}"
    return "over_budget", reason, False
