"""Put another module in a module's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def replace_module(model: nn.Module, name: str, new: nn.Module) -> nn.Module:
    """Put `new` in the place of a module, in place, under every name that the module has.

    Args:
        model: The network.
        name: Of the module that goes; empty for the network itself.
        new: What comes.

    Returns:
        The network: `new` itself where the name is empty.
    """
    if not name:
        return new
    old = model.get_submodule(name)
    for path in [p for p, m in model.named_modules(remove_duplicate=False) if m is old]:
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new)
    return model


def has_hooks(module: nn.Module) -> bool:
    """Return whether somebody has put hooks on a module, which another module wouldn't have."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
