"""Networks whose weights are no parameters of their own are refused with the remedy."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest
from torch import nn
from torch.nn.utils import parametrizations, prune

from harness.errors import ConfigError
from harness.models.check_module import check_module

if TYPE_CHECKING:
    from collections.abc import Callable


def masked(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", 0.5)


COMPUTED: dict[str, tuple[Callable[[nn.Module], nn.Module], tuple[str, ...]]] = {
    "weight norm": (nn.utils.weight_norm, ("remove_weight_norm", "parametrizations.weight_norm")),
    "spectral norm": (
        nn.utils.spectral_norm, ("remove_spectral_norm", "parametrizations.spectral_norm"),
    ),
    "masks": (masked, ("prune.remove(layer, name)",)),
}  # fmt: skip


def wrapped(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two of them announce that they are deprecated
        return nn.Sequential(nn.Linear(4, 6), nn.Sequential(wrap(nn.Linear(6, 3))))


@pytest.mark.parametrize("name", COMPUTED)
def test_a_weight_that_a_hook_computes_is_refused(name: str) -> None:
    wrap, remedies = COMPUTED[name]
    with pytest.raises(ConfigError) as caught:
        check_module(wrapped(wrap), "it")
    for part in ("it: '1.0' has a weight", *remedies):
        assert part in str(caught.value)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_the_remedy_is_accepted(wrap: Callable[[nn.Module], nn.Module]) -> None:
    network = wrapped(wrap)
    assert check_module(network, "it") is network
