"""Everything that a candidate passes through, set up once per session of a study."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.compression.pruning.importance import channel_scores, scoring_batches
from harness.compression.quantisation.precision import WEIGHT_BYTES
from harness_search.bases import make_base
from harness_search.tools import Tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from harness.compression.pruning.dependency.graph import PruningGraph
    from harness_results.store import StudyFolder
    from harness_search.bases import Base
    from harness_search.latency_model import LatencyModel
    from harness_search.settings import Settings
    from harness_search.space import SearchSpace


@dataclass(kw_only=True)
class Workbench(Tools):
    """The tools and the workpieces of one session.

    Attributes:
        settings: What the user asked for.
        folder: Where everything is written.
        graph: The dense network's prunable groups.
        space: What may be suggested.
        spaces: The same by budget, for those in reach: without precisions that can't meet it.
        started: Monotonic time at which the session began.
        spent_s: Seconds that earlier sessions of the study took.
        notes: What a user should know of model and data.
        latency_models: By precision, fitted from the floors on.
        dense_figures: The dense model's figures by statistic, seconds or instructions.
        probe_s: Where instructions are counted, wall seconds that a model's share of a probe takes.
        floor_shares: By precision, the floor's figure as a share of the dense model's.
        floor_bytes: By precision, the size of the floor's file.
        dense_parity: The dense network against its file, as in a record.
        dense_validation: The dense export's score on the validation split.
        bases: Networks that channels are pruned from, by the blocks that they lack.
        order: The space's blocks in the order in which they are left out; empty until
            `leaving_order` was asked.
    """

    settings: Settings
    folder: StudyFolder
    graph: PruningGraph
    space: SearchSpace
    started: float
    notes: tuple[str, ...]
    spent_s: float = 0.0
    spaces: dict[str, SearchSpace] = field(default_factory=dict)
    latency_models: dict[str, LatencyModel] = field(default_factory=dict)
    dense_figures: dict[str, float] = field(default_factory=dict)
    probe_s: float = 0.0
    floor_shares: dict[str, float] = field(default_factory=dict)
    floor_bytes: dict[str, int] = field(default_factory=dict)
    dense_validation: dict[str, Any] = field(default_factory=dict)
    dense_parity: dict[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    bases: dict[tuple[str, ...], Base] = field(default_factory=dict)
    _scores: dict[tuple[str, tuple[str, ...]], Mapping[str, torch.Tensor]] = field(
        default_factory=dict
    )

    def base(self, blocks: Sequence[str] = ()) -> Base:
        """Return the dense network without some blocks of the space; found once.

        Raises:
            TaskError: If its channels can't be traced.
        """
        key = tuple(name for name in self.space.blocks if name in blocks)
        if key not in self.bases:
            with self.lock.shared():
                example = self.example[:1]
                made = make_base(self.network, self.graph, example, self.space, key)
            self.bases[key] = made
        return self.bases[key]

    def predict(self, base: Base, widths: Mapping[str, int], precision: str) -> float:
        """Return a network's figure by the latency model, as a share of the dense one's.

        Infinite where its file should be larger than `--max-size`.
        """
        if not self._predicts_fit(base, widths, precision):
            return math.inf
        return self.latency_models[precision].predict(base.graph.macs(widths))

    def _predicts_fit(self, base: Base, widths: Mapping[str, int], precision: str) -> bool:
        """Whether a network's file should be within `--max-size`, by its weights.

        They come on top of the floor's file; what channels take beside them is left out.
        """
        limit = self.settings.max_size_bytes
        if limit is None:
            return True
        smallest = self.base(self.space.blocks)
        more = base.graph.params(widths) - smallest.graph.params(smallest.space.floor())
        return self.floor_bytes[precision] + WEIGHT_BYTES[precision] * more <= limit

    def elapsed_s(self) -> float:
        """Return wall seconds of the study so far, all sessions together."""
        return self.spent_s + time.monotonic() - self.started

    def scores(self, criterion: str, blocks: Sequence[str] = ()) -> Mapping[str, torch.Tensor]:
        """Return the trained dense network's channel scores by a criterion, computed once.

        Args:
            criterion: Which says what is important.
            blocks: Residual blocks that are left out before channels are scored.
        """
        base = self.base(blocks)
        key = criterion, base.blocks
        if key not in self._scores:
            batches = scoring_batches(self.task.data.train)
            with self.lock.shared():
                loss, network = self.task.objective.anew().loss, base.network(self.network)
                self._scores[key] = channel_scores(network, base.graph, batches, loss, criterion)
        return self._scores[key]

    def model_path(self, name: str) -> Path:
        """Return where a model of this study lies, without its suffix."""
        return self.folder.models / name
