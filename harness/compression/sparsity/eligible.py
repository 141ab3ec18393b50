"""Which weights may become sparse: those of convolution and linear layers.

Biases, norms and embeddings stay whole. The first and the last layer take part like any other, as
in Han et al. (2015) and in NVIDIA's own tool for 2:4 (Mishra et al., 2021), unless they are
excluded; a first convolution of three channels drops out of N:M by itself.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from harness.compression.pruning.dependency.tracing import LAYERS
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

_HOLDERS = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
"""Modules with matrices of their own that belong to no layer."""
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A weight of which single values may be set to zero.

    Attributes:
        layer: Module name of the layer that has it; the first of several.
        name: Its name, as `named_parameters` has it.
        values: The parameter `[out, in / groups, ...]`, or `[in, out / groups, ...]` where the
            convolution is transposed.
        turned: The groups of a transposed convolution; None for any other layer.
    """

    layer: str
    name: str
    values: nn.Parameter
    turned: int | None

    def rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the weight's shape with its reduction dimension last.

        Along it lie the input channels of one group, over which the layer sums, at one place of
        the kernel.
        """
        if self.turned is not None:
            tensor = tensor.reshape(self.turned, -1, *tensor.shape[1:])
        return tensor.movedim(1, -1)

    def from_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the inverse of `rows`."""
        tensor = rows.movedim(-1, 1)
        return tensor if self.turned is None else tensor.flatten(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Eligible:
    """The weights that may become sparse, and the layers that stay dense.

    Attributes:
        weights: In the network's order; one that several layers share is there once.
        left: Why a layer stays dense, by module name; those that were excluded are not listed.
    """

    weights: tuple[Weight, ...]
    left: Mapping[str, str]


def eligible(model: nn.Module, exclude: Sequence[str] = (), block: int = 1) -> Eligible:
    """Return the weights of convolution and linear layers that may become sparse.

    Args:
        model: The network.
        exclude: Names of layers that stay dense, or of modules whose layers do; so does a weight
            that one of them shares with another layer.
        block: Consecutive weights along the reduction dimension that a pattern looks at together;
            1 for none.

    Raises:
        ConfigError: If an excluded name has no such layer, or no weight may become sparse.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    _check_excluded(exclude, [n for n, m in modules.items() if isinstance(m, (*LAYERS, *_HOLDERS))])
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    embedded = {id(m.weight) for m in modules.values() if isinstance(m, _EMBEDDINGS)}
    found, left = [], _without_own_weight(modules)
    for key, users in _users(modules).items():
        if any(_among(name, exclude) for name in users):
            continue
        layers = [modules[name] for name in users]
        weight = Weight(users[0], names[key], layers[0]._parameters["weight"], _turned(layers[0]))
        reason = _misfit(weight, layers, block)
        if key in embedded:
            reason = "its weight is an embedding too"
        if reason is None:
            found.append(weight)
        else:
            left |= dict.fromkeys(users, reason)
    left = {name: reason for name, reason in left.items() if not _among(name, exclude)}
    if not found:
        raise ConfigError(_nothing(left, exclude))
    return Eligible(tuple(found), left)


def _check_excluded(exclude: Sequence[str], layers: Sequence[str]) -> None:
    for name in exclude:
        if not any(_among(layer, [name]) for layer in layers):
            near = difflib.get_close_matches(name, layers, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                "Expected names of convolution or linear layers to exclude, or of modules that "
                f"have some. Received: {name!r}.{hint} The layers: {', '.join(layers)}."
            )


def _among(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _without_own_weight(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    left = {}
    for name, module in modules.items():
        if isinstance(module, _HOLDERS):
            left[name] = "its own matrices are those of no convolution or linear layer"
        elif isinstance(module, LAYERS) and module._parameters.get("weight") is None:
            left[name] = "its weight is no parameter, but computed from others or fixed"
    return left


def _users(modules: Mapping[str, nn.Module]) -> dict[int, list[str]]:
    """Return the layers that have each weight, by the parameter's identity."""
    found: dict[int, list[str]] = defaultdict(list)
    for name, module in modules.items():
        if isinstance(module, LAYERS) and module._parameters.get("weight") is not None:
            found[id(module.weight)].append(name)
    return found


def _turned(layer: nn.Module) -> int | None:
    return layer.groups if getattr(layer, "transposed", False) else None  # type: ignore[return-value]


def _misfit(weight: Weight, users: Sequence[nn.Module], block: int) -> str | None:
    """Return why a weight can't become sparse; None where it can."""
    if not weight.values.is_floating_point():
        return f"its weight is {weight.values.dtype}"
    if block == 1:
        return None
    if len({_turned(layer) for layer in users}) > 1:
        return "layers that sum over different dimensions share its weight"
    size = weight.rows(weight.values).shape[-1]
    if size == 1:
        return "it has one input channel per group"
    return f"its {size} input channels are no multiple of {block}" if size % block else None


def _nothing(left: Mapping[str, str], exclude: Sequence[str]) -> str:
    reasons = [f"{name!r}: {reason}" for name, reason in list(left.items())[:3]]
    reasons += [f"excluded: {', '.join(exclude)}"] if exclude else []
    return (
        "Expected a network with weights of convolution or linear layers that may become sparse. "
        f"Received none ({'; '.join(reasons) or 'it has no such layer'}). Leave this step out, or "
        "exclude less."
    )
