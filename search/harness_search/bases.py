"""Networks that channels are pruned from: the dense one, and it without some residual blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.compression.depth.blocks import asked_blocks, drop_blocks, residual_blocks
from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.prune import prune
from harness.errors import ConfigError, TaskError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import torch
    from torch import nn

    from harness.compression.pruning.dependency.graph import Group, PruningGraph
    from harness.compression.pruning.dependency.parts import History
    from harness_search.settings import Settings
    from harness_search.space import SearchSpace


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """The dense network without some residual blocks.

    Attributes:
        blocks: Names of those left out, in the order in which they run.
        graph: Its prunable groups, which are some of the dense network's.
        space: What may be suggested of these groups.
    """

    blocks: tuple[str, ...]
    graph: PruningGraph
    space: SearchSpace

    def network(self, dense: nn.Module) -> nn.Module:
        """Return a copy of the dense network without the blocks, with its weights."""
        return drop_blocks(dense, self.blocks)

    def pruned(self, dense: nn.Module, example: torch.Tensor, history: History) -> nn.Module:
        """Return a copy of the dense network without the blocks and without some channels.

        Args:
            dense: The dense network; left as it is.
            example: One sample, `[1, ...]`.
            history: Channels to remove per group.

        Raises:
            TaskError: If the result doesn't run, or was not pruned as asked.
        """
        return prune(self.network(dense), self.graph, example, history)

    def widths(self, own: Mapping[str, int], dense: Mapping[str, int]) -> dict[str, int]:
        """Return widths of all the dense network's groups: 0 where a group went with its block.

        Args:
            own: Of this base's groups.
            dense: Of the dense network's.
        """
        return {name: own.get(name, 0) for name in dense}


def make_base(
    dense: nn.Module,
    graph: PruningGraph,
    example: torch.Tensor,
    space: SearchSpace,
    blocks: Collection[str],
) -> Base:
    """Return the dense network without some blocks.

    Args:
        dense: The network; left as it is.
        graph: Its prunable groups.
        example: One sample, `[1, ...]`.
        space: Of the dense network.
        blocks: Names of residual blocks.

    Raises:
        TaskError: If nothing prunable is left, or what is left goes together otherwise than in the
            dense network.
    """
    gone = tuple(blocks)
    if not gone:
        return Base((), graph, space)
    fewer = pruning_graph(drop_blocks(dense, gone), example)
    left = {group.name: group for group in fewer.groups}
    other = [group.name for group in graph.groups if not _same(group, left.get(group.name), gone)]
    other += [name for name in left if name not in space.dense]
    if other:
        raise TaskError(
            f"without {', '.join(gone)} other channels belong together: {', '.join(other)}"
        )
    allowed = {name: space.allowed[name] for name in left}
    return Base(gone, fewer, replace(space, dense=fewer.dense_widths(), allowed=allowed))


def _same(group: Group, left: Group | None, gone: Collection[str]) -> bool:
    """Whether what is left of a group is what its layers outside of the blocks make of it."""
    stay = {name for name in group.layers if not any(_inside(name, block) for block in gone)}
    if left is None:
        return not stay
    return left.width == group.width and set(left.layers) == stay


def smallest_base(
    dense: nn.Module,
    graph: PruningGraph,
    example: torch.Tensor,
    space: SearchSpace,
    settings: Settings,
) -> tuple[Base, tuple[str, ...]]:
    """Return the network without all residual blocks that a search may leave out, and notes.

    These are what the user names, or all that there are: but none whose channels the user wants
    whole, and none where only some groups are to be pruned. Blocks that can't be left out, alone or
    with the others, stay, and the notes say so.

    Args:
        dense: The network; left as it is.
        graph: Its prunable groups.
        example: One sample, `[1, ...]`.
        space: Of the dense network.
        settings: `blocks`, `layers` and `exclude`.

    Raises:
        ConfigError: If a block is named that there is not, or that can't be left out.
        TaskError: If the network can't be run.
    """
    able, notes = list(_asked_for(dense, example, settings)), list[str]()

    def without(blocks: Sequence[str]) -> Base | str:
        try:
            return make_base(dense, graph, example, space, blocks)
        except TaskError as exc:
            return str(exc)

    def stays(name: str, why: str) -> None:
        if settings.blocks is not None:
            raise ConfigError(
                f"`--blocks` must name residual blocks that can all be left out. Received "
                f"{', '.join(settings.blocks)}; but {name} has to stay: {why}. Name fewer."
            )
        notes.append(f"block {name} is never left out: {why}")
        able.remove(name)

    made = without(able)
    if isinstance(made, str):
        for name in list(able):
            alone = without([name])
            if isinstance(alone, str):
                stays(name, alone)
        made = without(able)
    while isinstance(made, str):
        stays(able[-1], made)
        made = without(able)
    return made, tuple(notes)


def _asked_for(dense: nn.Module, example: torch.Tensor, settings: Settings) -> tuple[str, ...]:
    if settings.blocks == () or (settings.layers and settings.blocks is None):
        return ()
    found = asked_blocks(residual_blocks(dense, example), settings.blocks)
    whole = {name: [g for g in settings.exclude if _inside(g, name)] for name in found}
    for name, groups in whole.items():
        if groups and settings.blocks is not None:
            raise ConfigError(
                f"`--blocks` may leave out {name}, and `--exclude` keeps {', '.join(groups)} in it "
                "whole. Take one of the two out."
            )
    return tuple(name for name in found if not whole[name])


def _inside(layer: str, block: str) -> bool:
    return layer == block or layer.startswith(f"{block}.")


def layers_by_block(layers: Sequence[str], blocks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of the layers in each block."""
    return {block: tuple(name for name in layers if _inside(name, block)) for block in blocks}
