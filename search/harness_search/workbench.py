"""Everything that a candidate passes through, set up once per session of a study."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from harness.compression.importance import channel_scores
from harness.data.reduce import reduce_split
from harness.export import check_parity, export_onnx
from harness.measurement.rounds import PROBE, measure
from harness.measurement.types import Subject
from harness.models.finals import finished
from harness.training import predict, predict_tensors
from harness_search.inference import file_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from harness.budget import Budget
    from harness.candidate import OnnxModel
    from harness.compression.dependency.graph import PruningGraph
    from harness.data.split import Split
    from harness.measurement.hostlock import HostLock
    from harness.measurement.rounds import Plan
    from harness.measurement.types import LatencySample, Measurement
    from harness.tasks.base import Task
    from harness.tasks.objective import Arrays
    from harness.tasks.score import Score
    from harness.training import Views
    from harness_backends.base import Backend
    from harness_results.store import StudyFolder
    from harness_search.latency_model import LatencyModel
    from harness_search.progress import Progress
    from harness_search.settings import Settings
    from harness_search.space import SearchSpace


_GRADIENT_SAMPLES, _GRADIENT_BATCH = 512, 128
"""Training samples that criteria of gradients see, and how many at a time."""


@dataclass
class Workbench:
    """The tools and the workpieces of one session.

    Attributes:
        settings: What the user asked for.
        task: Model and data.
        backend: Times and infers on the target.
        folder: Where everything is written.
        lock: Keeps timing undisturbed.
        progress: Told what is going on.
        network: The dense network; trained once the teacher is there.
        graph: Its prunable groups.
        space: What may be suggested.
        dense: The dense network's export: the reference of every measurement.
        facts: What the worker said of itself and its machine.
        provenance: Versions, fingerprint and commit, for records.
        started: Monotonic time at which the session began.
        spent_s: Seconds that earlier sessions of the study took.
        notes: What a user should know of model and data.
        latency_model: Fitted from the floor on.
        dense_s: The dense model's latency by statistic, seconds.
        floor_share: The floor's latency as a share of that.
        dense_parity: The dense network against its file, as in a record.
        dense_validation: The dense export's score on the validation split.
    """

    settings: Settings
    task: Task
    backend: Backend
    folder: StudyFolder
    lock: HostLock
    progress: Progress
    network: nn.Module
    graph: PruningGraph
    space: SearchSpace
    facts: Mapping[str, Any]
    provenance: Mapping[str, Any]
    started: float
    spent_s: float
    notes: tuple[str, ...]
    dense: OnnxModel = field(init=False)
    latency_model: LatencyModel | None = None
    dense_s: dict[str, float] = field(default_factory=dict)
    floor_share: float = 0.0
    dense_validation: dict[str, Any] = field(default_factory=dict)
    dense_parity: dict[str, Any] = field(default_factory=dict)
    _timings: int = 0
    _scores: dict[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    _teacher: dict[tuple[int, int], Views] = field(default_factory=dict)
    _train: Split | None = None

    @property
    def example(self) -> torch.Tensor:
        """One batch of real samples, as the target runs it."""
        return self.task.example_input(self.settings.target.batch)

    def predicts_fit(self, widths: Mapping[str, int]) -> bool:
        """Whether a network's file should be within `--max-size`, by its float32 weights."""
        limit = self.settings.max_size_bytes
        if limit is None:
            return True
        removed = self.graph.params(self.space.dense) - self.graph.params(widths)
        return self.dense.size_bytes - 4 * removed <= limit

    def elapsed_s(self) -> float:
        """Return wall seconds of the study so far, all sessions together."""
        return self.spent_s + time.monotonic() - self.started

    def scores(self, criterion: str) -> Mapping[str, torch.Tensor]:
        """Return the trained dense network's channel scores by a criterion, computed once."""
        if criterion not in self._scores:
            split = self.task.data.train
            # At random: folders of images come class by class.
            order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
            rows = torch.split(order[:_GRADIENT_SAMPLES], _GRADIENT_BATCH)
            batches = ((split.batch(part), split.targets_of(part)) for part in rows)
            with self.lock.shared():
                loss = self.task.objective.anew().loss
                self._scores[criterion] = channel_scores(
                    self.network, self.graph, batches, loss, criterion
                )
        return self._scores[criterion]

    def train_split(self) -> Split:
        """Return what candidates are trained on: all training samples, or the part asked for."""
        if self._train is None:
            reduction, split = self.task.reduction, self.task.data.train
            with self.lock.shared():
                self._train = reduce_split(
                    split, reduction.fraction, reduction.method,
                    features=lambda: self._features(split), seed=self.seed("reduction"),
                )  # fmt: skip
        return self._train

    def _features(self, split: Split) -> torch.Tensor:
        """Return what samples are told apart by: the trained dense network's outputs."""
        outputs = predict_tensors(self.network, split.chunks())
        return torch.cat([part.reshape(len(part), -1) for part in outputs], dim=1)

    def export(self, network: nn.Module, path: Path) -> OnnxModel:
        """Write a network as ONNX at the target's batch, with the interface that its user knows."""
        source, whole = self.task.network, finished(network, self.task.network.finals)
        return export_onnx(whole, self.example, path, source.input_name, source.output_names)

    def timed(
        self, models: Mapping[str, OnnxModel], budget: Budget, plan: Plan = PROBE
    ) -> dict[str, Measurement]:
        """Time models under a budget, interleaved with the dense one, which is `"dense"`."""
        inputs = self.inputs()
        subjects = {
            name: Subject(model, inputs, budget)
            for name, model in {"dense": self.dense, **models}.items()
        }
        self._timings += 1  # every measurement has an order of its own
        seed = self.seed("order", self._timings)
        return measure(self.backend.open, subjects, "dense", plan, self.lock.exclusive, seed)

    def inputs(self) -> dict[str, NDArray[Any]]:
        """Return what a model is fed while it is timed."""
        return {self.task.network.input_name: self.example.numpy()}

    def outputs(self, model: OnnxModel, split: Split) -> Arrays:
        """Return all outputs, each `[N, ...]`, of an exported file on a split."""
        with self.lock.shared():
            return file_outputs(self.backend, model, split, self.task.network.input_name)

    def parity(self, network: nn.Module, got: Arrays, split: Split) -> dict[str, Any]:
        """Hold a file's outputs against its network's; return it as in a record."""
        with self.lock.shared():
            expected = predict(finished(network, self.task.network.finals), split.chunks())
        found = check_parity(expected, got, self.task.objective.classifies)
        return {**asdict(found), "passed": found.passed}

    def score(self, outputs: Arrays, split: Split) -> Score:
        """Score outputs that a file gave on a split."""
        return self.task.score(outputs, split)

    def teacher(self, split: Split) -> Callable[[int], Views]:
        """Return what gives the dense network's outputs on a view of a split, computed once.

        Without augmentation all views are one.
        """

        def outputs(view: int) -> Views:
            key = (len(split), view if split.augmentation is not None else 0)
            if key not in self._teacher:
                with self.lock.shared():
                    self._teacher[key] = predict_tensors(self.network, split.chunks(view=view))
            return self._teacher[key]

        return outputs

    def model_path(self, name: str) -> Path:
        """Return where a model of this study lies, without its suffix."""
        return self.folder.models / name

    def seed(self, *parts: Any) -> int:
        """Return a seed that depends on the study's seed and `parts` alone."""
        return derived_seed(self.settings.seed, *parts)


def derived_seed(*parts: Any) -> int:
    """Return 31 bits of SHA-256 over `parts`: the same in every session."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def samples_of(phase: str, measured: Mapping[str, Measurement], name: str) -> dict[str, Any]:
    """Return the raw samples of a model and of the reference beside it, named for the store."""
    found: dict[str, tuple[LatencySample, ...]] = {f"{phase}.candidate": measured[name].samples}
    if name != "dense":
        found[f"{phase}.reference"] = measured["dense"].samples
    return found
