"""Can this network be searched? What stands in the way is said before any time is spent."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from harness.errors import ConfigError
from harness.importing import user_code
from harness.models.asked import asked
from harness.models.check_module import dtype_name

_LEAK = 1e-3
"""Largest difference, relative to the largest output, between a sample alone and in a batch."""


def check_network(module: nn.Module, example: torch.Tensor, outputs: int | None) -> None:
    """Check that a network runs on the data, and gives what they need.

    Args:
        module: The network; it is put into evaluation mode.
        example: Prepared samples of the data, `[B, ...]`; two or more to see whether samples of a
            batch influence each other.
        outputs: Classes, or values to predict: the network has to return `[B, outputs]`. None
            where the user's own loss knows.

    Raises:
        ConfigError: If it fails, returns no finite tensors of B samples, returns another number
            of outputs, is random in evaluation mode, or lets samples of a batch influence each
            other.
    """
    module.eval()
    found = _run(module, example)
    for part in found:
        _check_output(part, len(example))
    if outputs is not None:
        _check_count(found, len(example), outputs)
    again = _run(module, example)
    if not _alike(found, again, 1e-6):
        raise ConfigError(
            "The network gave two different answers to the same samples in evaluation mode. Is "
            "there dropout that ignores `self.training`, or other randomness? Switch it off there."
        )
    if not _alike(tuple(part[:1] for part in found), _run(module, example[:1]), _LEAK):
        raise ConfigError(
            "The network answers differently to a sample alone and in a batch: samples influence "
            "each other in evaluation mode (batch norm that keeps no running statistics? a mean "
            "or a reshape over dimension 0?). Keep samples apart there."
        )
    _check_training(module, example, [part.shape for part in found])


def _check_training(module: nn.Module, example: torch.Tensor, shapes: list[torch.Size]) -> None:
    """Check that a copy of the network returns the same shapes while it is trained.

    Raises:
        ConfigError: If it can't be copied, or returns others, such as auxiliary outputs.
    """
    with user_code("copying the network (copy.deepcopy)", asked()):
        trained = copy.deepcopy(module).train()
    if len(example) == 1:  # batch norm can't be trained on one sample
        return
    with torch.random.fork_rng(devices=[]):
        found = _run(trained, example, " in training mode")
    received = [part.shape for part in found]
    if received != shapes:
        raise ConfigError(
            f"In training mode the network returns {_listed(received)}, in evaluation mode "
            f"{_listed(shapes)}. Return the same in both: leave auxiliary outputs out."
        )


def _run(module: nn.Module, example: torch.Tensor, mode: str = "") -> tuple[torch.Tensor, ...]:
    """Return the network's outputs.

    Raises:
        ConfigError: If it fails, or returns something else than tensors.
    """
    what = f"the network, run{mode} on {len(example)} samples of shape {list(example.shape[1:])}"
    with user_code(f"{what} ({dtype_name(example)})", asked()), torch.inference_mode():
        found: Any = module(example)
    if isinstance(found, torch.Tensor):
        return (found,)
    if isinstance(found, (tuple, list)) and found:
        if all(isinstance(part, torch.Tensor) for part in found):
            return tuple(found)
        found = next(part for part in found if not isinstance(part, torch.Tensor))
    raise ConfigError(
        f"The network must return a tensor, or a tuple of tensors{mode}. Received: "
        f"{type(found).__name__}. Wrap it in an nn.Module that returns its tensors as a tuple."
    )


def _check_output(part: torch.Tensor, count: int) -> None:
    if part.ndim == 0 or len(part) != count:
        raise ConfigError(
            f"The network must return one row per sample, so {count} for {count} samples. "
            f"Received an output of shape {list(part.shape)}. Is the batch the first dimension?"
        )
    if not part.is_floating_point():
        raise ConfigError(
            f"The network must return floating-point numbers. Received {dtype_name(part)}. Return "
            "logits rather than decisions."
        )
    if not torch.isfinite(part).all():
        raise ConfigError(
            "The network's outputs on samples of the data are not finite (NaN or infinity). Check "
            "its weights, and the data's scale."
        )


def _check_count(found: tuple[torch.Tensor, ...], count: int, outputs: int) -> None:
    if len(found) > 1:
        received = _listed([part.shape for part in found])
        raise ConfigError(
            f"These data need a network that returns one tensor [N, {outputs}]. Received "
            f"{len(found)} tensors: {received}. Return one of them only."
        )
    if found[0].shape != (count, outputs):
        shape = ", ".join(["N", *(str(size) for size in found[0].shape[1:])])
        hint = ""
        if outputs == 2 and found[0].shape == (count, 1):
            hint = (
                " One output for two classes, such as a sigmoid's: end in two outputs and a "
                "softmax (logits z become [0, z]), or give a loss and a metric of your own."
            )
        raise ConfigError(
            f"The data have {outputs} classes or values to predict, so the network must return "
            f"[N, {outputs}]. Received: [{shape}]. Build it for {outputs} outputs, or check the "
            f"data's labels.{hint}"
        )


def _alike(
    left: tuple[torch.Tensor, ...], right: tuple[torch.Tensor, ...], tolerance: float
) -> bool:
    """Whether outputs agree, relative to the largest value of each."""
    if [part.shape for part in left] != [part.shape for part in right]:
        return False
    return all(
        float((a - b).abs().max()) <= tolerance * max(float(a.abs().max()), 1e-12)
        for a, b in zip(left, right, strict=True)
        if a.numel()
    )


def _listed(shapes: list[torch.Size]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
