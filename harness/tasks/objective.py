"""What a network is trained for and judged by: a loss, a metric, and how a student imitates."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from harness.errors import ConfigError, TaskError
from harness.importing import load_object, user_code
from harness.tasks.identity import identity_of
from harness.tasks.losses import (
    LOSSES,
    UserImitation,
    UserLoss,
    named_loss,
    softened,
    squared,
)
from harness.tasks.metrics import METRICS, Metric, user_metric
from harness.tasks.score import Change, Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.data.split import Data, Split

Tensors = torch.Tensor | tuple[torch.Tensor, ...]
"""What a network returns: one tensor `[N, ...]`, or several."""
Arrays = tuple["NDArray[np.floating[Any]]", ...]
"""The same as arrays, always in a tuple; also those of an exported file."""
LossFunction = Callable[[Any, Any], torch.Tensor]
"""From outputs and targets, as network and data give them, to a scalar tensor."""
Imitation = Callable[[Any, Any, float, tuple[torch.Tensor, ...]], torch.Tensor]
MetricFunction = Callable[[Any, Any], Any]
"""From the same, as tensors, to one number or one per sample; higher is better."""


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """A loss, a metric and a distance to a teacher.

    Attributes:
        loss: Mean over a batch.
        metric: How well predictions fit; higher is better.
        imitation: From student's outputs, teacher's outputs, temperature and the spread of each of
            the teacher's outputs to a scalar.
        uses_temperature: Whether `imitation` softens by the temperature.
        classifies: Whether the outputs are logits `[N, classes]`, so that the largest one counts.
        bfloat16: Whether training may round outputs to 8 bits of precision: not where they are
            values in a unit of their own, or where only the user knows what they are.
        description: What distinguishes it from others, for a study's identity.
    """

    loss: LossFunction
    metric: Metric
    imitation: Imitation
    uses_temperature: bool
    classifies: bool
    bfloat16: bool
    description: str

    def anew(self) -> Objective:
        """Return a copy whose loss and imitation are as they were given.

        A user's may be modules that remember what they have seen: each training has its own.
        """
        return replace(self, loss=_copied(self.loss), imitation=_copied(self.imitation))

    def score(self, outputs: Arrays, split: Split, trained: Arrays | None = None) -> Score:
        """Score outputs `[N, ...]` on a split.

        Args:
            outputs: What the metric judges: an exported file's.
            split: The samples.
            trained: What the loss judges, where the file computes something on top; else None.

        Raises:
            TaskError: If they are not finite, not one per sample, or the metric can't be computed.
        """
        n, targets = len(split), split.targets_of()
        for part in outputs:
            if len(part) != n or not np.isfinite(part).all():
                raise TaskError(
                    f"Expected finite outputs of {n} samples. Received shape {part.shape}, "
                    f"{np.isfinite(part).mean():.1%} of it finite."
                )
        # float64: a loss of tiny differences is to be the same whatever the batch was. A user's own
        # gets float32, as in training: it may hold tensors of that type.
        kind = np.float32 if isinstance(self.loss, UserLoss) else np.float64
        with torch.inference_mode():
            loss = float(self.anew().loss(one_or_all(_tensors(trained or outputs, kind)), targets))
        if not math.isfinite(loss):
            raise TaskError(f"The loss of {n} samples is {loss}: nothing can be learnt from it.")
        value, low, high = self.metric.judge(_tensors(outputs, np.float64), targets)
        return Score(value, low, high, loss, n)

    def change(self, before: Arrays, after: Arrays, split: Split) -> Change:
        """Return by how much the metric rises from one file's outputs to another's on a split.

        Args:
            before: Outputs `[N, ...]` of one.
            after: Outputs `[N, ...]` of the other.
            split: The samples, `N` of them.

        Raises:
            TaskError: If the metric can't be computed.
        """
        one, other = (_tensors(outputs, np.float64) for outputs in (before, after))
        return Change(*self.metric.change(one, other, split.targets_of()))


def _tensors(outputs: Arrays, kind: type[np.floating[Any]]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.asarray(part, kind)) for part in outputs)


def as_tuple(outputs: Tensors) -> tuple[torch.Tensor, ...]:
    """Return a network's outputs as a tuple, also where there is one."""
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def one_or_all(outputs: tuple[torch.Tensor, ...]) -> Tensors:
    """Return a single output as itself: what a network would have returned."""
    return outputs[0] if len(outputs) == 1 else outputs


