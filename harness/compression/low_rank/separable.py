"""One convolution or linear layer as two thinner ones, by a truncated singular value decomposition.

A layer's weights as a matrix are U S V^T; the first r singular values give the best approximation
of rank r in the sense of least squares (Eckart & Young, 1936), and with it two layers: V^T first, U
after it, each with the square root of S. Two matrices of a k x k convolution are known:

- `channel`: [out, in * k * k]; a k x k convolution to r channels, then 1x1: Denton et al. (2014),
  "Exploiting linear structure within convolutional networks", Zhang et al. (2016), "Accelerating
  very deep convolutional networks for classification and detection".
- `spatial`: [out * k, in * k]; k x 1 to r channels, then 1 x k: Jaderberg et al. (2014), "Speeding
  up convolutional neural networks with low rank expansions".

A linear layer, and a convolution along one dimension, have only the first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SCHEMES = ("channel", "spatial")
KINDS = (nn.Conv2d, nn.Conv1d, nn.Linear)
"""Layers that can be separated; a subclass may compute something else, so none counts."""
Separable = nn.Conv2d | nn.Conv1d | nn.Linear


def matrix_of(layer: Separable, scheme: str) -> torch.Tensor:
    """Return a layer's weights as a matrix, float64 `[second layer's, first layer's]`.

    Args:
        layer: Of `KINDS`.
        scheme: One of `SCHEMES`.
    """
    weight = layer.weight.detach().double()
    if _is_spatial(layer, scheme):
        outs, ins, height, width = weight.shape
        return weight.permute(0, 3, 1, 2).reshape(outs * width, ins * height)
    return weight.reshape(weight.shape[0], -1)


def separated(layer: Separable, rank: int, scheme: str) -> nn.Sequential:
    """Return two layers that compute what one does, up to the rank.

    Args:
        layer: Of `KINDS`, with zeros for padding; left as it is.
        rank: From 1 to that of the matrix, at which the two are exact.
        scheme: One of `SCHEMES`.
    """
    left, sizes, right = torch.linalg.svd(matrix_of(layer, scheme), full_matrices=False)
    root = sizes[:rank].sqrt()
    pair: Any = any_pair(layer, rank, scheme)
    first, second = root[:, None] * right[:rank], left[:, :rank] * root
    if _is_spatial(layer, scheme):
        outs, width = layer.weight.shape[0], layer.weight.shape[3]
        second = second.view(outs, width, rank).permute(0, 2, 1)
    with torch.no_grad():
        for one, values in zip(pair, (first, second), strict=True):
            one.weight.copy_(values.reshape(one.weight.shape))
        if layer.bias is not None:
            pair[1].bias.copy_(layer.bias)
    found: nn.Sequential = pair
    return found


def any_pair(layer: Separable, rank: int, scheme: str) -> nn.Sequential:
    """Return two layers of the structure that `separated` gives, with any weights.

    Args:
        layer: Of `KINDS`; left as it is.
        rank: From 1.
        scheme: One of `SCHEMES`.
    """
    with torch.random.fork_rng(devices=[]):  # new layers draw their weights
        torch.manual_seed(0)
        pair = nn.Sequential(*_thinner(layer, rank, scheme))
    for one in pair:
        one.weight.requires_grad_(layer.weight.requires_grad)
        if one.bias is not None and layer.bias is not None:
            one.bias.requires_grad_(layer.bias.requires_grad)
    return pair.train(layer.training)


def _is_spatial(layer: Separable, scheme: str) -> bool:
    return scheme == "spatial" and isinstance(layer, nn.Conv2d)


def _thinner(layer: Any, rank: int, scheme: str) -> tuple[nn.Module, nn.Module]:
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        first = nn.Linear(layer.in_features, rank, bias=False)
        return first, nn.Linear(rank, layer.out_features, bias=bias)
    kind, dims = type(layer), range(len(layer.kernel_size))
    along = dims[:1] if _is_spatial(layer, scheme) else dims
    rest = dims[len(along) :]
    return (
        kind(layer.in_channels, rank, bias=False, **_geometry(layer, along)),
        kind(rank, layer.out_channels, bias=bias, **_geometry(layer, rest)),
    )


def _geometry(layer: Any, along: range) -> dict[str, Any]:
    """Return a convolution's sizes along some dimensions; it does nothing along the others."""

    def part(values: tuple[int, ...], otherwise: int) -> tuple[int, ...]:
        return tuple(one if dim in along else otherwise for dim, one in enumerate(values))

    # "same" and "valid" pad nothing where the kernel is 1.
    padding = layer.padding if isinstance(layer.padding, str) else part(layer.padding, 0)
    return {
        "kernel_size": part(layer.kernel_size, 1), "stride": part(layer.stride, 1),
        "padding": padding, "dilation": part(layer.dilation, 1),
    }  # fmt: skip
