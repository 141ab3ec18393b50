"""The models that are timed: the embedded task's network, one about half as slow, a tiny one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import last_channels, prune
from harness.export import export_onnx
from harness.tasks import shipped_task

_SHARE, _GRANULE = 0.65, 16
"""Channels that the half-slow network keeps, to the nearest multiple that the runtime fills."""


@dataclass(frozen=True, slots=True)
class Models:
    """ONNX files; the networks are untrained, which a latency doesn't depend on.

    Attributes:
        dense: About 0.6 ms on a server core.
        twin: A copy of `dense`.
        half: `dense` with fewer channels, about half as slow.
        small: About 20 us, so that a known number of inferences makes a unit of about 1 ms.
    """

    dense: Path
    twin: Path
    half: Path
    small: Path

    @classmethod
    def write(cls, folder: Path) -> Models:
        """Export all of them into `folder`; the same bytes every time."""
        folder.mkdir(parents=True, exist_ok=True)
        models = cls(*(folder / f"{name}.onnx" for name in ("dense", "twin", "half", "small")))
        torch.manual_seed(0)
        task = shipped_task("digits")
        network, example = task.model(), task.example_input(1)
        export_onnx(network, example, models.dense)
        shutil.copyfile(models.dense, models.twin)
        graph = pruning_graph(network, example)
        gone = last_channels(graph, {g.name: _kept(g.width) for g in graph.groups})
        export_onnx(prune(network, graph, example, gone), example, models.half)
        small = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip
        export_onnx(small, torch.zeros(1, 3, 16, 16), models.small)
        return models


def _kept(width: int) -> int:
    return _GRANULE * round(width * _SHARE / _GRANULE)
