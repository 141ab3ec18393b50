"""`--weights`: a file's weights into a network; all of them, or none is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.errors import ConfigError
from harness.importing import user_code
from harness.models.asked import as_asked
from harness.models.weights_file import read_state

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from torch import nn

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What wrappers put before every name: DataParallel, torch.compile, and training loops."""
_SHOWN = 3


def load_weights(module: nn.Module, path: Path) -> tuple[str, ...]:
    """Load a file's weights into a network, in place, and return what a user should know.

    Raises:
        ConfigError: If the file can't be read (see `read_state`) or doesn't fit: names that are
            missing or unknown, other shapes, or values that are not finite. The network may then
            hold some of the weights.
    """
    return fit_state(module, read_state(path), f"`--weights {path}`")


def fit_state(module: nn.Module, state: dict[str, torch.Tensor], subject: str) -> tuple[str, ...]:
    """Load weights by name into a network, in place, and return what a user should know.

    Args:
        module: The network.
        state: Weights by name; names may all have one of `PREFIXES`.
        subject: Where they come from, for messages.

    Raises:
        ConfigError: If they don't fit, or are not finite.
    """
    own = {n: t for n, t in module.state_dict().items() if isinstance(t, torch.Tensor)}
    state, prefix = _without_prefix(state, own)
    notes = (
        [f"every name in the weights began with {prefix!r}, which was taken off"] if prefix else []
    )
    with user_code("reading the weights", subject):  # some types can't be converted
        for name, tensor in state.items():
            _check_values(name, tensor, subject)
    misshapen = [name for name in state if name in own and not _fits(state[name], own[name])]
    fitting = {name: tensor for name, tensor in state.items() if name not in misshapen}
    with user_code("loading the weights (load_state_dict)", subject):
        missing, unknown = _load(module, fitting, own)
    missing = [name for name in missing if name not in misshapen]
    if missing or unknown or misshapen:
        raise ConfigError(_misfit(subject, state, own, missing, unknown, misshapen))
    converted = {
        (_dtype(tensor), _dtype(own[name]))
        for name, tensor in state.items()
        if name in own and tensor.is_floating_point() and tensor.dtype != own[name].dtype
    }
    notes += [f"weights were converted from {old} to {new}" for old, new in sorted(converted)]
    return tuple(notes)


def _check_values(name: str, tensor: torch.Tensor, subject: str) -> None:
    """Check that a tensor holds numbers that a network can compute with.

    Raises:
        ConfigError: If it is sparse, nested or without memory, or not finite in float32.
    """
    if tensor.is_nested or tensor.is_meta or tensor.layout is not torch.strided:
        raise ConfigError(
            f"{subject}: {name!r} is a sparse, nested or meta tensor. Expected dense ones. Save "
            "`{name: tensor.to_dense() ...}` of a network that has its weights in memory."
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
        raise ConfigError(
            f"{subject}: {name!r} is not finite in float32 (NaN, infinity or too large): its "
            "training diverged. Take an earlier checkpoint."
        )


def _load(
    module: nn.Module, state: dict[str, torch.Tensor], own: dict[str, torch.Tensor]
) -> tuple[list[str], list[str]]:
    """Load what has a place, and return the names missing and unknown."""
    found = module.load_state_dict(state, strict=False)
    # A file may hold tensors that two layers share once only, as safetensors does.
    loaded = {own[name].data_ptr() for name in state if name in own and own[name].numel()}
    # What isn't a tensor (`get_extra_state`) is no weight.
    absent = [name for name in found.missing_keys if name in own]
    missing = [name for name in absent if own[name].data_ptr() not in loaded]
    return missing, list(found.unexpected_keys)


def _without_prefix(
    state: dict[str, torch.Tensor], own: Collection[str]
) -> tuple[dict[str, torch.Tensor], str]:
    """Return the weights under the names that fit best, and the prefix taken off for that."""
    best, best_prefix, prefix = state, "", ""
    while found := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(found): tensor for name, tensor in state.items()}
        prefix += found
        if sum(name in own for name in state) > sum(name in own for name in best):
            best, best_prefix = state, prefix
    return best, best_prefix


def _fits(tensor: torch.Tensor, own: torch.Tensor) -> bool:
    kinds_agree = tensor.is_floating_point() or not own.is_floating_point()
    return tensor.shape == own.shape and kinds_agree and not tensor.is_quantized


def _misfit(
    subject: str,
    state: dict[str, torch.Tensor],
    own: dict[str, torch.Tensor],
    missing: Sequence[str],
    unknown: Sequence[str],
    misshapen: Sequence[str],
) -> str:
    """Return the message of weights that don't fit."""
    described = [f"{n} ({_kind(state[n])} instead of {_kind(own[n])})" for n in misshapen]
    parts = [
        f"{what} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for what, names in (
            (f"weights of the network that the file lacks: {len(missing)} of {len(own)}", missing),
            (
                f"weights of the file that the network doesn't know: {len(unknown)} of "
                f"{len(state)}", unknown,
            ),
            (f"weights of another shape or type: {len(misshapen)} of {len(own)}", described),
        )
        if names
    ]  # fmt: skip
    last = next(reversed(own)).rpartition(".")[0]
    wrong = {name.rpartition(".")[0] for name in (*missing, *unknown, *misshapen)}
    hint = (
        "Were they saved from this very network? Check its kind and its size: a deeper network of "
        "the same kind has more layers of such names."
    )
    if wrong == {last} and not missing and not unknown:
        hint = (
            f"All but the last layer, {last!r}, fits: the weights are for another number of "
            "outputs than these data have. To start from the rest, write a factory that loads "
            f"them and then replaces that layer: {as_asked('path/file.py:factory')}."
        )
    elif not any(name in own for name in state):
        hint = (
            "No name fits: these are another network's weights, or it names its layers otherwise."
        )
    return f"{subject} doesn't fit the network: {'; '.join(parts)}. {hint}"


def _kind(tensor: torch.Tensor) -> str:
    return f"{list(tensor.shape)} {_dtype(tensor)}"


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
