"""Weights that stay zero while the others are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn


class Zeros:
    """The zeros of some parameters, as they were when this was made.

    Args:
        model: The network.
        names: Of the parameters whose zeros stay.

    Raises:
        ConfigError: If the network has no parameter of such a name.
    """

    def __init__(self, model: nn.Module, names: Collection[str]) -> None:
        own = dict(model.named_parameters(remove_duplicate=False))
        unknown = sorted(set(names) - own.keys())
        if unknown:
            raise ConfigError(
                f"The zeros of {', '.join(unknown)} are to stay, and the network has no parameters "
                "of such names. Name them as `named_parameters()` does."
            )
        self._zeros = [(own[name], own[name].detach() == 0) for name in names]

    def clear_gradients(self) -> None:
        """Set the gradients of these zeros to zero: they don't count when gradients are clipped."""
        for parameter, zero in self._zeros:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(zero, 0)

    def restore(self) -> None:
        """Put the zeros back, whatever an optimizer has made of them."""
        with torch.no_grad():
            for parameter, zero in self._zeros:
                parameter.masked_fill_(zero, 0)
