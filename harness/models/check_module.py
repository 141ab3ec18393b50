"""Is what a user gave a network that can be trained and pruned?"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from harness.errors import ConfigError
from harness.importing import user_code

_PARAMETRIZED = "or use `torch.nn.utils.parametrizations.{}`, whose layers are left whole"
_COMPUTED = {
    WeightNorm: ("torch.nn.utils.weight_norm", "torch.nn.utils.remove_weight_norm(layer)",
                 _PARAMETRIZED.format("weight_norm")),
    SpectralNorm: ("torch.nn.utils.spectral_norm", "torch.nn.utils.remove_spectral_norm(layer)",
                   _PARAMETRIZED.format("spectral_norm")),
    BasePruningMethod: ("torch.nn.utils.prune", "torch.nn.utils.prune.remove(layer, name)",
                        "which keeps its zeros"),
}  # fmt: skip
"""Hooks that compute a weight before every call: what put them there, what takes them off."""


def check_module(found: object, origin: str) -> nn.Module:
    """Return what a user gave as a network, if it can be trained and pruned.

    Args:
        found: Anything.
        origin: Where it comes from, for messages.

    Raises:
        ConfigError: If it is no `nn.Module`, a compiled or traced one, or has parameters that are
            missing, not yet sized, not on the CPU, not float32, or computed by hooks; or if it
            can't be copied.
    """
    compiled = isinstance(found, torch.jit.ScriptModule) or hasattr(found, "_orig_mod")
    if compiled or isinstance(found, torch.export.ExportedProgram):
        raise ConfigError(
            f"{origin} is a {type(found).__name__}: a compiled or traced program, whose channels "
            "can't be pruned. Give the Python network that it was made from."
        )
    if isinstance(found, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise ConfigError(f"{origin} is a {type(found).__name__}. Give the network inside it.")
    if not isinstance(found, nn.Module):
        raise ConfigError(
            f"{origin} must be a torch.nn.Module. Received: {type(found).__name__}. Name a "
            "function or class that returns one."
        )
    if not any(True for _ in found.parameters()):
        raise ConfigError(f"{origin} has no parameters: there is nothing to train or prune.")
    for name, tensor in [*found.named_parameters(), *found.named_buffers()]:
        _check_tensor(name, tensor, origin)
    for name, module in found.named_modules():
        _check_hooks(name, module, origin)
    with user_code("copying it (copy.deepcopy), as pruning does,", origin):
        copy.deepcopy(found)
    return found


def _check_tensor(name: str, tensor: torch.Tensor, origin: str) -> None:
    if is_lazy(tensor):
        raise ConfigError(
            f"{origin}: {name!r} has no size yet (a lazy layer). Run one batch through the "
            "network where it is made, or give the layer its input size."
        )
    if tensor.device.type != "cpu":
        raise ConfigError(
            f"{origin}: {name!r} is on the device {str(tensor.device)!r}. Expected 'cpu'. Move it "
            "with `.to('cpu')` where the network is made (or `.to_empty` and weights, where it "
            "was made on 'meta')."
        )
    if isinstance(tensor, nn.Parameter) and tensor.dtype != torch.float32:
        raise ConfigError(
            f"{origin}: {name!r} is {dtype_name(tensor)}. Expected float32. Convert the network "
            "with `.float()`; other precisions are the target's choice, not the network's."
        )


def _check_hooks(name: str, module: nn.Module, origin: str) -> None:
    for hook in module._forward_pre_hooks.values():
        for kind, (source, remedy, otherwise) in _COMPUTED.items():
            if isinstance(hook, kind):
                raise ConfigError(
                    f"{origin}: {name or 'the network'!r} has a weight that a hook of `{source}` "
                    "computes before every call. Expected parameters of its own: others can be "
                    f"neither copied nor pruned. Take the hook off with `{remedy}` where the "
                    f"network is made, {otherwise}."
                )


def dtype_name(tensor: torch.Tensor) -> str:
    """Return a tensor's type in numpy's words, such as `float32`."""
    return str(tensor.dtype).removeprefix("torch.")
