"""Fake quantisation: float32 rounded to what 8-bit integers can say, gradients straight through."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""What is computed in integers on the device."""
_MOMENTUM = 0.01
"""Share of the newest batch in a moving range, as in torch's own observers."""
_LOW, _HIGH = "fake_low", "fake_high"
"""Buffers of a layer that hold its input's range."""
_LEAST_SCALE = 1e-12
"""Where all values are 0, and nothing can be divided by their range."""


class FakeWeight(nn.Module):
    """Rounds a weight to 255 steps per output channel, symmetric about 0."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Map float32 `[out, ...]` to the same shape; zeros stay zeros."""
        largest = weight.detach().reshape(len(weight), -1).abs().amax(1)
        scale = (largest / 127).clamp_min(_LEAST_SCALE)
        zero = torch.zeros(len(weight), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


class FakeInput:
    """A forward pre-hook that rounds a layer's input to 256 steps of a moving range.

    The range is an exponential average of each training batch's smallest and largest value, and
    always holds 0 (Jacob et al., 2018, section 3.1). It lies in buffers of the layer, so that
    checkpoints keep it and copies have their own.

    Args:
        layer: What it is for; it gets the buffers.
    """

    def __init__(self, layer: nn.Module) -> None:
        for name, nothing in ((_LOW, math.inf), (_HIGH, -math.inf)):
            layer.register_buffer(name, torch.tensor(nothing), persistent=False)
        self._handle = layer.register_forward_pre_hook(_rounded)
        self._layer = layer

    def remove(self) -> None:
        """Take the hook and the buffers off."""
        self._handle.remove()
        for name in (_LOW, _HIGH):
            delattr(self._layer, name)


def _rounded(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return a layer's inputs, the first one rounded; None for no change."""
    if not inputs or not inputs[0].is_floating_point():
        return None
    first, *rest = inputs
    low, high = _range(layer, first.detach())
    scale = ((high - low) / 255).clamp_min(_LEAST_SCALE)
    zero = (-low / scale).round().clamp(0, 255).to(torch.int32)
    return (torch.fake_quantize_per_tensor_affine(first, scale, zero, 0, 255), *rest)


def _range(layer: nn.Module, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a layer's range; a training batch moves it, and the first batch sets it."""
    low, high = layer.get_buffer(_LOW), layer.get_buffer(_HIGH)
    least, largest = values.amin().clamp_max(0), values.amax().clamp_min(0)
    if low > high:
        low.copy_(least)
        high.copy_(largest)
    elif layer.training:
        low.lerp_(least, _MOMENTUM)
        high.lerp_(largest, _MOMENTUM)
    return low, high


def quantisable(model: nn.Module) -> list[nn.Module]:
    """Return the layers that can be fake-quantised: those whose weight is a parameter of theirs.

    Another is computed anew at every call, as by `weight_norm`.
    """
    return [
        module
        for module in model.modules()
        if isinstance(module, LAYERS) and module._parameters.get("weight") is not None
    ]


@contextlib.contextmanager
def fake_quantised(model: nn.Module) -> Iterator[None]:
    """Fake-quantise weights and inputs of all convolution and linear layers for a while.

    Args:
        model: Changed in place; plain again afterwards, with the weights that were trained.
    """
    layers = quantisable(model)
    hooks = [FakeInput(layer) for layer in layers]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", FakeWeight())
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            # Not the rounded weights: rounding them in the file gives the same integers.
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
