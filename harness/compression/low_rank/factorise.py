"""Low rank: layers become two thinner ones each, of ranks that one threshold sets."""

from __future__ import annotations

import copy
import difflib
from collections import Counter
from typing import TYPE_CHECKING, Any

from harness.compression.low_rank.ends import end_layers
from harness.compression.low_rank.ranks import RankCurve, bisected
from harness.compression.low_rank.separable import KINDS, SCHEMES, any_pair, separated
from harness.compression.pruning.dependency.cutting import copied
from harness.compression.running import outputs_of
from harness.errors import ConfigError, TaskError
from harness.export import layer_macs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import torch
    from torch import nn

__all__ = ["SCHEMES", "choose_ranks", "factorised", "unfilled"]


def factorised(model: nn.Module, ranks: Mapping[str, int], scheme: str) -> nn.Module:
    """Return a copy of `model` in which layers are two each: an `nn.Sequential` by the same name.

    What follows a layer, such as a batch norm, follows the second of the two. At full rank, which
    is the smaller side of the layer's matrix, the copy computes the same up to rounding.

    Args:
        model: The network; left as it is.
        ranks: By layer, the channels (features) between the two.
        scheme: `"channel"` or `"spatial"`; see `separable`.

    Raises:
        ConfigError: If a layer can't be separated, or a rank is below 1 or above the full one.
    """
    return _in_pairs(copy.deepcopy(model), ranks, scheme, separated)


def unfilled(model: nn.Module, ranks: Mapping[str, int], scheme: str) -> nn.Module:
    """Return a network of the structure that `factorised` gives, with any values in its new layers.

    Args:
        model: The network; left as it is.
        ranks: As for `factorised`.
        scheme: As for `factorised`.

    Raises:
        ConfigError: As `factorised`.
    """
    return _in_pairs(copy.deepcopy(model), ranks, scheme, any_pair)


def choose_ranks(
    model: nn.Module,
    example: torch.Tensor,
    keep: float,
    scheme: str,
    *,
    granule: int = 1,
    layers: Collection[str] | None = None,
    whole: Collection[str] = (),
) -> dict[str, int]:
    """Return ranks by layer, so that the network keeps at most a share of its parameters.

    A rank r keeps the energy (s_1^2 + ... + s_r^2) / (s_1^2 + ... + s_n^2) of a layer, where s are
    its matrix's singular values: 1 less the squared relative error of the weights. Every layer has
    the smallest rank that keeps at least one threshold, the same for all; the threshold is the
    largest at which the parameters are within the share. A layer of which no such rank saves
    parameters stays whole.

    Args:
        model: The network; left as it is.
        example: One sample, `[1, ...]`.
        keep: The share of all parameters that stays, at most; above 0 and below 1.
        scheme: `"channel"` or `"spatial"`; see `separable`.
        granule: Ranks are multiples of it, where one saves parameters.
        layers: The only layers that may change; None for all but those at the network's ends.
        whole: Layers that stay whole in any case.

    Raises:
        ConfigError: If the share can't be reached, a layer can't be separated, or none is there.
        TaskError: If the network can't be run.
    """
    outputs_of(model, example, "The network")
    names = _named(model, example, layers) if layers is not None else _inner(model, example)
    layer = model.get_submodule
    curves = {n: RankCurve(layer(n), scheme, granule) for n in names if n not in whole}
    curves = {name: curve for name, curve in curves.items() if curve.steps}
    working = _working(model, example, list(curves), scheme)
    if not working:
        raise ConfigError(
            "Low rank has no layer to separate. It takes those of the kinds "
            f"{', '.join(kind.__name__ for kind in KINDS)} of which a lower rank saves parameters, "
            "but for the first and the last unless `layers` names them. Use 'prune', or "
            "leave the step out."
        )
    total = sum(parameter.numel() for parameter in model.parameters())
    return bisected({name: curves[name] for name in working}, total, keep)


def _named(model: nn.Module, example: torch.Tensor, layers: Collection[str]) -> list[str]:
    ran = layer_macs(model, example)
    for name in layers:
        why = _why_whole(model, name)
        if why is not None or name not in ran:
            raise _refused(model, name, why or "it isn't run as a layer")
    return [name for name in ran if name in layers]


def _inner(model: nn.Module, example: torch.Tensor) -> list[str]:
    """Return the layers that can be separated and aren't at the network's ends."""
    ends = end_layers(model, example)
    ran = layer_macs(model, example)
    return [name for name in ran if name not in ends and _why_whole(model, name) is None]


def _why_whole(model: nn.Module, name: str) -> str | None:
    """Return why a layer can't be separated into two; None if it can."""
    modules = dict(model.named_modules(remove_duplicate=False))
    layer: Any = modules.get(name) if name else None
    if layer is None:
        return "there is none of that name"
    if type(layer) not in KINDS:
        kinds = ", ".join(kind.__name__ for kind in KINDS)
        return f"it is a {type(layer).__name__}, and only {kinds} can be"
    if getattr(layer, "groups", 1) > 1:
        return "its channels are in groups"
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return f"it pads by {layer.padding_mode!r}, not with zeros"
    weight = layer._parameters.get("weight")
    if weight is None or layer._forward_hooks or layer._forward_pre_hooks:
        return "its weights are computed, or hooks hang on it"
    names = Counter(id(tensor) for _, tensor in model.named_parameters(remove_duplicate=False))
    if any(names[id(tensor)] > 1 for tensor in layer.parameters()):
        return "its weights are also used elsewhere"
    return None


def _refused(model: nn.Module, name: str, why: str) -> ConfigError:
    known = [n for n, _ in model.named_modules() if n and _why_whole(model, n) is None]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near and near[0] != name else ""
    expected = f" Expected one of: {', '.join(known)}." if known else ""
    return ConfigError(f"Layer {name!r} can't be separated into two: {why}.{expected}{hint}")


def _in_pairs(
    model: nn.Module,
    ranks: Mapping[str, int],
    scheme: str,
    make: Callable[[Any, int, str], nn.Module],
) -> nn.Module:
    """Replace layers in place."""
    for name, rank in ranks.items():
        if (why := _why_whole(model, name)) is not None:
            raise _refused(model, name, why)
        layer: Any = model.get_submodule(name)
        full = RankCurve(layer, scheme).full
        if not 1 <= rank <= full:
            raise ConfigError(
                f"Layer {name!r} must have a rank from 1 to {full} by the scheme {scheme!r}. "
                f"Received: {rank}."
            )
        path, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(path), attribute, make(layer, rank, scheme))
    return model


def _working(
    model: nn.Module, example: torch.Tensor, names: Sequence[str], scheme: str
) -> list[str]:
    """Return the layers that can be two without harm: not where the network reads their weights."""
    shapes = [one.shape for one in outputs_of(model, example, "The network")]
    found: list[str] = []

    def right(chosen: Sequence[str]) -> bool:
        try:
            trial = _in_pairs(copied(model), dict.fromkeys(chosen, 1), scheme, any_pair)
            outputs = outputs_of(trial, example, "The network of low rank")
            ran = layer_macs(trial, example)
        except (ConfigError, TaskError):
            return False
        same = [one.shape for one in outputs] == shapes
        return same and all(f"{name}.0" in ran and f"{name}.1" in ran for name in chosen)

    def add(some: Sequence[str]) -> None:
        if right([*found, *some]):
            found.extend(some)
        elif len(some) > 1:
            middle = len(some) // 2
            add(some[:middle])
            add(some[middle:])

    add(names)
    return found
