"""A compression, from Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from harness.api.request import read_work_request
from harness.compression.steps import parse_step
from harness.compression.steps.base import Step
from harness.errors import ConfigError
from harness.models.asked import POSITIONAL, asked_as
from harness_search.compress import CompressSettings
from harness_search.compress import compress as _compress
from harness_search.pipeline import check_order
from harness_search.progress import Progress
from harness_search.rebuild import rebuild as _rebuild
from harness_search.settings import check_study_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from harness.api.options import SearchOptions
    from harness_results.compression_report import Report


@dataclass(frozen=True, slots=True)
class Compressed:
    """How a compression ended.

    Attributes:
        folder: Where everything is: `model.onnx`, `weights.safetensors`, `report.json`, `table.md`.
        report: What it did, before and after.
    """

    folder: Path
    report: Report


def compress(
    model: str | nn.Module | None = None,
    data: Any = None,
    *,
    steps: Sequence[str | Step],
    run: str | None = None,
    **options: Unpack[SearchOptions],
) -> Compressed:
    """Apply compression steps to a trained network, and measure it before and after.

    An interrupted compression goes on where it stopped; a finished one is read from its report.

    Args:
        model: As for `harness.search`.
        data: As for `harness.search`.
        steps: In order; texts as `--step` takes, or steps.
        run: Name of the compression's folder; None for one made from the rest.
        **options: Those of `SearchOptions` that say nothing of searching, and `remeasure`: time
            a finished compression's files again, and read nothing else anew.

    Raises:
        HarnessError: See `harness.errors`; a `ConfigError` for what the caller can mend.
    """
    progress = options.get("progress") or Progress()
    chosen = _steps(steps)
    check_order(chosen)
    if run is not None:
        check_study_name(run, "--run")
    again = options.pop("remeasure", False)
    if not isinstance(again, bool):
        raise ConfigError(f"`remeasure` must be True or False. Received: {again!r}.")
    with asked_as(POSITIONAL):
        settings, task = read_work_request(model, data, options, "compress").load(progress)
    asked = CompressSettings(
        settings.target, chosen, settings.seed, run, settings.results, remeasure=again
    )
    folder, report = _compress(asked, task, progress)
    return Compressed(folder.path, report)


def rebuild(
    folder: str | Path,
    model: str | nn.Module | None = None,
    data: Any = None,
    **options: Unpack[SearchOptions],
) -> nn.Module:
    """Return the network of a finished compression in torch, to train or to export it yourself.

    Args:
        folder: Of the compression: `Compressed.folder`.
        model: As for `compress`, where it was given as Python objects; None to make the task from
            the report.
        data: As `model`.
        **options: With model and data what was given to `compress` of them.

    Returns:
        It, float32, in evaluation mode; without what only the file computes on top.

    Raises:
        ConfigError: If the compression isn't finished, or its network can't be rebuilt.
    """
    task = None
    if model is not None or data is not None or options.get("task") is not None:
        progress = options.get("progress") or Progress()
        with asked_as(POSITIONAL):
            _, task = read_work_request(model, data, options, "compress").load(progress)
    elif options:
        raise ConfigError(
            f"`{min(options)}` goes with a model and data. Received neither: the task is made from "
            "the report. Leave it out."
        )
    return _rebuild(Path(folder), task)


def _steps(given: Any) -> tuple[Step, ...]:
    if isinstance(given, (str, Step)):
        given = [given]
    if not isinstance(given, (list, tuple)):
        raise ConfigError(
            f"`steps` must be a list of texts and Steps, in order. Received: {given!r}."
        )
    return tuple(_step(one) for one in given)


def _step(given: Any) -> Step:
    if isinstance(given, Step):
        return given
    if not isinstance(given, str):
        raise ConfigError(f"A step must be a text or a Step. Received: {given!r}.")
    return parse_step(given)
