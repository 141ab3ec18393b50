"""The options of a search, the same from Python, the command line and a task file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from harness.errors import ConfigError
from harness.target import Target
from harness.tasks.base import Task
from harness_search.progress import Progress


class SearchOptions(TypedDict, total=False):
    """Options of `harness.search` and `harness.plan`.

    `harness search` has them, too, but for `imitation` and `progress`. Times and sizes may be given
    as there (`"3min"`, `"2MB"`) or as numbers of seconds and bytes, losses and shares as there
    (`"1pt"`, `"30%"`) or as numbers; a budget is always text. What is left out has the command
    line's default.

    Attributes:
        task: Name of a shipped task, a task file, or a `Task`; instead of model and data.
        target: Where to time; a name of `harness targets`, or a `Target`. Default `"cpu"`.
        budget: `"10ms"`, `"50%"` of the dense model, `"80Minstr"` on an emulated target, or
            several: `"30%,50%"`. Needed.
        weights: File with trained weights for a model given as text.
        trained: Whether the network is trained already, so that it is taken as it is.
        name: Of the task, in the names of studies.
        loss: Name or function; see `harness.tasks.objective.make_objective`.
        metric: Name or function, higher is better.
        imitation: A student's distance to its teacher: a function of both outputs.
        augment: `"flip"`, `"shift"`, `"cutout"`, joined by `+`; for images.
        recipe: Training settings over the default ones; see `harness.tasks.recipe.Recipe`.
        train_fraction: Share of the training split that candidates are trained on, 0 to 1.
        coreset: How that share is chosen: `"random"`, `"k-center"` or `"herding"`.
        trials: Trials in all, earlier sessions of the study too.
        time: Wall time in all, seconds or text.
        seed: Of sampler, training and timing order.
        study: Name of the study.
        statistic: `"p50"` or `"p90"`.
        max_drop: Take the fastest network that loses at most this much of the metric.
        max_size: Limit of the file, bytes or text.
        layers: Names of the only groups to prune.
        exclude: Names of groups to leave whole.
        blocks: Names of the only residual blocks that may be left out; `"none"` for none.
        precision: What exported files may compute in: `"fp32"`, `"fp16"`, `"int8"`,
            `"int8-dynamic"`. Default: those that the target may gain from.
        sensitivity: A table of `harness sensitivity`: the second trial is what it suggests.
        threads: Threads of the runtime.
        settings: Target options such as `"granule=8"`.
        results: The results folder.
        remeasure: Resume on a changed machine: time everything again.
        progress: Told what is going on; silent where absent.
    """

    task: str | Path | Task | None
    target: str | Target | None
    budget: str | None
    weights: str | Path | None
    trained: bool
    name: str | None
    loss: str | Callable[[Any, Any], Any] | None
    metric: str | Callable[[Any, Any], Any] | None
    imitation: Callable[[Any, Any], Any] | None
    augment: str | None
    recipe: Mapping[str, Any] | Sequence[str]
    train_fraction: float | str | None
    coreset: str | None
    trials: int | str | None
    time: float | str | None
    seed: int | str
    study: str | None
    statistic: str | None
    max_drop: float | str | None
    max_size: int | str | None
    layers: str | Sequence[str]
    exclude: str | Sequence[str]
    blocks: str | Sequence[str] | None
    precision: str | Sequence[str]
    sensitivity: str | Path | None
    threads: int | str | None
    settings: Sequence[str]
    results: str | Path
    remeasure: bool
    progress: Progress | None


_NUMBER = ((int, float, str), "a number, or text with a unit")
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "task": ((str, Path, Task), "a name, a task file or a Task"),
    "target": ((str, Target), "a name or a Target"),
    "weights": ((str, Path), "a path"),
    "trained": ((bool,), "True or False"),
    "loss": ((str, Callable), "a name or a function"),  # type: ignore[dict-item]
    "metric": ((str, Callable), "a name or a function"),  # type: ignore[dict-item]
    "imitation": ((Callable,), "a function"),  # type: ignore[dict-item]
    "recipe": ((Mapping, list, tuple), "a mapping, or a list of 'key=value'"),
    "train_fraction": _NUMBER,
    "trials": _NUMBER,
    "time": _NUMBER,
    "seed": _NUMBER,
    "max_drop": _NUMBER,
    "max_size": _NUMBER,
    "threads": _NUMBER,
    "layers": ((str, list, tuple), "names"),
    "exclude": ((str, list, tuple), "names"),
    "blocks": ((str, list, tuple), "names"),
    "precision": ((str, list, tuple), "names"),
    "sensitivity": ((str, Path), "a path"),
    "settings": ((list, tuple), "a list of 'key=value'"),
    "results": ((str, Path), "a path"),
    "remeasure": ((bool,), "True or False"),
    "progress": ((Progress,), "a harness_search.progress.Progress"),
}
"""What each option may be; text where it isn't named."""


def check_names(options: Mapping[str, Any], known: Collection[str]) -> None:
    """Check that all options are known.

    Raises:
        ConfigError: If one isn't, with the nearest that is.
    """
    unknown = min(set(options) - set(known), default=None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"Unknown option {unknown!r}. Expected some of: {', '.join(known)}.{hint}"
        )


def _none_named(key: str, value: Any) -> bool:
    return key == "blocks" and isinstance(value, (list, tuple))


def check_options(options: SearchOptions) -> dict[str, Any]:
    """Check names and kinds of options; return those that are given.

    Raises:
        ConfigError: If an option is unknown, or of the wrong kind.
    """
    check_names(options, SearchOptions.__annotations__)
    given: dict[str, Any] = {
        # No names are as if nothing was given, but no block may go where none is named.
        k: v for k, v in options.items() if v not in (None, (), [], {}) or _none_named(k, v)
    }  # fmt: skip
    for key, value in given.items():
        kinds, words = _KINDS.get(key, ((str,), "text"))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ConfigError(f"`{key}` must be {words}. Received: {value!r}.")
        if isinstance(value, (list, tuple)) and not all(isinstance(one, str) for one in value):
            raise ConfigError(f"`{key}` must be {words}, each a text. Received: {value!r}.")
    return given
