"""Cut channels out of a network's parameters, or set them to zero."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from harness.compression.pruning.dependency.parts import Group

Place = tuple[str, int, int]
"""A parameter or buffer, a dimension, and groups of a grouped convolution."""
_UNSIZED = (nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def places(groups: Iterable[Group], history: Mapping[str, Sequence[int]]) -> dict[Place, list[int]]:
    """Return which entries of which dimensions go with the removed channels, ascending."""
    found: dict[Place, set[int]] = defaultdict(set)
    for group in groups:
        removed = history.get(group.name, ())
        for member in group.members if removed else ():
            key = (member.name, member.dim, member.groups)
            found[key].update(member.entries[list(removed)].reshape(-1).tolist())
    return {key: sorted(entries) for key, entries in found.items()}


def copied(model: nn.Module, replaced: Iterable[str] | None = None) -> nn.Module:
    """Return a copy of a network that shares the tensors which are replaced anyway.

    Args:
        model: The network.
        replaced: Names of parameters and buffers that are shared; None for all of them, for a
            copy that is only read.
    """
    names = None if replaced is None else set(replaced)
    shared = {
        id(tensor): tensor
        for kind in (model.named_parameters, model.named_buffers)
        for name, tensor in kind()
        if names is None or name in names
    }
    return copy.deepcopy(model, shared)


def cut(model: nn.Module, removed: Mapping[Place, Sequence[int]]) -> None:
    """Remove entries of parameters and buffers, in place; modules learn their new sizes.

    Raises:
        ValueError: If the groups of a grouped convolution would differ in size.
    """
    _replace(model, removed, _without)
    for module in model.modules():
        _resize(module)


def clear(model: nn.Module, removed: Mapping[Place, Sequence[int]]) -> None:
    """Set entries of parameters and buffers to zero, in place: what cutting should come to."""
    # A norm divides by the running variance, so it is left.
    kept = {place: gone for place, gone in removed.items() if not place[0].endswith("running_var")}
    _replace(model, kept, _zeroed)


def _replace(
    model: nn.Module,
    removed: Mapping[Place, Sequence[int]],
    change: Callable[[torch.Tensor, int, int, Sequence[int]], torch.Tensor],
) -> None:
    holders: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    tensors: dict[str, torch.Tensor] = {}
    for kind in (model.named_parameters, model.named_buffers):
        for name, tensor in kind(remove_duplicate=False):
            path, _, attribute = name.rpartition(".")
            holders[id(tensor)].append((model.get_submodule(path), attribute))
            tensors[name] = tensor
    by_name: dict[str, list[Place]] = defaultdict(list)
    for place in removed:
        by_name[place[0]].append(place)
    for name, own in by_name.items():
        old = tensors[name]
        new = old.detach()
        # A grouped convolution's inputs are cut before its outputs say which group is whose.
        for place in sorted(own, key=lambda one: -one[2]):
            new = change(new, place[1], place[2], removed[place])
        fresh = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
        for module, attribute in holders[id(old)]:
            setattr(module, attribute, fresh)


def _without(tensor: torch.Tensor, dim: int, groups: int, entries: Sequence[int]) -> torch.Tensor:
    if groups == 1:
        gone = set(entries)
        kept = [i for i in range(tensor.shape[dim]) if i not in gone]
        return tensor.index_select(dim, torch.tensor(kept, dtype=torch.int64))
    sizes = []
    for part, own in zip(
        tensor.chunk(groups), _by_group(tensor, dim, groups, entries), strict=True
    ):
        sizes.append(_without(part, dim, 1, own))
    if len({part.shape for part in sizes}) > 1:
        raise ValueError("the groups of a grouped convolution would differ in size")
    return torch.cat(sizes)


def _zeroed(tensor: torch.Tensor, dim: int, groups: int, entries: Sequence[int]) -> torch.Tensor:
    if groups == 1:
        return tensor.index_fill(dim, torch.tensor(list(entries), dtype=torch.int64), 0)
    parts = zip(tensor.chunk(groups), _by_group(tensor, dim, groups, entries), strict=True)
    return torch.cat([_zeroed(part, dim, 1, own) for part, own in parts])


def _by_group(
    tensor: torch.Tensor, dim: int, groups: int, entries: Sequence[int]
) -> list[list[int]]:
    size = tensor.shape[dim]
    own: list[list[int]] = [[] for _ in range(groups)]
    for entry in entries:
        own[entry // size].append(entry % size)
    return own


def _resize(module: Any) -> None:
    """Let a module's own numbers say what its parameters' shapes say."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd):
        _resize_convolution(module)
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        sized = weight if weight is not None else module.running_mean
        module.num_features = module.num_features if sized is None else len(sized)
    elif not isinstance(weight, torch.Tensor):
        return
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = len(weight)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(weight)
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = weight.shape[1]


def _resize_convolution(module: Any) -> None:
    first, second = module.weight.shape[:2]
    outs, ins = (module.out_channels, module.in_channels)
    if module.groups > 1 and (ins == module.groups):
        # One input channel per group: as many groups are left as channels.
        per_group = outs // module.groups
        module.groups = first if module.transposed else first // per_group
    inner = second * module.groups
    module.out_channels, module.in_channels = (
        (inner, first) if module.transposed else (first, inner)
    )


def settle_norms(model: nn.Module, example: torch.Tensor) -> None:
    """Let norms without parameters learn their new sizes from a run on `example`."""

    def learn(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        shape = inputs[0].shape
        if isinstance(module, nn.LayerNorm):
            module.normalized_shape = tuple(shape[-len(module.normalized_shape) :])
        elif isinstance(module, nn.GroupNorm):
            module.num_channels = shape[1]
        else:
            module.num_features = shape[1]

    unsized = [m for m in model.modules() if isinstance(m, _UNSIZED) and m.weight is None]
    if not unsized:
        return
    hooks = [module.register_forward_pre_hook(learn) for module in unsized]
    try:
        with torch.inference_mode():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
