"""The arithmetic of folding: a norm of fixed statistics is a factor and a shift per channel.

Jacob et al. (2018), "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", section 3.2, with the norm before the layer as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
)  # fmt: skip
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def factor_and_shift(norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a batch norm in evaluation mode multiplies by and adds, float64 `[C]`.

    The factor is gamma / sqrt(variance + epsilon), the shift beta - mean * factor (Ioffe & Szegedy,
    2015, "Batch normalization").
    """
    factor = (norm.running_var.detach().double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.detach().double()
    shift = -norm.running_mean.detach().double() * factor
    return factor, shift if norm.bias is None else shift + norm.bias.detach().double()


def fold_after(layer: Any, norm: nn.Module) -> None:
    """Fold a norm into the layer before it, in place; the layer gets a bias."""
    factor, shift = factor_and_shift(norm)
    weight = layer.weight.detach().double()
    if getattr(layer, "transposed", False):  # [in, out / groups, ...], group after group
        by_group = weight.unflatten(0, (layer.groups, -1))
        factors = factor.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
        new = (by_group * factors).flatten(0, 1)
    else:  # [out, in / groups, ...]
        new = weight * factor.view(-1, *[1] * (weight.dim() - 1))
    _set(layer, new, shift + _bias(layer) * factor)


def fold_before(norm: nn.Module, layer: Any) -> None:
    """Fold a norm into the layer after it, in place; the layer gets a bias.

    The layer must not pad with zeros: behind the norm a zero isn't what it was before.
    """
    factor, shift = factor_and_shift(norm)
    weight = layer.weight.detach().double()
    groups = getattr(layer, "groups", 1)
    shape = (groups, 1, -1, *[1] * (weight.dim() - 2))  # [out, in / groups, ...] by groups
    by_group = weight.unflatten(0, (groups, -1))
    added = (by_group * shift.view(shape)).flatten(2).sum(2).flatten()
    _set(layer, (by_group * factor.view(shape)).flatten(0, 1), _bias(layer) + added)


def pads_with_zeros(layer: Any) -> bool:
    """Return whether a layer adds zeros around its input; a linear layer doesn't."""
    if not hasattr(layer, "kernel_size"):
        return False
    if layer.transposed:
        return True  # outputs at the border get fewer products, as with zeros around
    if layer.padding_mode != "zeros" or layer.padding == "valid":
        return False
    if layer.padding == "same":
        return any(size > 1 for size in layer.kernel_size)
    return any(layer.padding)


def _bias(layer: Any) -> torch.Tensor | float:
    return 0.0 if layer.bias is None else layer.bias.detach().double()


def _set(layer: Any, weight: torch.Tensor, bias: torch.Tensor) -> None:
    kind, needs = layer.weight.dtype, layer.weight.requires_grad
    layer.weight = nn.Parameter(weight.to(kind), needs)
    layer.bias = nn.Parameter(bias.to(kind), needs)
