"""A sensitivity analysis, from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from harness.api.options import check_names
from harness.api.request import read_request
from harness.compression.pruning.importance import CRITERIA
from harness.compression.steps.options import share
from harness.errors import ConfigError
from harness.units import parse_count
from harness_search.analysis import RATIOS, SAMPLES, Analysis
from harness_search.progress import Progress
from harness_search.sensitivity import sensitivity as _sensitivity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from harness.api.options import SearchOptions
    from harness.target import Target
    from harness.tasks.base import Task
    from harness_search.analysis import SensitivityResult


class SensitivityOptions(TypedDict, total=False):
    """Options of `harness.sensitivity`.

    Those of model, data and target are `SearchOptions`'.

    Attributes:
        task: As in `SearchOptions`, like all up to `progress`.
        ratios: Shares of channels to remove from each group: `"25%,50%,75%"`, or numbers.
        criterion: Importance criterion that chooses the channels. Default `"l2"`.
        samples: Validation samples at most. Default 2000.
        timing: Whether to time the pruned networks on the target. Default True.
    """

    task: str | Path | Task | None
    target: str | Target | None
    weights: str | Path | None
    trained: bool
    name: str | None
    loss: str | Callable[[Any, Any], Any] | None
    metric: str | Callable[[Any, Any], Any] | None
    imitation: Callable[[Any, Any], Any] | None
    augment: str | None
    recipe: Mapping[str, Any] | Sequence[str]
    seed: int | str
    study: str | None
    layers: str | Sequence[str]
    exclude: str | Sequence[str]
    threads: int | str | None
    settings: Sequence[str]
    results: str | Path
    remeasure: bool
    progress: Progress | None
    ratios: str | Sequence[float | str] | None
    criterion: str | None
    samples: int | str | None
    timing: bool


def sensitivity(
    model: str | nn.Module | None = None, data: Any = None, **options: Unpack[SensitivityOptions]
) -> SensitivityResult:
    """Prune group by group, each alone, and tell what it costs and saves: `harness sensitivity`.

    Args:
        model: As for `harness.search`.
        data: As for `harness.search`.
        **options: See `SensitivityOptions`.

    Returns:
        The result; `result.rows` are the table's rows.

    Raises:
        HarnessError: See `harness.errors`; a `ConfigError` for what the caller can mend.
    """
    given: dict[str, Any] = dict(options)
    check_names(given, SensitivityOptions.__annotations__)
    analysis = Analysis(
        _ratios(given.pop("ratios", None)), _criterion(given.pop("criterion", None)),
        _samples(given.pop("samples", None)), _timing(given.pop("timing", True)),
        bool(given.get("remeasure", False)),
    )  # fmt: skip
    progress = given.get("progress") or Progress()
    # Nothing is held against a budget here; whatever a task file says of one is overridden.
    asked = cast("SearchOptions", {**given, "budget": "100%", "statistic": "p50"})
    settings, task = read_request(model, data, asked).load(progress)
    return _sensitivity(settings, task, analysis, progress)


def _ratios(given: Any) -> tuple[float, ...]:
    """Return the shares of channels to remove, ascending, each once."""
    if given is None:
        return RATIOS
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, (list, tuple)) or not parts:
        raise ConfigError(
            f"`--ratios` must be a list of shares such as '25%,50%,75%'. Received: {given!r}."
        )
    try:
        return tuple(sorted({share(part) for part in parts}))
    except ValueError as exc:
        raise ConfigError(
            f"`--ratios`: each must be {exc}, since a group without channels computes nothing. "
            f"Received: {given!r}."
        ) from exc


def _criterion(given: Any) -> str:
    """Return the importance criterion; whether it says something of the network comes later."""
    chosen = CRITERIA[0] if given is None else given
    known = tuple(one for one in CRITERIA if one != "random")  # chance says nothing of a network
    if chosen not in known:
        raise ConfigError(f"`--criterion` must be one of {', '.join(known)}. Received: {given!r}.")
    return str(chosen)


def _samples(given: Any) -> int:
    return SAMPLES if given is None else parse_count(str(given), "--samples")


def _timing(given: Any) -> bool:
    if not isinstance(given, bool):
        raise ConfigError(f"`timing` must be True or False. Received: {given!r}.")
    return given
