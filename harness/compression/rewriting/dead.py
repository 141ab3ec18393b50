"""Submodules that never run leave, so that their parameters count no more."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.compression.rewriting.replacing import replace_module
from harness.compression.running import difference, in_mode, tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DECIDES = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim")
"""Operations whose result, or its size, a network can only use to decide by values."""


def find_dead(
    model: nn.Module, batches: Sequence[torch.Tensor]
) -> tuple[list[str], tuple[str, ...]]:
    """Return the submodules with parameters that never run, and a line for what is left.

    Each one returned has been replaced by an identity in a copy, which computed exactly the same:
    a module whose parameters are used without calling it (as those of `nn.MultiheadAttention`) is
    none. Nor is one that runs in training alone: a loss may need it.

    Args:
        model: The network, in evaluation mode; left as it is.
        batches: Samples `[N, ...]`.
    """
    never, by_values = _never_run(model, batches)
    if by_values:
        note = "the network decides by values what runs, and other samples may need them"
        return [], (_left(never, note),) if never else ()
    found = _replaceable(model, never, [(x, tensors_of(model, x)) for x in batches])
    if not found:
        return [], ()
    trained = _run_in_training(model, batches[-1])
    if trained is None:
        return [], (_left(found, "the network can't be run in training mode"),)
    only_trained = [name for name in found if _within(name, trained)]
    note = "they take part in training"
    notes = (_left(only_trained, note),) if only_trained else ()
    return [name for name in found if name not in only_trained], notes


def without_dead(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Return a copy of a network with identities in the place of these modules."""
    new = copy.deepcopy(model)
    for name in names:
        new = replace_module(new, name, nn.Identity().train(new.training))
    return new


def _left(names: Iterable[str], reason: str) -> str:
    return f"Modules that don't run stay ({', '.join(names)}): {reason}."


def _within(name: str, run: Iterable[str]) -> bool:
    return any(f"{one}.".startswith(f"{name}.") for one in run)


class _Decisions(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's stubs
    """Notices whether values decide what a network does."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and importing the compiler takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        masks = args[1] if name == "index" else ()
        masked = any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in masks)
        self.seen = self.seen or name in _DECIDES or masked
        return func(*args, **(kwargs or {}))


def _never_run(model: nn.Module, batches: Sequence[torch.Tensor]) -> tuple[list[str], bool]:
    """Return the outermost modules with parameters that don't run, and whether values decide that.

    A container is never called, so it counts as running where something in it does.
    """
    run: set[str] = set()
    decisions = _Decisions()
    with decisions:
        for batch in batches:
            run |= _called(model, batch)
    found: list[str] = []
    for name, module in model.named_modules():
        has_own = next(module.parameters(), None) is not None
        if name and has_own and not _within(name, run) and not _outside(found, name):
            found.append(name)
    return found, decisions.seen


def _outside(found: Iterable[str], name: str) -> bool:
    return any(name.startswith(f"{one}.") for one in found)


def _called(model: nn.Module, batch: torch.Tensor) -> set[str]:
    """Return the names of all modules that run, under each name that they have."""
    objects: set[nn.Module] = set()
    hooks = [
        module.register_forward_pre_hook(lambda module, _: objects.add(module))
        for module in model.modules()
    ]
    try:
        with torch.no_grad():
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    names = model.named_modules(remove_duplicate=False)
    return {name for name, module in names if module in objects}


def _run_in_training(model: nn.Module, batch: torch.Tensor) -> set[str] | None:
    """Return the names of modules that run in training; None where it can't be run so."""
    alone = copy.deepcopy(model)
    if len(batch) < 2:  # a batch norm needs more than one value
        batch = torch.cat([batch, batch])
    try:
        with in_mode(alone, training=True):
            return _called(alone, batch)
    except Exception:  # the network's own code raises what it likes
        return None


def _replaceable(
    model: nn.Module,
    names: Sequence[str],
    expected: Sequence[tuple[torch.Tensor, list[torch.Tensor]]],
) -> list[str]:
    """Return those of these modules, or of their children, that the network doesn't touch."""
    found: list[str] = []
    waiting = list(reversed(names))
    while waiting:
        name = waiting.pop()
        if _same_without(model, [*found, name], expected):
            found.append(name)
            continue
        children = model.get_submodule(name).named_children()
        waiting += [
            f"{name}.{child}" for child, one in children if next(one.parameters(), None) is not None
        ][::-1]
    return found


def _same_without(
    model: nn.Module,
    names: Sequence[str],
    expected: Sequence[tuple[torch.Tensor, list[torch.Tensor]]],
) -> bool:
    try:
        new = without_dead(model, names)
        return all(difference(known, tensors_of(new, x)) == 0.0 for x, known in expected)
    except Exception:  # the network's own code raises what it likes: it needs the module then
        return False
