"""What a search was asked for: options and a task file together, checked before the work."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.options import check_options
from harness.api.target import chosen_target, target_settings
from harness.budget import check_budgets, parse_budgets
from harness.compression.quantisation.precision import WEIGHT_BYTES as PRECISIONS
from harness.errors import ConfigError
from harness.models.asked import asked
from harness.tasks import DEFAULT, check_task_name, shipped_task
from harness.tasks.recipe import Recipe
from harness.tasks.spec import TaskSpec, build_task, make_reduction
from harness.tasks.taskfile import is_task_file, read_task_file
from harness.units import (
    SHARES,
    parse_count,
    parse_drop,
    parse_share,
    parse_size_bytes,
    parse_wall_s,
)
from harness_backends.registry import open_backend
from harness_search.sensitivity_ladder import read_analysis
from harness_search.settings import DEFAULT_TIME_S, Settings, check_study_name

if TYPE_CHECKING:
    from harness.api.options import SearchOptions
    from harness.tasks.base import Reduction, Task
    from harness_search.progress import Progress


_SEARCHING = (
    "budget", "trials", "time", "study", "statistic", "max_drop", "max_size", "layers", "exclude",
    "blocks", "precision", "sensitivity", "remeasure",
)  # fmt: skip
"""Options that say how to search."""


@dataclass(frozen=True, slots=True)
class Request:
    """A search as asked for, checked as far as is possible without loading model and data.

    Attributes:
        settings: All but what depends on the task.
        make_task: Loads model and data.
        max_drop: In the unit of the task's metric, which is known once it is loaded.
        remeasure: Whether to time everything again.
    """

    settings: Settings
    make_task: Callable[[Progress], Task]
    max_drop: float | str | None
    remeasure: bool

    def load(self, progress: Progress) -> tuple[Settings, Task]:
        """Load model and data; return the task, and settings that are complete."""
        progress.phase("loading model and data")
        task = self.make_task(progress)
        drop = self.max_drop
        if isinstance(drop, str):
            drop = parse_drop(drop, task.objective.metric.name)
        elif drop is not None:
            drop = _above_zero(drop, "max_drop")
            if drop >= 1 and task.objective.metric.name in SHARES:
                raise ConfigError(
                    "`max_drop` of a metric in per cent is a share: 0.01 for one point. Received: "
                    f"{drop!r}."
                )
        return replace(self.settings, max_drop=drop), task


def read_request(model: Any, data: Any, options: SearchOptions) -> Request:
    """Check what was asked for.

    Args:
        model: As `TaskSpec.model`; None where the options name a task.
        data: As `TaskSpec.data`.
        options: All else; values of a task file stand in for what is absent.

    Raises:
        ConfigError: If an option is unknown, or a value doesn't fit.
    """
    given = check_options(options)
    task = given.get("task")
    if task is not None and (model is not None or data is not None):
        raise ConfigError(f"Give `--task`, or {asked()} and `--data`; not both.")
    if isinstance(data, Path):
        data = str(data)
    if task is not None and is_task_file(task):
        given = _over_file(Path(given.pop("task")), given)
        model, data = given.pop("model"), given.pop("data")
    if "budget" not in given:
        raise ConfigError(
            "A search needs a budget: `--budget 10ms`, or a share of the dense model such as "
            "`--budget 50%`; on an emulated target `--budget 80Minstr` or a share."
        )
    return Request(
        _settings(given), _task_maker(model, data, given), given.get("max_drop"),
        bool(given.get("remeasure", False)),
    )  # fmt: skip


def read_work_request(model: Any, data: Any, options: SearchOptions, command: str) -> Request:
    """Check what was asked of a command that takes a model, data and a target, but searches not.

    Args:
        model: As for `read_request`.
        data: As for `read_request`.
        options: Those of a search that aren't about searching.
        command: Its name, for messages.

    Raises:
        ConfigError: As `read_request`; also for an option of a search's alone.
    """
    for key in _SEARCHING:
        if options.get(key) not in (None, (), [], False):
            raise ConfigError(
                f"`{key}` is an option of a search, not of {command!r}. Leave it out."
            )
    if model is None and data is not None:
        raise ConfigError(
            f"`--data` needs a network beside it: `harness {command} MODEL --data ...`. "
            "Received no MODEL."
        )
    asked: SearchOptions = {**options, "budget": "100%", "trials": 1}
    return read_request(model, data, asked)


def _over_file(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a task file says with what was given in its place; tables and lists are merged.

    A coreset of the file's has no part in training on all samples.
    """
    held, given = read_task_file(path), dict(given)
    recipe = {
        **_recipe_values(held.pop("recipe", {}), f"{path}, [recipe]"),
        **_recipe_values(given.pop("recipe", {})),
    }
    settings = [
        text
        for one in (held, given)
        for text in target_settings(one.pop("threads", None), one.pop("settings", None))
    ]
    fraction = given.get("train_fraction")
    if fraction is not None and parse_share(str(fraction), "--train-fraction") == 1:
        held.pop("coreset", None)
    return {**held, **given, "recipe": recipe, "settings": settings}


