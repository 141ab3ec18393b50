"""In which order residual blocks are left out, and how many a budget wants."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING

from harness.atomic import write_atomic
from harness.compression.depth.blocks import residual_blocks
from harness.compression.depth.choice import Judge, order_blocks
from harness.compression.pruning.prune import choose_channels
from harness.compression.steps.base import Context
from harness.errors import TaskError
from harness_search.ladder import highest_within, ranked_ladder

if TYPE_CHECKING:
    from harness_search.space import SearchSpace
    from harness_search.workbench import Workbench

FILE = "blocks.json"
_SAMPLES = 512
"""A search has no more time for it than that; the same ones for all, so that losses compare."""
_DEPTHS = 8
"""The most numbers of blocks that are judged for a budget."""


def leaving_order(bench: Workbench) -> tuple[str, ...]:
    """Return the space's blocks in the order in which they are left out of the trained network.

    First comes that for which the loss rises least per multiply-accumulate saved, on training
    samples and with batch norms calibrated anew; see `order_blocks`. Where that can't be computed
    the last one goes first. It is judged once in a study, and then read from its folder.
    """
    if not bench.order:
        path = bench.folder.path / FILE
        found = _read(bench) or _judged(bench)
        write_atomic(path, json.dumps({"order": found}).encode() + b"\n")
        bench.order = tuple(found)
    return bench.order


def _read(bench: Workbench) -> list[str] | None:
    try:
        found = json.loads((bench.folder.path / FILE).read_bytes())["order"]
        return found if sorted(found) == sorted(bench.space.blocks) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a study's first session, or a damaged file: the judge says the same again


def _judged(bench: Workbench) -> list[str]:
    blocks = bench.space.blocks
    if len(blocks) < 2:
        return list(blocks)
    context = _context(bench)
    bench.progress.phase("judging the network without some of its blocks")
    try:
        with bench.lock.shared():
            found = residual_blocks(bench.network, bench.example[:1])
            able = [block for block in found if block.name in blocks]
            order = order_blocks(Judge(bench.network, context, "macs", _SAMPLES), able, context)
    except TaskError as exc:
        bench.progress.note(f"the last block is left out first, since judging them fails: {exc}")
        order = []
    # Trained, a block may look like none: where its weights became so small that it does nothing.
    return [*order, *(name for name in reversed(blocks) if name not in order)]


def best_depth(bench: Workbench, space: SearchSpace, share: float) -> int:
    """Return how many blocks to leave out, at least one, by the loss without any training.

    For each number (eight at most, evenly spread) the channels that global pruning keeps are fitted
    to the budget by the latency model of the first precision; batch norms are calibrated anew, and
    the least loss on training samples wins. All blocks where none of these networks fits.

    Args:
        bench: The session; its network is trained.
        space: Under the budget.
        share: The budget as a share of the dense network's latency.
    """
    precision, criterion = space.precisions[0], space.criteria[0]
    order, losses = leaving_order(bench), dict[int, float]()
    if len(order) == 1:
        return 1
    judge = Judge(bench.network, _context(bench), "macs", _SAMPLES)
    bench.progress.phase("judging how many blocks to leave out")
    for count in depths(len(order)):
        bench.progress.advance(count, len(order))
        bench.lock.breathe()
        try:
            base = bench.base(order[:count])
            scores = bench.scores(criterion, base.blocks)
            ladder = ranked_ladder(base.space, scores)
            shares = [bench.predict(base, widths, precision) for widths in ladder]
            rung = highest_within(shares, share, 0, len(ladder) - 1)
            if rung is None:
                continue
            history = choose_channels(base.graph, scores, ladder[rung])
            with bench.lock.shared():
                network = base.pruned(bench.network, bench.example[:1], history)
                losses[count] = judge.loss_of(network, base.blocks)
        except TaskError as exc:
            bench.progress.note(f"{count} blocks fewer are not judged: {exc}")
    return min(losses, key=lambda count: losses[count], default=len(order))


def depths(blocks: int) -> list[int]:
    """Return the numbers of blocks that are judged: from one to all, eight at most."""
    steps = min(_DEPTHS, blocks)
    return [math.ceil((i + 1) * blocks / steps) for i in range(steps)]


def judging_s(bench: Workbench) -> float:
    """Return about how many seconds judging takes in a study with one budget, by doing it once.

    Every block is judged alone, and about once more; then come the numbers of blocks.
    """
    blocks = len(bench.space.blocks)
    if not blocks:
        return 0.0
    with bench.lock.shared():
        judge = Judge(bench.network, _context(bench), "macs", _SAMPLES)
        started = time.monotonic()
        judge.loss([])
    ordering = 2 * blocks if blocks > 1 else 0
    return (ordering + len(depths(blocks))) * (time.monotonic() - started)


def _context(bench: Workbench) -> Context:
    return Context(
        bench.task, bench.network, bench.seed("depth"), listener=bench.progress,
        shared=bench.lock.shared, breathe=bench.lock.breathe,
    )  # fmt: skip
