"""What exported files compute on top of a network's outputs: off in training, on in exports.

Training wants logits where a user's file ends in a softmax, and values of mean 0 and deviation 1
where a fresh network learns to predict values in some unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from harness.models.network import Final
    from harness.tasks.objective import Arrays


class Finished(nn.Module):
    """A network with what its file computes on top of its outputs.

    Args:
        network: Returns logits.
        finals: By an output's number, what is computed on top.
    """

    def __init__(self, network: nn.Module, finals: Mapping[int, Final]) -> None:
        super().__init__()
        self.network = network
        self._finals = dict(finals)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Map a batch to what the file returns for it."""
        found = self.network(x)
        parts = (found,) if isinstance(found, torch.Tensor) else tuple(found)
        finished = tuple(
            self._finals[i](part) if i in self._finals else part for i, part in enumerate(parts)
        )
        return finished[0] if len(finished) == 1 else finished


def finished(network: nn.Module, finals: Mapping[int, Final]) -> nn.Module:
    """Return a network as it is exported; itself where nothing comes on top."""
    return Finished(network, finals).eval() if finals else network


def unfinished(outputs: Arrays, finals: Mapping[int, Final]) -> Arrays:
    """Return a file's outputs as the network gives them, up to what no loss depends on."""
    return tuple(finals[i].undo(part) if i in finals else part for i, part in enumerate(outputs))


@dataclass(frozen=True, slots=True)
class InUnits:
    """Predictions in the targets' own unit, from those of mean 0 and deviation 1.

    Attributes:
        mean, std: Of the training targets, per column; std above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        """Map `[N, k]`, or `[N]` where there is one column."""
        return output * torch.tensor(self.std) + torch.tensor(self.mean)

    def undo(self, output: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Map back."""
        found: NDArray[np.floating[Any]] = (output - np.array(self.mean)) / np.array(self.std)
        return found
