"""The guard before a search: groups are really pruned in a copy, and the copy must be right.

Right means: it runs, every output keeps its shape, multiply-accumulates are exactly those that
the graph predicts, and every layer computes what it computes in the dense network with the same
channels set to zero. The last catches what counts can't: channels that ended up in wrong places.

That is seen several times, at other widths each time: a network may run as long as all groups keep
the same part, or give the right outputs as long as its halves happen to lose equally many channels.
"""

from __future__ import annotations

import copy
import zlib
from typing import TYPE_CHECKING, Any

import torch

from harness.compression.pruning.dependency.cutting import clear, copied, cut, places, settle_norms
from harness.compression.pruning.dependency.neutral import SameAttention, SameScale
from harness.compression.pruning.dependency.tracing import LAYERS
from harness.export import layer_macs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from harness.compression.pruning.dependency.cutting import Place
    from harness.compression.pruning.dependency.parts import Group, History, PruningGraph

_TOLERANCE = 2e-3
"""Of a layer's largest output; float32 in other orders of summation stays well below."""
_DRAWS = 4
"""How often each group is pruned: to half first, then to any width."""


class Verifier:
    """Prunes copies of a network and says what is wrong with them.

    Args:
        model: The dense network, in evaluation mode; left as it is.
        example: One sample, `[1, ...]`.
    """

    def __init__(self, model: nn.Module, example: torch.Tensor) -> None:
        self._example = example
        self._rng = torch.Generator().manual_seed(0)
        self._model = copy.deepcopy(model)
        self._randomise()
        self._inputs = self._batch()

    def fault(self, graph: PruningGraph) -> str | None:
        """Return what is wrong when all groups are pruned; None for nothing.

        A group loses the same channels at every call, whichever groups are with it: none is let
        through by chance because it was tried more often.
        """
        for draw in range(_DRAWS):
            history = {group.name: _drawn(group, draw) for group in graph.groups}
            if (why := self._fault(graph, history)) is not None:
                return why
        return None

    def _fault(self, graph: PruningGraph, history: History) -> str | None:
        removed = places(graph.groups, history)
        smaller, cleared = copied(self._model), copied(self._model)
        try:
            cut(smaller, removed)
            settle_norms(smaller, self._example)
            realised = layer_macs(smaller, self._example)
            got = _outputs(smaller, self._inputs)
        except Exception as exc:  # the network's own code raises what it likes
            text = str(exc).strip().partition("\n")[0]
            return f"without some of them the network doesn't run: {text}"
        clear(cleared, removed)
        if (why := wrong_macs(graph, history, realised)) is not None:
            return why
        expected = _outputs(cleared, self._inputs)
        return _differences(graph, got, self._only_kept(expected, removed))

    def _only_kept(
        self, outputs: dict[str, list[torch.Tensor]], removed: Mapping[Place, Sequence[int]]
    ) -> dict[str, list[torch.Tensor]]:
        """Return layers' outputs without the channels that pruning removes."""
        names = {id(tensor): name for name, tensor in self._model.named_parameters()}
        found = dict(outputs)
        for name in outputs.keys() - {""}:
            layer = self._model.get_submodule(name)
            weight = names.get(id(layer.weight), "")
            turned = bool(getattr(layer, "transposed", False)) and layer.groups == 1
            gone = set(removed.get((weight, int(turned), 1), ()))
            along = 1 if hasattr(layer, "kernel_size") else -1
            size = outputs[name][0].shape[along]
            kept = torch.tensor([i for i in range(size) if i not in gone], dtype=torch.int64)
            found[name] = [x.index_select(along, kept) for x in outputs[name]]
        return found

    def _randomise(self) -> None:
        """Give all weights sizes at which every channel counts, whatever training made of them."""
        for name, tensor in self._model.named_parameters():
            noise = torch.randn(tensor.shape, generator=self._rng)
            if tensor.dim() > 1:
                noise *= (2 / max(1, tensor[0].numel())) ** 0.5
            elif name.endswith("bias"):
                noise *= 0.1
            else:
                noise = 1 + 0.1 * noise
            if tensor.is_floating_point() and tensor.dim():
                tensor.data = noise.to(tensor.dtype)

    def _batch(self) -> torch.Tensor:
        """Return two random samples; one where the network takes no more."""
        one = self._example
        two = one.repeat(2, *[1] * (one.dim() - 1))
        if one.is_floating_point():
            one, two = (torch.randn(x.shape, generator=self._rng) for x in (one, two))
        try:
            with torch.inference_mode():
                self._model(two)
        except RuntimeError:
            return one
        return two


def _drawn(group: Group, draw: int) -> list[int]:
    """Return channels of a group, at random, equally many of every block: half, or any number."""
    size = group.width // group.blocks
    rng = torch.Generator().manual_seed(zlib.crc32(f"{draw} {group.name}".encode()))
    count = size // 2
    if draw and size > 1:
        count = int(torch.randint(1, size, (), generator=rng))
    gone = [
        block * size + torch.randperm(size, generator=rng)[:count] for block in range(group.blocks)
    ]
    return sorted(torch.cat(gone).tolist())


def wrong_macs(graph: PruningGraph, history: History, realised: Mapping[str, int]) -> str | None:
    """Return which layer's multiply-accumulates are not those predicted; None for none."""
    widths = {group.name: group.width - len(history.get(group.name, ())) for group in graph.groups}
    for name, macs in graph.macs(widths).items():
        if round(macs) != realised.get(name):
            return (
                f"layer {name!r}: expected {macs:.0f} multiply-accumulates at the widths asked, "
                f"received {realised.get(name)}: a layer was not pruned with its group"
            )
    return None


def _outputs(model: nn.Module, inputs: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """Return what every layer and the network itself return."""
    found: dict[str, list[torch.Tensor]] = {}

    def keep(name: str) -> Any:
        return lambda module, args, out: found.setdefault(name, []).append(out)

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, LAYERS)]
    hooks = [module.register_forward_hook(keep(name)) for name, module in layers]
    try:
        with torch.no_grad(), SameAttention(), SameScale():  # type: ignore[no-untyped-call]
            result = model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    found[""] = list(_flat(result))
    return found


def _flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for one in value for t in _flat(one)] if isinstance(value, (list, tuple)) else []


def _differences(
    graph: PruningGraph,
    got: Mapping[str, list[torch.Tensor]],
    expected: Mapping[str, list[torch.Tensor]],
) -> str | None:
    """Return where two networks differ first; None for nowhere."""
    rows = {layer.name for layer in graph.layers if layer.rows}
    for name, whole in expected.items():
        if len(whole) != len(got.get(name, ())):
            return "without some of them the network runs other layers"
        for one, other in zip(whole, got[name], strict=True):
            if one.shape != other.shape and name not in rows:
                return f"an output would change its shape to {tuple(other.shape)}"
            # A layer whose other dimensions shrink is judged by what follows it.
            if one.shape == other.shape and not _close(one, other):
                where = f"{name!r} computes" if name else "the outputs are"
                return f"without some of them {where} something else: their order is mixed up"
    return None


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    size = one.abs().max() if one.numel() else torch.zeros(())
    error = (one - other).abs().max() if one.numel() else torch.zeros(())
    return bool(error <= _TOLERANCE * size + 1e-6)
