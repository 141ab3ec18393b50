"""What a user brings: a network, its data, and what it is trained for and judged by."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from harness.export import onnx_bytes
from harness.models.finals import finished, unfinished

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from harness.data.split import Data, Split
    from harness.models.network import Network
    from harness.tasks.objective import Arrays, Objective
    from harness.tasks.recipe import Recipe
    from harness.tasks.score import Score


@dataclass(frozen=True, slots=True)
class Reduction:
    """Candidates are trained on a part of the training split.

    Attributes:
        fraction: Which part, above 0 and at most 1.
        method: `"random"`, `"k-center"` or `"herding"`.
    """

    fraction: float = 1.0
    method: str = "random"


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A network, its data, and what it is trained for and judged by.

    Attributes:
        name: Short; in the names of studies.
        network: The dense network, untrained or with the user's weights.
        data: Samples in three splits.
        objective: Loss, metric, distance to a teacher.
        recipe: How networks are trained.
        reduction: Which part of the training split candidates are trained on.
        epochs_on_all: Epochs of a candidate if it were trained on all samples, for the comparison
            with the part; None for the recipe's.
        source: What the task was made from, so that it can be made again; as JSON takes it. Empty
            where it was given as objects.
        description: One line for people.
        notes: What a user should know of network and data.
    """

    name: str
    network: Network
    data: Data
    objective: Objective
    recipe: Recipe
    reduction: Reduction = field(default_factory=Reduction)
    epochs_on_all: int | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    notes: tuple[str, ...] = ()

    def model(self) -> nn.Module:
        """Return a copy of the dense network; the same initial weights at every call."""
        return copy.deepcopy(self.network.module)

    def example_input(self, batch: int) -> torch.Tensor:
        """Return one batch of real validation samples `[batch, ...]`."""
        split = self.data.validation
        return split.batch(torch.arange(batch) % len(split))

    def score(self, outputs: Arrays, split: Split) -> Score:
        """Score an exported file's outputs `[N, ...]` on a split.

        Raises:
            TaskError: If they are no finite outputs of these samples.
        """
        trained = unfinished(outputs, self.network.finals)
        return self.objective.score(outputs, split, trained)

    def model_sha256(self) -> str:
        """Return a hash of the dense network: what it computes, and its initial weights.

        Its export tells what it computes: two networks of the same layers may run them in other
        orders, or with other functions between them.

        Raises:
            ExportError: If it can't be exported.
        """
        whole = finished(self.model(), self.network.finals)
        digest = hashlib.sha256(onnx_bytes(whole, self.example_input(1)))
        for name, tensor in self.network.module.state_dict().items():
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()
