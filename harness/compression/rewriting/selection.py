"""Zero-padded selections of pixels, found by what a function does, and the convolution of each.

The shortcut without weights of He et al. (2016), "Deep residual learning" ("option A"), takes every
s-th pixel and pads the channels with zeros. That is a 1x1 convolution of stride s whose weights
are 0 and 1: float32 multiplies by them and adds zeros without any rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIZES = (1.0, 1e-3, 1e3)
"""Of random inputs: a function that clips or has a threshold shows at one of them."""
_IMPULSES = 16


@dataclass(frozen=True, slots=True)
class Selection:
    """What maps float `[N, C, H, W]` to every s-th pixel of some channels and zeros for others.

    Attributes:
        inputs: C.
        channels: Per output channel the input channel that it copies; None for zeros.
        stride: s.
    """

    inputs: int
    channels: tuple[int | None, ...]
    stride: int

    def convolution(self) -> nn.Conv2d:
        """Return the 1x1 convolution that computes exactly this of finite inputs."""
        outputs = len(self.channels)
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and overwritten
            layer = nn.Conv2d(self.inputs, outputs, 1, self.stride, bias=False)
        weight = torch.zeros(outputs, self.inputs, 1, 1)
        for to, origin in enumerate(self.channels):
            if origin is not None:
                weight[to, origin] = 1.0
        layer.weight = nn.Parameter(weight)
        return layer


def find_selection(function: Callable[[Any], Any], shape: torch.Size) -> Selection | None:
    """Return the padded selection that a function computes; None if it computes anything else.

    It must have more output channels than input channels, one of them zeros. Random inputs of
    several sizes, zeros and unit impulses must all give exactly what the convolution gives.

    Args:
        function: From a tensor of that shape to whatever it returns.
        shape: `[N, C, H, W]`.
    """
    rng = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            found = _read(torch.randn(shape, generator=rng), function)
            if found is None:
                return None
            layer = found.convolution()
            same = all(torch.equal(function(x.clone()), layer(x)) for x in _probes(shape, rng))
    except Exception:  # the network's own code raises what it likes: no selection then
        return None
    return found if same else None


def _read(x: torch.Tensor, function: Callable[[Any], Any]) -> Selection | None:
    """Return the selection that would explain one random input `[N, C, H, W]`, by a pixel each."""
    out = function(x.clone())
    if not _widens(x, out):
        return None
    stride = _stride(x.shape, out.shape)
    if stride is None:
        return None
    # Random values are all different, so that a value tells which channel it comes from.
    same = out[0, :, 0, 0, None] == x[0, None, :, 0, 0]
    channels = tuple(int(row.int().argmax()) if row.any() else None for row in same)
    return Selection(x.shape[1], channels, stride) if None in channels else None


def _widens(x: torch.Tensor, out: Any) -> bool:
    return (
        isinstance(out, torch.Tensor)
        and out.dim() == 4
        and out.dtype == x.dtype == torch.float32
        and out.shape[1] > x.shape[1]
    )


def _stride(given: torch.Size, received: torch.Size) -> int | None:
    for stride in range(1, max(given[2:]) + 1):
        if tuple(received[2:]) == tuple(-(-size // stride) for size in given[2:]):
            return stride
    return None


def _probes(shape: torch.Size, rng: torch.Generator) -> Iterator[torch.Tensor]:
    for size in _SIZES:
        yield size * torch.randn(shape, generator=rng)
    yield torch.zeros(shape)
    yield torch.ones(shape)
    for _ in range(_IMPULSES):
        x = torch.zeros(shape)
        x.view(-1)[int(torch.randint(x.numel(), (), generator=rng))] = 1.0
        yield x
