"""The core type of models: a network with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn


class Final(Protocol):
    """What an exported file computes on top of a network's output."""

    def __call__(self, output: torch.Tensor, /) -> torch.Tensor:
        """Map what the network returns to what the file returns."""

    def undo(self, output: NDArray[np.floating[Any]], /) -> NDArray[np.floating[Any]]:
        """Map it back, up to what no loss depends on."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A dense network, ready to be trained or pruned.

    Attributes:
        module: The network, in evaluation mode.
        name: Short, for a study's name: letters, digits and any of `_.+-`.
        spec: As given, so that it can be built again; empty for one given as an object.
        pretrained: Whether it came with trained weights, so that it is taken as it is.
        notes: What a user should know.
        input_name: Of the input in the exported file.
        output_names: Of the outputs in the exported file; empty for the exporter's own.
        nhwc: Whether it takes images `[N, H, W, C]`, TensorFlow's order.
        finals: By an output's number, what an exported file computes on top of it.
    """

    module: nn.Module
    name: str
    spec: str = ""
    pretrained: bool = False
    notes: tuple[str, ...] = ()
    input_name: str = "input"
    output_names: tuple[str, ...] = ()
    nhwc: bool = False
    finals: Mapping[int, Final] = field(default_factory=dict)
