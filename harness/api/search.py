"""A search, from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from harness.api.options import SearchOptions, check_options
from harness.api.request import read_request
from harness_search import plan as planning
from harness_search import replay as replaying
from harness_search.engine import search as _search
from harness_search.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from harness_search.engine import SearchResult
    from harness_search.plan import Plan
    from harness_search.replay import Replay


def search(
    model: str | nn.Module | None = None, data: Any = None, **options: Unpack[SearchOptions]
) -> SearchResult:
    """Search for the most accurate network within a latency budget; see `harness search`.

    The initial weights of a network given as an `nn.Module` are part of the study: call
    `torch.manual_seed` before it is built, so that the next call resumes.

    Args:
        model: A network, or a text as `--model` takes: a shipped model's name,
            `pkg.module:factory`, `file.py:factory`, `onnx:FILE`, `timm:NAME`, `torchvision:NAME`.
        data: A text or table as `--data` takes, or a path; a `harness.data.split.Data`; or `(train,
            validation, test)`, each a data set of `(input, target)` items or a pair of arrays. One
            such alone is split.
        **options: See `SearchOptions`.

    Returns:
        The result; `result.budgets[0].winner` is the winner's record, None where there is none.

    Raises:
        HarnessError: See `harness.errors`; a `ConfigError` for what the caller can mend.
    """
    progress = options.get("progress") or Progress()
    request = read_request(model, data, options)
    settings, task = request.load(progress)
    return _search(settings, task, progress, request.remeasure)


def plan(
    model: str | nn.Module | None = None, data: Any = None, **options: Unpack[SearchOptions]
) -> Plan:
    """Tell what a search would do and cost, from short measurements: `harness search --dry-run`.

    Args:
        model: As for `search`.
        data: As for `search`.
        **options: See `SearchOptions`.

    Raises:
        HarnessError: As `search`.
    """
    progress = options.get("progress") or Progress()
    settings, task = read_request(model, data, options).load(progress)
    return planning.plan(settings, task, progress)


def replay(
    run_id: str,
    model: str | nn.Module | None = None,
    data: Any = None,
    **options: Unpack[SearchOptions],
) -> Replay:
    """Rebuild a recorded network, and compare its outputs with the file's: `harness replay`.

    Args:
        run_id: From a leaderboard or trials.csv.
        model: As for `search`, where it was given as Python objects; None to make the task from
            the record.
        data: As `model`.
        **options: `results`; and with model and data what was given to `search` of them.

    Raises:
        ConfigError: If there is no such record, its network can't be rebuilt, or an option is
            unknown.
    """
    check_options(options)
    task = None
    if model is not None or data is not None or options.get("task") is not None:
        asked: SearchOptions = {"budget": "100%", **options}
        _, task = read_request(model, data, asked).load(options.get("progress") or Progress())
    return replaying.replay(Path(options.get("results", "results")), run_id, task)
