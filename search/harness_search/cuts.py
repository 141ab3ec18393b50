"""What a sensitivity analysis removes, one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.compression.depth.blocks import asked_blocks, drop_blocks, residual_blocks
from harness.compression.pruning.allocation import nearest_widths
from harness.compression.pruning.prune import choose_channels, prune

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import nn

    from harness_search.space import SearchSpace
    from harness_search.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Cut:
    """Something to remove from the dense network, alone.

    Attributes:
        kind: `"group"`: some channels of a group; `"block"`: a whole residual block.
        name: The group's or the block's.
        width: Channels of the group in the dense network; None for a block.
        kept: Channels that stay; None for a block.
        middle: Whether this is the middle one of those of its name: timed first.
    """

    kind: str
    name: str
    width: int | None
    kept: int | None
    middle: bool

    @property
    def key(self) -> tuple[str, str, int | None]:
        """What tells cuts of one network apart, as in the table's rows."""
        return self.kind, self.name, self.kept

    @property
    def ratio(self) -> float:
        """Share of channels that go; 1 for a block."""
        return 1.0 if self.width is None or self.kept is None else 1 - self.kept / self.width

    def describe(self) -> str:
        """Return the cut in words."""
        if self.kind == "block":
            return f"{self.name}: the whole block"
        return f"{self.name}: {self.kept} of {self.width} channels"

    def make(self, bench: Workbench, criterion: str) -> nn.Module:
        """Return the trained dense network without this; nothing is trained afterwards.

        Args:
            bench: The session; its network is left as it is.
            criterion: Chooses the channels.

        Raises:
            TaskError: If the result doesn't run.
        """
        if self.kept is None:
            return drop_blocks(bench.network, [self.name])
        scores = bench.scores(criterion)
        widths = {**bench.space.dense, self.name: self.kept}
        history = choose_channels(bench.graph, scores, widths)
        with bench.lock.shared():
            return prune(bench.network, bench.graph, bench.example[:1], history)


def group_cuts(space: SearchSpace, ratios: Sequence[float]) -> list[Cut]:
    """Return each group's cuts, in the network's order, the fewest channels removed first.

    A ratio goes to the nearest width that the target's granule allows, the wider one of two as
    near; what falls together is one cut, and what removes nothing is none.

    Args:
        space: Allowed widths.
        ratios: Shares of channels to remove, above 0 and below 1.
    """
    cuts = []
    for name, allowed in space.allowed.items():
        dense = space.dense[name]
        nearest = {nearest_widths({name: allowed}, {name: 1 - r})[name] for r in ratios}
        kept = sorted(nearest - {dense}, reverse=True)
        cuts += [Cut("group", name, dense, k, i == len(kept) // 2) for i, k in enumerate(kept)]
    return cuts


def block_cuts(bench: Workbench, blocks: Collection[str] | None) -> list[Cut]:
    """Return residual blocks as cuts, each alone, in the order in which they run.

    There are none where only some groups were asked for (`layers`), unless they are named.

    Args:
        bench: The session.
        blocks: Those asked for; None for all that there are.

    Raises:
        ConfigError: If a block is named that there is not.
        TaskError: If the network can't be run.
    """
    if blocks == () or (bench.settings.layers and blocks is None):
        return []
    with bench.lock.shared():
        found = asked_blocks(residual_blocks(bench.network, bench.example[:1]), blocks)
    return [Cut("block", name, None, None, middle=True) for name in found]
