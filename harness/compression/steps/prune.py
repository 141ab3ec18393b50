"""The step `prune`: structured pruning to a goal."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from harness.compression.pruning.allocation import (
    FLOOR,
    adaptive,
    allowed_widths,
    nearest_widths,
    ranked_ladder,
    scaled_ladder,
)
from harness.compression.pruning.dependency.graph import pruning_graph
from harness.compression.pruning.goals import check_names, cost_of, reach, widths_by_name
from harness.compression.pruning.importance import (
    CRITERIA,
    applicable_criteria,
    channel_scores,
    scoring_batches,
    silent_groups,
)
from harness.compression.pruning.prune import choose_channels, prune
from harness.compression.steps.base import Step
from harness.compression.steps.granules import in_granules
from harness.compression.steps.layer_widths import layer_widths
from harness.compression.steps.options import choice, names, option, share, whole
from harness.compression.steps.prune_notes import (
    tell_layers,
    tell_ratio,
    tell_silent,
    tell_sparse,
    tell_whole,
)
from harness.errors import ConfigError, TaskError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import nn

    from harness.compression.pruning.dependency.parts import PruningGraph, Widths
    from harness.compression.steps.base import Context, Decision, Work
    from harness.data.split import Targets

_ADVICE = "exclude fewer groups, or lower the granule, or the floor where scope=global."
_GOALS = ("params", "macs", "ratio")


@dataclass(frozen=True, slots=True)
class Prune(Step):
    """Removes whole channels, so that what is left is a smaller network of the same kind.

    Which ones is settled by an importance criterion, on the network as the step gets it; shares
    are of that network too. Channels of a group are those that can only go together: where a
    shuffle ties them in pairs, a pair counts as one.

    One ranking over all groups goes by scores of mean 1 in each group, and where parameters are
    the goal by layer-adaptive ones (see `adaptive`).
    """

    name: ClassVar[str] = "prune"
    about: ClassVar[str] = "removes the least important channels"

    criterion: str = option(choice(*CRITERIA), "l2", about="tells which channels of a group go")
    scope: str = option(
        choice("uniform", "global", "layers"), "global",
        about="the same share of every group, one ranking over all groups, or layers by name",
    )  # fmt: skip
    params: float | None = option(share, None, about="share of all parameters kept at most")
    macs: float | None = option(share, None, about="share of multiply-accumulates kept at most")
    ratio: float | None = option(share, None, about="share of channels removed")
    layers: tuple[tuple[str, int | float], ...] | None = option(
        layer_widths, None, about="channels kept by groups, or the share of them (scope=layers)"
    )
    granule: int | None = option(
        whole(1),
        None,
        about="steps of the channel counts, but for those in layers; the target's",
    )
    exclude: tuple[str, ...] | None = option(names, None, about="groups that stay whole")
    floor: float | None = option(
        share, None, about="share of each group's channels that stays (scope=global; 10 %)"
    )

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        goals = [name for name in _GOALS if getattr(self, name) is not None]
        if self.scope == "layers":
            misplaced = [*goals, *(n for n in ("exclude", "floor") if getattr(self, n) is not None)]
            if self.layers is None or misplaced:
                raise ConfigError(
                    "Step 'prune' with scope=layers needs layers and no goal, such as "
                    "'prune:scope=layers,layers=layer1.0.conv1=8+layer2.0.conv1=50%'. Received: "
                    f"{_listed(misplaced) if self.layers is not None else 'no layers'}."
                )
        elif len(goals) != 1 or self.layers is not None:
            given = [*goals, *(["layers"] if self.layers is not None else [])]
            raise ConfigError(
                f"Step 'prune' with scope={self.scope} needs exactly one of {', '.join(_GOALS)}, "
                f"such as 'prune:params=50%'; layers go with scope=layers. Received: "
                f"{_listed(given)}."
            )
        elif self.floor is not None and self.scope != "global":
            raise ConfigError(
                "Step 'prune' has a floor with scope=global alone. Received: scope=uniform. Leave "
                "the floor out, or choose scope=global."
            )

    def foresee(self, work: Work, context: Context) -> None:
        """Check that there are such groups, and that the goal is within reach.

        How far pruning reaches is a matter of widths, so that all channels may count alike.
        """
        graph = _graph(work.module, context)
        self._silent(work.module, graph)
        alike = {group.name: torch.ones(group.width) for group in graph.groups}
        widths = self._widths(work.module, graph, alike, self.granule or 1)
        choose_channels(graph, alike, widths)

    def decide(self, work: Work, context: Context) -> Decision:
        """Return `removed_channels`, `widths` and `dense_widths`, each by group, and `granule`.

        Raises:
            ConfigError: If the network has nothing to prune, the criterion says nothing of it or
                can't be computed, a name is no group's, or the goal is out of reach.
        """
        module = copy.deepcopy(work.module)  # gradients are left in it
        # Asked before cores are taken: a probe needs the machine to itself.
        granule = self.granule or (1 if self.scope == "layers" else context.granule())
        with context.shared():
            context.listener.phase("finding the prunable groups")
            graph = _graph(module, context)
            tell_whole(graph, context.listener)
            tell_silent(self.criterion, self._silent(module, graph), context.listener)
            context.listener.phase(f"scoring channels by {self.criterion}")
            scores = self._scores(module, graph, context)

            def choose(step: int) -> Widths:
                return self._widths(module, graph, scores, step)

            if self.granule is None:
                widths, granule = in_granules(granule, context.listener, choose)
            else:
                widths = choose(granule)
        dense = graph.dense_widths()
        if widths == dense:
            context.listener.note("nothing is pruned: these options leave every group as it is")
        else:
            tell_sparse(work.sparse, context.listener)
            if self.ratio is not None:
                tell_ratio(self.ratio, widths, dense, self.exclude or (), context.listener)
        tell_layers(dict(self.layers or ()), widths, dense, context.listener)
        history = choose_channels(graph, scores, widths)
        return {
            "removed_channels": history, "widths": widths, "dense_widths": dense,
            "granule": granule,
        }  # fmt: skip

    def apply(self, work: Work, decision: Decision, context: Context) -> Work:
        """Return the network without the channels that `decision` removes.

        Raises:
            ConfigError: If the network doesn't have them.
            TaskError: If the result doesn't run.
        """
        with context.shared():
            graph = _graph(work.module, context)
            smaller = prune(work.module, graph, context.example, decision["removed_channels"])
        return replace(work, module=smaller)

    def _silent(self, module: nn.Module, graph: PruningGraph) -> tuple[str, ...]:
        """Return the groups that the criterion says nothing of; not all, or that is refused."""
        silent = silent_groups(module, graph, self.criterion)
        if len(silent) == len(graph.groups):
            raise ConfigError(
                f"Step 'prune' needs a criterion that says something of the network's groups. "
                f"Received: {self.criterion!r}, which says nothing of any. Choose one of: "
                f"{', '.join(applicable_criteria(module, graph))}."
            )
        return silent

    def _scores(
        self, module: nn.Module, graph: PruningGraph, context: Context
    ) -> dict[str, torch.Tensor]:
        loss = context.task.objective.anew().loss
        try:
            return channel_scores(
                module, graph, _batches(context), loss, self.criterion, context.seed
            )
        except TaskError as exc:
            raise ConfigError(f"Step 'prune': {exc}") from exc

    def _widths(
        self,
        module: nn.Module,
        graph: PruningGraph,
        scores: Mapping[str, torch.Tensor],
        granule: int,
    ) -> Widths:
        """Return how many channels each group keeps."""
        if self.layers is not None:
            return widths_by_name(graph, granule, dict(self.layers))
        fixed, everywhere = self.exclude or (), self.scope == "uniform"
        check_names(graph, fixed)
        floor = 0.0 if everywhere else self.floor or FLOOR
        allowed = allowed_widths(graph, granule, fixed, floor)
        if self.ratio is not None and everywhere:
            return nearest_widths(allowed, dict.fromkeys(allowed, 1 - self.ratio))
        goals = {"params": self.params, "macs": self.macs}
        kind, kept = next(
            ((kind, kept) for kind, kept in goals.items() if kept is not None),
            ("channels", 1 - (self.ratio or 0.0)),
        )
        if everywhere:
            ladder = scaled_ladder(allowed)
        else:
            ladder = ranked_ladder(allowed, adaptive(scores) if kind == "params" else scores)
        change = "Give a smaller ratio" if kind == "channels" else "Give a larger share"
        cost = cost_of(kind, module, graph, fixed)
        return reach(ladder, kind, kept, cost, f"{change}, {_ADVICE}")


def _graph(module: nn.Module, context: Context) -> PruningGraph:
    try:
        return pruning_graph(module, context.example)
    except TaskError as exc:
        raise ConfigError(
            f"Step 'prune' needs channels that can go. {exc} Leave the step out, or take one that "
            "removes no channels, such as sparsify."
        ) from exc


def _batches(context: Context) -> Iterator[tuple[torch.Tensor, Targets]]:
    """Yield what criteria see; a waiting timing gets its turn between batches."""
    for batch in scoring_batches(context.task.data.train, context.seed):
        yield batch
        context.breathe()


def _listed(given: Iterable[str]) -> str:
    return ", ".join(given) or "none"
