"""The search space: pruning ratios per group, depth, distillation, criterion, precision."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from harness.compression.pruning.allocation import allowed_widths
from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna

    from harness.compression.pruning.dependency.graph import PruningGraph
    from harness_search.settings import Settings

_RATIO = "ratio."


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Which widths each group may take, and the distributions that the sampler draws from.

    Attributes:
        dense: Channels per group in the dense model, in the network's order.
        allowed: Widths per group, ascending, the dense one last; one alone where it is fixed.
        criteria: Importance criteria that say something of this network; at least one.
        uses_temperature: Whether distillation has a temperature.
        precisions: What an exported file may compute in; float32 first, where it is among them.
        blocks: Residual blocks that may be left out, alone or together, in the order in which they
            run.
    """

    dense: Mapping[str, int]
    allowed: Mapping[str, tuple[int, ...]]
    criteria: tuple[str, ...]
    uses_temperature: bool
    precisions: tuple[str, ...]
    blocks: tuple[str, ...] = ()

    def defaults(self) -> dict[str, Any]:
        """Return what the controls use: Hinton et al. (2015), and common practice."""
        return {
            "criterion": self.criteria[0],
            "temperature": 4.0 if self.uses_temperature else None,
            "kd_weight": 0.7,
            "precision": self.precisions[0],
            "depth": 0,
        }

    def floor(self) -> dict[str, int]:
        """Return the narrowest network of the space: one granule everywhere."""
        return {name: widths[0] for name, widths in self.allowed.items()}

    def ratios(self, widths: Mapping[str, int]) -> dict[str, float]:
        """Return the pruning ratios that widths amount to: 0 keeps all."""
        return {name: 1 - widths[name] / dense for name, dense in self.dense.items()}

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return what the sampler draws from, by parameter name."""
        ratios: dict[str, BaseDistribution] = {
            _RATIO + name: FloatDistribution(0.0, 1 - widths[0] / self.dense[name])
            for name, widths in self.allowed.items()
            if len(widths) > 1
        }
        softening: dict[str, BaseDistribution] = (
            {"temperature": FloatDistribution(1.0, 16.0, log=True)} if self.uses_temperature else {}
        )
        precision: dict[str, BaseDistribution] = (
            {"precision": CategoricalDistribution(self.precisions)}
            if len(self.precisions) > 1
            else {}
        )
        depth: dict[str, BaseDistribution] = (
            {"depth": IntDistribution(0, len(self.blocks))} if self.blocks else {}
        )
        return {
            **ratios,
            **softening,
            **precision,
            **depth,
            "kd_weight": FloatDistribution(0.0, 1.0),
            "criterion": CategoricalDistribution(self.criteria),
        }

    def digest(self) -> str:
        """Return a hash of all that may be suggested."""
        drawn = {name: repr(value) for name, value in self.distributions().items()}
        allowed = {name: list(widths) for name, widths in self.allowed.items()}
        text = json.dumps([drawn, allowed, list(self.blocks)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draw one value per parameter from a trial's sampler."""
        params = {**self.defaults(), "temperature": None}
        for name, drawn in self.distributions().items():
            if isinstance(drawn, FloatDistribution):
                params[name] = trial.suggest_float(name, drawn.low, drawn.high, log=drawn.log)
            elif isinstance(drawn, IntDistribution):
                params[name] = trial.suggest_int(name, drawn.low, drawn.high)
            elif isinstance(drawn, CategoricalDistribution):
                params[name] = trial.suggest_categorical(name, drawn.choices)
        return params

    def densities(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Return the share of channels that suggested parameters keep, per group."""
        return {name: 1 - params.get(_RATIO + name, 0.0) for name in self.dense}

    def params(self, candidate: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that would suggest a candidate; for trials the sampler didn't.

        Of groups that went with their block no ratio is known: they get the others' mean.
        """
        ratios = self.ratios(candidate["widths"])
        there = [ratios[name] for name, width in candidate["widths"].items() if width]
        mean = sum(there) / len(there)
        ratios = {n: r if candidate["widths"][n] else mean for n, r in ratios.items()}
        known = {**candidate, "depth": len(candidate["blocks"])}
        return {
            name: ratios[name.removeprefix(_RATIO)] if name.startswith(_RATIO) else known[name]
            for name in self.distributions()
        }


def search_space(
    graph: PruningGraph,
    granule: int,
    settings: Settings,
    criteria: tuple[str, ...],
    uses_temperature: bool,
) -> SearchSpace:
    """Return the space of a network.

    Args:
        graph: Its prunable groups.
        granule: Steps of the channel counts.
        settings: `layers` and `exclude` fix groups at their dense width; `precisions`.
        criteria: Importance criteria that say something of this network.
        uses_temperature: Whether distillation has a temperature.

    Raises:
        ConfigError: If a named layer is no prunable group, or nothing is left to prune.
    """
    dense = graph.dense_widths()
    for name in (*settings.layers, *settings.exclude):
        if name not in dense:
            near = difflib.get_close_matches(name, dense, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"Unknown layer {name!r}. Prunable groups: {', '.join(dense)}.{hint}")
    fixed = {
        name
        for name in dense
        if name in settings.exclude or (settings.layers and name not in settings.layers)
    }
    allowed = allowed_widths(graph, granule, fixed)
    if all(len(widths) == 1 for widths in allowed.values()):
        raise ConfigError(
            "Nothing is left to prune: every group is excluded or no wider than the target's "
            f"granule of {granule} channels. Widen `--layers`, or lower it with `--set granule=N`."
        )
    return SearchSpace(dense, allowed, criteria, uses_temperature, settings.precisions)
