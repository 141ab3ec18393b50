"""Residual blocks: parts of a network that can be left out, found by what they compute.

A block adds something to its input, so that without its weights nothing but the input is left:
Veit et al. (2016), "Residual networks behave like ensembles of relatively shallow networks", leave
out blocks of a trained network in this way. No class is known here. A module is a block if it
returns its input once its parameters are zero, and if the network computes the same with
`torch.nn.Identity` in its place as with its input passed on.
"""

from __future__ import annotations

import copy
import difflib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.compression.depth.calls import block_calls, cloned
from harness.compression.pruning.dependency.cutting import copied
from harness.compression.running import outputs_of
from harness.errors import ConfigError, TaskError
from harness.export import layer_macs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from harness.compression.depth.calls import Call

_TOLERANCE = 1e-4
"""Of the largest value; float32 in other orders of summation stays well below."""
_LISTED = 20
"""Modules that an error names."""


@dataclass(frozen=True, slots=True)
class Block:
    """A module that can be replaced by `torch.nn.Identity`.

    Attributes:
        name: Module name.
        params: Parameters that the network loses with it.
        macs: Multiply-accumulates of its layers, for one sample.
    """

    name: str
    params: int
    macs: int


class Skip(nn.Identity):
    """An identity that is called like the block it stands for: what follows the input is unused."""

    def forward(self, input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: A002
        """Return `input`."""
        return input


def residual_blocks(model: nn.Module, example: torch.Tensor) -> tuple[Block, ...]:
    """Return the smallest modules that can be left out, in the order in which they run.

    Such a module holds a convolution or linear layer that ran, is called once with a tensor (what
    else it is given doesn't matter), and returns one of the same shape: its input, once all its
    parameters are zero. It is in the network under one name only. Each has been left out in a copy:
    the network runs, and its outputs keep their shapes and depend on the block.

    Args:
        model: The network; left as it is, in evaluation mode.
        example: One real sample, `[1, ...]`.

    Raises:
        TaskError: If the network can't be run.
    """
    whole = outputs_of(model, example, "The network")
    calls = block_calls(model, example)
    macs = layer_macs(model, example)
    found: dict[str, Block] = {}
    for name in sorted(calls, key=lambda one: -one.count(".")):  # the inner ones first
        inside = {layer: n for layer, n in macs.items() if layer.startswith(f"{name}.")}
        if not inside or any(other.startswith(f"{name}.") for other in found):
            continue
        if not _returns_input(model.get_submodule(name), calls[name]):
            continue
        smaller = leave_out(copied(model), [name])
        if _right(smaller, model, name, calls[name], example, whole):
            params = _count(model) - _count(smaller)
            found[name] = Block(name, params, sum(inside.values()))
    return tuple(found[name] for name in calls if name in found)


def drop_blocks(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Return a copy of `model` with `torch.nn.Identity` in the place of some modules.

    Args:
        model: The network; left as it is.
        names: Module names, such as those of `residual_blocks`.

    Raises:
        ConfigError: If the network has no such module, or has it under another name too.
    """
    names = list(names)
    known = {name: id(module) for name, module in model.named_modules(remove_duplicate=False)}
    holders = [n for n, m in model.named_modules() if n and any(True for _ in m.children())]
    uses = Counter(known.values())
    for name in names:
        if not name or name not in known:
            raise unknown_block(name, holders or [n for n in known if n])
        if uses[known[name]] > 1:
            raise ConfigError(
                f"Module {name!r} is in the network under {uses[known[name]]} names, so it can't "
                "be left out at one of them. Leave it in."
            )
    return leave_out(copy.deepcopy(model), names)


def asked_blocks(found: Sequence[Block], names: Collection[str] | None) -> tuple[str, ...]:
    """Return the names of the blocks that were asked for, in the order in which they run.

    Args:
        found: All blocks of the network.
        names: Those asked for; None for all.

    Raises:
        ConfigError: If a block is named that there is not.
    """
    there = tuple(block.name for block in found)
    for name in names or ():
        if name not in there:
            raise unknown_block(name, there)
    return tuple(name for name in there if names is None or name in names)


def unknown_block(name: str, known: Sequence[str]) -> ConfigError:
    """Return the error that there is no such block, with those that there are."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    rest = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return ConfigError(
        f"The network has no block {name!r} that can be left out. Expected one of: "
        f"{', '.join(known[:_LISTED])}{rest}.{hint}"
    )


def leave_out(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """Put identities in the place of modules of `model` itself, and return it.

    Args:
        model: The network; changed.
        names: Module names, each there once.
    """
    for name in sorted(names, key=lambda one: -one.count(".")):  # the inner ones first
        path, _, attribute = name.rpartition(".")
        replaced = model.get_submodule(name)
        setattr(model.get_submodule(path), attribute, Skip().train(replaced.training))
    return model


def _returns_input(module: nn.Module, call: Call) -> bool:
    """Return whether a module without its weights gives back what it is given."""
    silent = copy.deepcopy(module)
    args, kwargs = cloned(call.args), cloned(call.kwargs)
    try:
        with torch.inference_mode():
            for parameter in silent.parameters():
                parameter.zero_()
            output = silent(*args, **kwargs)
    except Exception:  # the network's own code raises what it likes: without weights, too
        return False
    return _close((call.args[0],), (output,))


def _right(
    smaller: nn.Module,
    model: nn.Module,
    name: str,
    call: Call,
    example: torch.Tensor,
    whole: tuple[torch.Tensor, ...],
) -> bool:
    """Return whether the network without a block computes what passing its input on gives.

    It may not: where the network looks at its blocks' attributes, runs them by other names, or
    changes in place what a block would have copied.
    """
    hook = model.get_submodule(name).register_forward_hook(lambda *_: call.args[0].clone())
    try:
        expected = outputs_of(model, example, "The network")
        got = outputs_of(smaller, example, "The network without a block")
    except TaskError:
        return False
    finally:
        hook.remove()
    same = zip(whole, got, strict=False)
    return _close(expected, got) and (call.idle or any(not torch.equal(*pair) for pair in same))


def _close(expected: tuple[Any, ...], got: tuple[Any, ...]) -> bool:
    """Return whether tensors have the same shapes and, up to rounding, the same values."""
    if len(expected) != len(got):
        return False
    for one, other in zip(expected, got, strict=True):
        if not isinstance(other, torch.Tensor) or one.shape != other.shape:
            return False
        size = float(one.abs().max()) if one.numel() else 0.0
        if not torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE * size):
            return False
    return True


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
