from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from harness.compression.rewriting.selection import find_selection
from support.networks import halved

IMAGE = torch.Size((1, 3, 8, 8))


def zeros_after(x: torch.Tensor, count: int) -> torch.Tensor:
    return F.pad(x, (0, 0, 0, 0, 0, count))


SELECTIONS = {
    "both sides": (lambda x: halved(x, 2, 3), 2),
    "behind": (lambda x: halved(x, 0, 3), 2),
    "every third": (lambda x: zeros_after(x[..., ::3, ::3], 1), 3),
    "all pixels": (lambda x: zeros_after(x, 3), 1),
    "as a pool": (lambda x: zeros_after(F.avg_pool2d(x, 1, 2), 3), 2),
    "times zero": (lambda x: torch.cat([x[..., ::2, ::2], x[..., ::2, ::2].mul(0)], 1), 2),
    "other order": (lambda x: zeros_after(x.flip(1), 2), 1),
}


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 7, 5)])
@pytest.mark.parametrize("name", SELECTIONS)
def test_a_padded_selection_is_a_convolution(name: str, shape: tuple[int, ...]) -> None:
    function, stride = SELECTIONS[name]
    found = find_selection(function, torch.Size(shape))
    assert found is not None
    assert found.stride == stride
    x = 10 * torch.randn(shape)
    with torch.no_grad():
        assert torch.equal(found.convolution()(x), function(x))


OTHERS = {
    "average": lambda x: zeros_after(F.avg_pool2d(x, 2), 3),
    "largest": lambda x: zeros_after(F.max_pool2d(x, 2), 3),
    "odd pixels": lambda x: zeros_after(x[..., 1::2, 1::2], 3),
    "clipped": lambda x: zeros_after(x.clamp(-100, 100), 3),
    "no negative": lambda x: zeros_after(x.relu(), 3),
    "threshold": lambda x: zeros_after(F.hardshrink(x, 0.01), 3),
    "scaled": lambda x: zeros_after(2 * x, 3),
    "shifted": lambda x: zeros_after(x.roll(1, 3), 3),
    "doubled": lambda x: torch.cat([x, x], 1),
    "ones": lambda x: F.pad(x, (0, 0, 0, 0, 0, 3), value=1.0),
    "as wide": lambda x: x[..., ::2, ::2],
    "borders too": lambda x: F.pad(x, (1, 1, 1, 1, 0, 3)),
    "raises": lambda x: x[0, 99],
    "no tensor": lambda x: [x],
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_padded_selection(name: str) -> None:
    assert find_selection(OTHERS[name], IMAGE) is None