def _settings(given: Mapping[str, Any]) -> Settings:
    if given.get("study") is not None:
        check_study_name(given["study"])
    trials, time = given.get("trials"), given.get("time")
    if time is None:
        time_s = None if trials is not None else DEFAULT_TIME_S
    else:
        time_s = parse_wall_s(time) if isinstance(time, str) else _above_zero(time, "time")
    size = given.get("max_size")
    if size is not None:
        size = parse_size_bytes(size) if isinstance(size, str) else _above_zero(size, "max_size")
    settings = Settings(
        target=chosen_target(
            given.get("target", "cpu"), given.get("threads"), given.get("settings")
        ),
        budgets=parse_budgets(str(given["budget"]), given.get("statistic")),
        trials=None if trials is None else parse_count(str(trials), "--trials"),
        time_s=time_s, study=given.get("study"),
        seed=parse_count(str(given.get("seed", 0)), "--seed", least=0),
        max_size_bytes=None if size is None else int(size),
        layers=_names(given.get("layers", ())), exclude=_names(given.get("exclude", ())),
        blocks=_blocks(given.get("blocks")),
        precisions=_precisions(given.get("precision", ())),
        sensitivity=read_analysis(given.get("sensitivity")),
        results=Path(given.get("results", "results")),
    )  # fmt: skip
    check_budgets(settings.budgets, settings.target)
    open_backend(settings.target)
    return settings


def _above_zero(value: float, option: str) -> float:
    """Return a number that was given as one; texts have units and parsers of their own."""
    if isinstance(value, bool) or not 0 < value < math.inf:
        raise ConfigError(f"`{option}` must be a number above zero. Received: {value!r}.")
    return float(value)


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    parts = names.split(",") if isinstance(names, str) else names
    return tuple(name.strip() for name in parts if name.strip())


def _blocks(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the blocks that may be left out; None for all that there are."""
    if names is None:
        return None
    given = _names(names)
    if (isinstance(names, str) and not given) or ("none" in given and len(given) > 1):
        raise ConfigError(
            "`--blocks` must name residual blocks, such as 'a,b', or be 'none' alone. Received: "
            f"{names!r}."
        )
    return () if given == ("none",) else given


def _precisions(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return precisions without repeats, in the order in which they are listed: float32 first."""
    given = _names(names)
    for name in given:
        if name not in PRECISIONS:
            near = difflib.get_close_matches(name, PRECISIONS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"`--precision` must be some of {', '.join(PRECISIONS)}, joined by commas. "
                f"Received: {name!r}.{hint}"
            )
    return tuple(name for name in PRECISIONS if name in given)


def _task_maker(model: Any, data: Any, given: Mapping[str, Any]) -> Callable[[Progress], Task]:
    """Return what loads the task, its own options checked already."""
    fraction = given.get("train_fraction")
    if fraction is not None:
        fraction = parse_share(str(fraction), "--train-fraction")
    reduction = make_reduction(fraction, given.get("coreset"))
    values = _recipe_values(given.get("recipe", {}))
    if model is None and data is None:
        _check_ready_made(given)
        return lambda progress: _ready_made(given.get("task", DEFAULT), values, reduction)
    if model is None or data is None:
        pair = (asked(), "`--data`")
        missing, there = pair if model is None else pair[::-1]
        raise ConfigError(f"{there} needs {missing} beside it: together they make a task.")
    weights = given.get("weights")
    spec = TaskSpec(
        model=model, data=data, weights=None if weights is None else Path(weights),
        trained=given.get("trained", False), name=given.get("name"), loss=given.get("loss"),
        metric=given.get("metric"), imitation=given.get("imitation"),
        augment=given.get("augment"), recipe=values, reduction=reduction,
        base=given.get("base", Path()),
    )  # fmt: skip
    return lambda progress: build_task(spec, progress.phase, progress.advance)


_OWN = ("weights", "trained", "name", "loss", "metric", "imitation", "augment")
"""Options that say something of a user's own model and data."""


def _check_ready_made(given: Mapping[str, Any]) -> None:
    for key in _OWN:
        if given.get(key):
            flag = key.replace("_", "-")
            raise ConfigError(f"`--{flag}` goes with {asked()} and `--data`, not with `--task`.")
    if isinstance(given.get("task", DEFAULT), str):
        check_task_name(given.get("task", DEFAULT))


def _ready_made(task: str | Task, values: Mapping[str, Any], reduction: Reduction) -> Task:
    made = shipped_task(task) if isinstance(task, str) else task
    recipe = made.recipe.with_values(values, "the recipe")
    asked = reduction if reduction.fraction < 1 else made.reduction
    return replace(made, recipe=recipe, reduction=asked)


def _recipe_values(
    given: Mapping[str, Any] | Sequence[str], source: str = "`--recipe`"
) -> dict[str, Any]:
    """Return recipe values as a mapping, from `key=value` texts or from one; keys are checked."""
    values = dict(given) if isinstance(given, Mapping) else _pairs(given)
    Recipe(1, 1, 2, 1.0, 1.0, 0.0).with_values(values, source)
    return values


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    values = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise ConfigError(f"`--recipe` must be KEY=VALUE. Received: {text!r}.")
        values[key] = value
    return values
