"""Everything that a candidate passes through, set up once per session of a study."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from harness.compression.importance import channel_scores
from harness.export import INPUT, check_parity
from harness.measurement.rounds import PROBE, measure
from harness.measurement.types import Subject
from harness.training import predict
from harness_search.inference import file_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from harness.budget import Budget
    from harness.candidate import OnnxModel
    from harness.compression.graph import PruningGraph
    from harness.measurement.hostlock import HostLock
    from harness.measurement.rounds import Plan
    from harness.measurement.types import LatencySample, Measurement
    from harness.tasks.base import Score, Split, Task
    from harness_backends.base import Backend
    from harness_results.store import StudyFolder
    from harness_search.latency_model import LatencyModel
    from harness_search.progress import Progress
    from harness_search.settings import Settings
    from harness_search.space import SearchSpace


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
        latency_model: Fitted from the floor on.
        dense_s: The dense model's latency by statistic, seconds.
        floor_share: The floor's latency as a share of that.
        dense_parity: The dense network against its file, as in a record.
        dense_validation: The dense export's score on the validation split.
        teacher_logits: Its logits on the training split, float32 `[N, classes]`.
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
    dense: OnnxModel = field(init=False)
    latency_model: LatencyModel | None = None
    dense_s: dict[str, float] = field(default_factory=dict)
    floor_share: float = 0.0
    dense_validation: dict[str, Any] = field(default_factory=dict)
    teacher_logits: torch.Tensor | None = None
    dense_parity: dict[str, Any] = field(default_factory=dict)
    _timings: int = 0
    _scores: dict[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)

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
            with self.lock.shared():
                self._scores[criterion] = channel_scores(
                    self.network, self.graph, self.example[:1], self.task.train(), criterion
                )
        return self._scores[criterion]

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
        return {INPUT: self.example.numpy()}

    def outputs(self, model: OnnxModel, split: Split) -> NDArray[np.floating[Any]]:
        """Return an exported file's logits `[N, classes]` on a split, through the backend."""
        with self.lock.shared():
            return file_outputs(self.backend, model, split.inputs.numpy())

    def parity(
        self, network: nn.Module, got: NDArray[np.floating[Any]], split: Split
    ) -> dict[str, Any]:
        """Hold a file's outputs against its network's; return it as in a record."""
        with self.lock.shared():
            expected = predict(network, split.inputs.numpy())
        found = check_parity(expected, got)
        return {**asdict(found), "passed": found.passed}

    def score(self, outputs: NDArray[np.floating[Any]], split: Split) -> Score:
        """Score outputs that a file gave on a split."""
        return self.task.score(lambda _: outputs, split)

    def teacher_outputs(self) -> torch.Tensor:
        """Return the dense network's logits on the training split, computed once."""
        if self.teacher_logits is None:
            with self.lock.shared():
                logits = predict(self.network, self.task.train().inputs.numpy())
            self.teacher_logits = torch.from_numpy(logits)
        return self.teacher_logits

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
