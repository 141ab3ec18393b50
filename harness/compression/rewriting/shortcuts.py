"""Zero-padded shortcuts become 1x1 convolutions, whose channels can be pruned.

Two kinds are found: submodules without parameters, by what they do, and padding that is written in
a forward, by tracing that forward (see `inline`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.compression.rewriting.inline import Inline, rewritten_inline, traced_pads
from harness.compression.rewriting.padding import pad_places
from harness.compression.rewriting.replacing import has_hooks, replace_module
from harness.compression.rewriting.selection import Selection, find_selection
from harness.compression.running import calls_of, difference, in_mode, tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from harness.compression.running import Called


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A zero-padded selection of pixels in a network.

    Attributes:
        module: Name of the submodule that computes it, or in whose forward it is written.
        selection: What it computes.
        inline: Where in the forward it is written; None where the submodule is nothing else.
    """

    module: str
    selection: Selection
    inline: Inline | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        where = {} if self.inline is None else {"from": self.inline.source, "to": self.inline.pad}
        return {
            "module": self.module, "in": self.selection.inputs,
            "channels": list(self.selection.channels), "stride": self.selection.stride, **where,
        }  # fmt: skip

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Shortcut:
        """Return what `as_json` told."""
        selection = Selection(given["in"], tuple(given["channels"]), given["stride"])
        inline = Inline(given["from"], given["to"]) if "to" in given else None
        return cls(given["module"], selection, inline)

    def __str__(self) -> str:
        s = self.selection
        return (
            f"{self.module or 'the network'} ({s.inputs} to {len(s.channels)}, stride {s.stride})"
        )


def find_shortcuts(
    model: nn.Module, example: torch.Tensor
) -> tuple[list[Shortcut], tuple[str, ...]]:
    """Return the zero-padded shortcuts that can be convolutions, and a line for each that can't.

    Each one returned has been replaced in a copy, which computed exactly the same.

    Args:
        model: The network, in evaluation mode; left as it is.
        example: One sample, `[1, ...]`.
    """
    expected = tensors_of(model, example)
    candidates, refused = _submodules(model, calls_of(model, example))
    found: list[Shortcut] = []
    for one in candidates:
        if _holds(model, [*found, one], example, expected):
            found.append(one)
        else:
            refused[one.module] = "the network needs more of the module than what it computes"
    notes: list[str] = []
    rest = with_convolutions(model, found)
    for name in pad_places(rest, example):
        reason = next((why for one, why in refused.items() if _lies_in(name, one)), "")
        inside, reason = ([], reason) if reason else traced_pads(rest, name, example)
        new = [Shortcut(name, selection, inline) for inline, selection in inside]
        if new and not _holds(model, [*found, *new], example, expected):
            new, reason = [], "its forward computes something else once it is traced"
        found += new
        notes += [_left(name, reason)] if reason else []
    return found, tuple(notes)


def with_convolutions(model: nn.Module, shortcuts: Iterable[Shortcut]) -> nn.Module:
    """Return a copy of a network with convolutions in the place of these shortcuts."""
    new = copy.deepcopy(model)
    written: dict[str, dict[Inline, nn.Module]] = {}
    for one in shortcuts:
        layer = one.selection.convolution().train(new.training)
        if one.inline is None:
            new = replace_module(new, one.module, layer)
        else:
            written.setdefault(one.module, {})[one.inline] = layer
    # The innermost first: a name with more parts lies deeper.
    for name in sorted(written, key=lambda path: -len(path.split("."))):
        new = replace_module(new, name, rewritten_inline(new.get_submodule(name), written[name]))
    return new


def _left(name: str, reason: str) -> str:
    where = f"{name!r}" if name else "the network's own forward"
    return f"Channels padded with zeros in {where} stay as they are: {reason}."


def _lies_in(name: str, other: str) -> bool:
    return f"{name}.".startswith(f"{other}.")


def _submodules(
    model: nn.Module, calls: Mapping[str, list[Called]]
) -> tuple[list[Shortcut], dict[str, str]]:
    """Return the submodules that are padded selections, and why similar ones are not."""
    found: list[Shortcut] = []
    refused: dict[str, str] = {}
    for name, module in model.named_modules():
        # A module is taken as a whole: padding behind an average pool is no selection of pixels.
        judged = (*refused, *(one.module for one in found))
        if not name or any(_lies_in(name, one) for one in judged):
            continue
        if not _widens(module, calls.get(name, [])):
            continue
        if len(calls[name]) > 1 or has_hooks(module):
            refused[name] = "the module is called more than once, or has hooks"
        elif (selection := _selection(module, calls[name][0].args[0].shape)) is None:
            refused[name] = "the module doesn't copy single pixels"
        else:
            found.append(Shortcut(name, selection))
    return found, refused


def _widens(module: nn.Module, calls: list[Called]) -> bool:
    """Return whether a module without parameters and buffers adds channels to one tensor."""
    if not calls or any(True for _ in (*module.parameters(), *module.buffers())):
        return False
    args, kwargs, output = calls[0].args, calls[0].kwargs, calls[0].output
    tensors = (*args, output)
    return (
        len(args) == 1
        and not kwargs
        and all(isinstance(x, torch.Tensor) and x.dim() == 4 for x in tensors)
        and output.shape[1] > args[0].shape[1]
    )


def _selection(module: nn.Module, shape: torch.Size) -> Selection | None:
    """Return what a module computes, if it is the same in training and in evaluation."""
    alone = copy.deepcopy(module)
    found = []
    for training in (True, False):
        with in_mode(alone, training):
            found.append(find_selection(alone, shape))
    return found[0] if found[0] == found[1] else None


def _holds(
    model: nn.Module,
    shortcuts: list[Shortcut],
    example: torch.Tensor,
    expected: list[torch.Tensor],
) -> bool:
    """Return whether a network computes exactly the same with these convolutions."""
    try:
        got = tensors_of(with_convolutions(model, shortcuts), example)
    except Exception:  # the network's own code raises what it likes: it needs the module then
        return False
    return difference(expected, got) == 0.0
