"""The steps of a conversion as a graph that can be rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from harness.models.onnx_network import Binary, OnnxNetwork
from harness.models.onnx_node import Constant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from harness.models.onnx_node import Draft


class Graph:
    """Drafts with who makes and who takes each value.

    Args:
        drafts: In an order in which they can run; changed in place.
        outputs: The values that the network returns.
    """

    def __init__(self, drafts: list[Draft], outputs: list[str]) -> None:
        self.drafts, self.outputs = drafts, outputs

    def maker(self, value: str) -> Draft | None:
        """Return the draft that makes a value; None for the network's input."""
        return next((d for d in self.drafts if value in d.outputs), None)

    def only_taker(self, value: str) -> Draft | None:
        """Return the draft that takes a value, if there is just one and it is no output."""
        takers = [d for d in self.drafts if value in d.inputs]
        return takers[0] if len(takers) == 1 and value not in self.outputs else None

    def constant(self, value: str) -> torch.Tensor | None:
        """Return the tensor that a value is; None where it is computed."""
        maker = self.maker(value)
        return maker.call.value.detach() if maker and isinstance(maker.call, Constant) else None

    def bypass(self, draft: Draft, new: str) -> None:
        """Take a draft out: who took its output takes the value `new`."""
        (old,) = draft.outputs
        self.drafts.remove(draft)
        for other in self.drafts:
            other.inputs = tuple(new if name == old else name for name in other.inputs)
        self.outputs[:] = [new if name == old else name for name in self.outputs]

    def sweep(self) -> None:
        """Take out what no output needs."""
        needed, kept = set(self.outputs), []
        for draft in reversed(self.drafts):
            if needed.intersection(draft.outputs):
                needed.update(draft.inputs)
                kept.append(draft)
        self.drafts[:] = reversed(kept)


def per_channel(graph: Graph, draft: Draft) -> tuple[str, int, torch.Tensor] | None:
    """Return the other operand, the axis and the values `[C]` of per-channel arithmetic."""
    if not isinstance(draft.call, Binary) or draft.call.op not in ("Add", "Sub", "Mul", "Div"):
        return None
    if len(draft.inputs) != 2:
        return None
    tensors = [graph.constant(value) for value in draft.inputs]
    side = 1 if tensors[1] is not None else 0
    tensor, other = tensors[side], draft.inputs[1 - side]
    commutes = side == 1 or draft.call.op in ("Add", "Mul")
    if tensor is None or tensors[1 - side] is not None or not commutes:
        return None
    shape = draft.shapes[0]
    if draft.taken[1 - side] != shape:  # the constant broadcasts the operand: it isn't per channel
        return None
    sizes = (1,) * (len(shape) - tensor.ndim) + tuple(tensor.shape)
    axes = [i for i, size in enumerate(sizes) if size > 1]
    if len(axes) != 1 or axes[0] == 0 or shape[axes[0]] != sizes[axes[0]]:
        return None
    return other, axes[0], tensor.reshape(-1)


def named_layers(drafts: list[Draft]) -> Mapping[str, Draft]:
    """Return the drafts with weights by names that torch accepts for submodules."""
    found: dict[str, Draft] = {}
    taken = OnnxNetwork((), {}, "", (), {}, ())  # an instance, for names that are set in it only
    for draft in drafts:
        if isinstance(draft.call, nn.Module):
            base = "".join(c if c.isalnum() else "_" for c in draft.name).strip("_") or "layer"
            name, count = base, 1
            while name in found or hasattr(taken, name) or name.startswith("_"):
                count += 1
                name = f"{base}_{count}"
            found[name] = draft
    return found
