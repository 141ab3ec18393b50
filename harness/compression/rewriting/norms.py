"""Batch norms of fixed statistics are folded into the layers beside them."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.compression.rewriting.folding import (
    LAYERS,
    NORMS,
    fold_after,
    fold_before,
    pads_with_zeros,
)
from harness.compression.rewriting.replacing import has_hooks, replace_module
from harness.compression.running import calls_of, difference, tensors_of
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.compression.running import Called

TOLERANCE = 1e-5
"""Of a folded network's outputs, relative to the largest; float32 rounds the new weights."""
_RANDOM_TOLERANCE = 1e-3
"""The same with random weights, of which many layers in a row make more of a rounding."""
Pair = tuple[str, str]
"""Names of a layer and a norm, in the order in which they run."""


def fold_norms(model: nn.Module, example: torch.Tensor) -> tuple[nn.Module, list[Pair]]:
    """Return a copy of a network with its batch norms folded, and which.

    A norm goes into the layer whose output it takes, or else into the layer that takes its own
    output and doesn't pad it with zeros; an identity takes its place. Both must run once, have no
    hooks and share no weights. Whether anything else reads what lies between them is judged by
    running the folded copy, also with random weights and statistics: a fresh norm hardly changes
    anything, so that a wrong fold would not show.

    Args:
        model: The network, in evaluation mode; left as it is.
        example: One sample, `[1, ...]`.
    """
    random = _randomised(model)
    checks = [
        (random, tensors_of(random, example), _RANDOM_TOLERANCE),
        (model, tensors_of(model, example), TOLERANCE),
    ]
    kept: list[Pair] = []

    def add(some: Sequence[Pair]) -> None:
        """Keep all of them where nothing is wrong, else one half after the other."""
        tried = [*kept, *some]
        if all(_same(one, tried, example, known, limit) for one, known, limit in checks):
            kept.extend(some)
        elif len(some) > 1:
            add(some[: len(some) // 2])
            add(some[len(some) // 2 :])

    candidates = _candidates(model, calls_of(model, example))
    if candidates:
        add(candidates)
    return refold(model, kept), kept


def refold(model: nn.Module, pairs: Sequence[Sequence[str]]) -> nn.Module:
    """Return a copy of a network with these norms folded, unchecked.

    Args:
        model: The network; left as it is.
        pairs: Names of a layer and a norm each, in the order in which they run.

    Raises:
        ConfigError: If a pair is no layer and norm of this network.
    """
    new = copy.deepcopy(model)
    for first, second in pairs:
        try:
            one, other = new.get_submodule(first), new.get_submodule(second)
        except AttributeError:
            one = other = nn.Identity()
        if type(one) in LAYERS and _foldable(other):
            fold_after(one, other)
        elif _foldable(one) and type(other) in LAYERS and not pads_with_zeros(other):
            fold_before(one, other)
        else:
            raise ConfigError(
                "Expected the names of a layer and a batch norm with statistics of its own, as "
                f"fold_norms finds them in this network. Received: {first!r}, {second!r}."
            )
        norm = second if type(one) in LAYERS else first
        replace_module(new, norm, nn.Identity().train(new.training))
    return new


def _foldable(norm: Any) -> bool:
    return type(norm) in NORMS and getattr(norm, "running_mean", None) is not None


def _candidates(model: nn.Module, calls: dict[str, list[Called]]) -> list[Pair]:
    """Return the pairs of which one takes the very tensor that the other returns."""
    once = {name: called[0] for name, called in calls.items() if len(called) == 1}
    alone = [name for name in once if _stands_alone(model, name)]
    layers = [name for name in alone if type(model.get_submodule(name)) in LAYERS]
    norms = [name for name in alone if _foldable(model.get_submodule(name))]
    makers = {id(once[name].output): name for name in alone}
    found: list[Pair] = []
    for norm in norms:
        layer = makers.get(_given(once[norm]))
        if layer in layers and _along_channels(model.get_submodule(layer), once[norm]):
            found.append((layer, norm))
    folded = {norm for _, norm in found}
    for layer in layers:
        norm = makers.get(_given(once[layer]), "")
        free = norm in norms and norm not in folded
        module = model.get_submodule(layer)
        if free and _along_channels(module, once[norm]) and not pads_with_zeros(module):
            found.append((norm, layer))
    return found


def _given(called: Called) -> int:
    return id(called.args[0]) if called.args else 0


def _stands_alone(model: nn.Module, name: str) -> bool:
    """Return whether a module has no hooks, and weights that no other module has."""
    holders = Counter(id(tensor) for _, tensor in _held(model))
    module = model.get_submodule(name)
    return not has_hooks(module) and all(holders[id(tensor)] == 1 for _, tensor in _held(module))


def _held(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )


def _along_channels(layer: nn.Module, norm: Called) -> bool:
    """Return whether a norm's channels, dimension 1, are what a layer makes or takes."""
    return not isinstance(layer, nn.Linear) or norm.args[0].dim() == 2


def _randomised(model: nn.Module) -> nn.Module:
    """Return a copy with random weights, and norms that change what they are given."""
    new = copy.deepcopy(model)
    rng = torch.Generator().manual_seed(0)

    def drawn(tensor: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(tensor.shape, generator=rng)

    for tensor in new.parameters():
        if not tensor.is_floating_point():
            continue
        bound = (6 / max(1, tensor[0].numel())) ** 0.5 if tensor.dim() > 1 else 0.0
        # Vectors and numbers too: a gate that starts at zero would hide what it lets through.
        low, high = (-bound, bound) if bound else (0.5, 1.5)
        tensor.data = drawn(tensor, low, high).to(tensor.dtype)
    norm: Any
    for norm in new.modules():
        if _foldable(norm):
            norm.running_mean.copy_(drawn(norm.running_mean, -1, 1))
            norm.running_var.copy_(drawn(norm.running_var, 0.5, 2))
    return new


def _same(
    model: nn.Module,
    pairs: Sequence[Pair],
    example: torch.Tensor,
    expected: Sequence[torch.Tensor],
    limit: float,
) -> bool:
    try:
        return difference(expected, tensors_of(refold(model, pairs), example)) <= limit
    except Exception:  # the network's own code raises what it likes: it needs the norm then
        return False
