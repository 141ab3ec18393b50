"""Scores per channel by any criterion: the one entry point."""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from harness.compression.pruning.importance.activations import mean_activations
from harness.compression.pruning.importance.weights import filter_distances, weight_scores
from harness.errors import HarnessError, TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import nn

    from harness.compression.pruning.dependency.parts import PruningGraph
    from harness.data.split import Targets

CRITERIA = ("l2", "l1", "bn_scale", "taylor", "activation", "fpgm", "random")
"""Squared and absolute weight magnitude (Li et al., 2017), batch-norm scale (Liu et al., 2017,
"network slimming"), first-order Taylor expansion of the loss (Molchanov et al., 2019), mean
absolute activation (Molchanov et al., 2017), distance to the other filters (He et al., 2019,
"FPGM"), and chance, which any other has to beat."""


def channel_scores(
    model: nn.Module,
    graph: PruningGraph,
    batches: Iterable[tuple[torch.Tensor, Targets]],
    loss: Callable[[Any, Any], torch.Tensor],
    criterion: str,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Return a score per channel of every group, float `[width]`; each group's mean is 1.

    A group that the criterion says nothing of has ones. Which parts of a channel count is said in
    `weights` and in `activations`.

    Args:
        model: The trained dense network, in evaluation mode; left as it was.
        graph: Its prunable groups.
        batches: Training samples and their targets, for criteria that need gradients or
            activations.
        loss: From the network's outputs and targets to a scalar.
        criterion: One of `CRITERIA`.
        seed: Of the criterion `random`.

    Raises:
        TaskError: If the network can't be run on the samples, or a score is not finite.
    """
    model.eval()
    with _told(criterion):
        found = _raw_scores(model, graph, batches, loss, criterion, seed)
    scores = {group.name: found.get(group.name, torch.ones(group.width)) for group in graph.groups}
    for name, values in scores.items():
        if not torch.isfinite(values).all():
            raise TaskError(
                f"The criterion {criterion!r} must give finite scores. Received others for "
                f"{name!r}: check the network's weights and its loss on training samples."
            )
    return {name: values / values.mean().clamp_min(1e-12) for name, values in scores.items()}


def _raw_scores(
    model: nn.Module,
    graph: PruningGraph,
    batches: Iterable[tuple[torch.Tensor, Targets]],
    loss: Callable[[Any, Any], torch.Tensor],
    criterion: str,
    seed: int,
) -> Mapping[str, torch.Tensor]:
    """Return scores as the criterion has them, without the groups that it says nothing of."""
    if criterion == "activation":
        return mean_activations(model, graph, batches)
    if criterion == "random":
        return {group.name: _drawn(group.name, group.width, seed) for group in graph.groups}
    if criterion == "fpgm":
        found = {group.name: filter_distances(model, group) for group in graph.groups}
    elif criterion == "taylor":
        with _gradients(model, batches, loss):
            found = {group.name: weight_scores(model, group, criterion) for group in graph.groups}
    else:
        found = {group.name: weight_scores(model, group, criterion) for group in graph.groups}
    return {name: values for name, values in found.items() if values is not None}


def _drawn(name: str, width: int, seed: int) -> torch.Tensor:
    """Return scores from 0 to 1, for a group the same whichever others there are."""
    rng = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    return torch.rand(width, generator=rng)


@contextmanager
def _gradients(
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, Targets]],
    loss: Callable[[Any, Any], torch.Tensor],
) -> Iterator[None]:
    """Hold the loss's gradient over a few batches in the parameters, also in frozen ones."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        model.zero_grad(set_to_none=True)
        with torch.enable_grad():
            for inputs, targets in batches:
                loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        yield
    finally:
        model.zero_grad(set_to_none=True)
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextmanager
def _told(criterion: str) -> Iterator[None]:
    """Turn what a network or a loss raises on training samples into a `TaskError`."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as exc:  # the network's own code raises what it likes
        text = str(exc).strip().partition("\n")[0]
        raise TaskError(
            f"The criterion {criterion!r} runs the network on batches of training samples, and "
            f"that fails: {type(exc).__name__}: {text}. Choose one that reads weights alone, such "
            "as l2."
        ) from exc