def make_objective(
    data: Data,
    loss: str | LossFunction | None = None,
    metric: str | MetricFunction | None = None,
    imitation: LossFunction | None = None,
    standardised: bool = False,
    logits: bool = True,
) -> Objective:
    """Return the objective of a task.

    Args:
        data: Says what kind of targets there are.
        loss: A name of `LOSSES`, `pkg.module:function`, `file.py:function`, or a function; None
            for cross-entropy or squared error, by the kind of data.
        metric: A name of `METRICS` or a function as for `loss`; None for accuracy or R^2.
        imitation: A student's distance to its teacher, from both outputs; None for softened
            cross-entropy (classification), or squared differences.
        standardised: Whether a network that regresses predicts values of mean 0 and deviation 1.
        logits: Whether a network that classifies returns one logit per class: with a loss and a
            metric of the user's own it need not.

    Raises:
        ConfigError: If a name is unknown, or the data need a loss and a metric that aren't given.
    """
    if data.kind == "other" and (loss is None or metric is None):
        raise ConfigError(
            "The targets are neither classes nor values to regress on, so a loss and a metric are "
            f"needed. Received: loss {loss!r}, metric {metric!r}. Give `--loss` and `--metric` as "
            "FILE.py:function, or as functions in Python."
        )
    chosen = _resolved(loss, LOSSES.get(data.kind, ()), "--loss")
    found = _resolved(metric, tuple(METRICS.get(data.kind, {})), "--metric")
    judge = user_metric(found) if callable(found) else METRICS[data.kind][found]
    classifies = data.kind == "classification" and logits
    softens = classifies and imitation is None
    for given, option in ((chosen, "--loss"), (imitation, "imitation")):
        _check_state(given, f"`{option}`")
    if found == "r2":
        _check_varied(data)
    return Objective(
        loss=named_loss(data, chosen, standardised),
        metric=judge,
        imitation=softened if softens else _imitation(imitation),
        uses_temperature=softens,
        classifies=classifies,
        bfloat16=classifies or standardised,
        description=f"{data.kind}/{identity_of(chosen)}/{identity_of(found)}/{identity_of(imitation)}"
        + ("/standardised" if standardised else ""),
    )


def _resolved(
    given: str | Callable[..., Any] | None, known: tuple[str, ...], option: str
) -> str | Callable[..., Any]:
    """Return a known name as it is, the first for None; load a function that is named otherwise."""
    if given is None:
        return known[0]
    if callable(given) or given in known:
        return given
    if ":" not in given:
        raise ConfigError(
            f"`{option}` must be one of {', '.join(known) or '(none for these targets)'}, or name "
            f"a function as FILE.py:function or pkg.module:function. Received: {given!r}."
        )
    found = load_object(given, option)
    if not callable(found):
        raise ConfigError(
            f"`{option}` must name a function. Received: {given!r}, a {type(found).__name__}."
        )
    return found  # type: ignore[no-any-return]  # whatever it is, it can be called


def _check_state(given: Any, what: str) -> None:
    """Check that a function can be copied for each training, and has nothing to train itself.

    Raises:
        ConfigError: If it can't, or has.
    """
    with user_code("copying it (copy.deepcopy), for each training anew,", what):
        _copied(given)
    if not isinstance(given, nn.Module):
        return
    trainable = [name for name, tensor in given.named_parameters() if tensor.requires_grad]
    if trainable:
        raise ConfigError(
            f"{what} has parameters to train ({', '.join(trainable[:3])}), and only those of the "
            "network are trained. Make them buffers, or call requires_grad_(False) on it."
        )


def _copied(given: Any) -> Any:
    """Return a copy of a loss, whatever state it has."""
    # Functions of TorchScript have no state, and can't be copied.
    parts = (given, getattr(given, "function", None))
    return copy.deepcopy(
        given, {id(x): x for x in parts if isinstance(x, torch.jit.ScriptFunction)}
    )


def _check_varied(data: Data) -> None:
    """Check that R^2 is defined: no column of targets is one value in a whole split.

    Raises:
        ConfigError: If one is.
    """
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    for name, split in splits.items():
        targets = split.targets_of()
        assert isinstance(targets, torch.Tensor)
        columns = targets.reshape(len(targets), -1)
        constant = (columns == columns[:1]).all(0).nonzero().flatten().tolist()
        if constant:
            raise ConfigError(
                f"Target {constant[0] + 1} of {columns.shape[1]} is the same for all "
                f"{len(columns):,} {name} samples, so R^2 is not defined. Leave it out, divide the "
                "samples otherwise, or judge by `--metric neg_mean_absolute_error`."
            )


def _imitation(given: LossFunction | None) -> Imitation:
    return squared if given is None else UserImitation(given)
