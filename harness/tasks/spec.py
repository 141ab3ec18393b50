"""From what a user says of a task to the task: model, data, loss and metric, checked together."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.data.reduce import METHODS
from harness.data.spec import data_spec, load_data
from harness.errors import ConfigError
from harness.models import MODELS
from harness.models.asked import as_asked
from harness.models.check import check_network
from harness.models.check_module import check_module
from harness.models.finals import InUnits
from harness.models.network import Network
from harness.models.onnx_network import OnnxNetwork
from harness.models.spec import load_network
from harness.tasks.base import Reduction, Task
from harness.tasks.losses import mean_and_spread
from harness.tasks.objective import make_objective
from harness.tasks.recipe import default_recipe
from harness.tasks.rehearsal import try_objective
from harness.tasks.taskfile import beside
from harness.training import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from harness.data.split import Data
    from harness.tasks.objective import LossFunction, MetricFunction, Objective


_CLOSE_TO_ONE = 1e-4
_COMPARED = 64
"""Samples on which a converted network is held against its file."""


@dataclass(frozen=True, slots=True, eq=False)
class TaskSpec:
    """What a user says of a task: texts as on the command line, or objects from Python.

    Attributes:
        model: `--model`'s text, or a network.
        data: `--data`'s text, a table of the same keys, data ready made, or what a factory of
            `--data` may return.
        weights: File with trained weights; None for none.
        trained: Whether the network is trained already, so that it is taken as it is.
        name: Of the task; None for one made from model and data.
        loss: See `make_objective`.
        metric: See `make_objective`.
        imitation: See `make_objective`.
        augment: `"flip+shift"` and the like; None for none.
        recipe: Values over the default recipe's.
        reduction: Which part of the training split candidates are trained on.
        base: Folder that relative paths of a data table start from.
    """

    model: str | nn.Module
    data: Any
    weights: Path | None = None
    trained: bool = False
    name: str | None = None
    loss: str | LossFunction | None = None
    metric: str | MetricFunction | None = None
    imitation: LossFunction | None = None
    augment: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    reduction: Reduction = field(default_factory=Reduction)
    base: Path = Path()

    def source(self) -> dict[str, Any]:
        """Return what the task can be made from again, in any folder; empty where it can't be.

        That is where it holds Python objects.
        """
        texts = {"model": self.model, "loss": self.loss, "metric": self.metric}
        given = (*texts.values(), self.imitation)
        asked = data_spec(self.data, self.base)
        if asked is None or any(part is not None and not isinstance(part, str) for part in given):
            return {}
        here = Path.cwd()
        return {
            **{key: beside(x, here) if isinstance(x, str) else None for key, x in texts.items()},
            "data": asked.as_mapping(), "trained": self.trained,
            "weights": None if self.weights is None else str(here / self.weights),
        }  # fmt: skip


def spec_of_source(source: Mapping[str, Any]) -> TaskSpec:
    """Return what `TaskSpec.source` was made from."""
    weights = source["weights"]
    return TaskSpec(
        model=source["model"], data=source["data"], trained=source["trained"],
        weights=None if weights is None else Path(weights), loss=source["loss"],
        metric=source["metric"],
    )  # fmt: skip


def build_task(
    spec: TaskSpec,
    notify: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Task:
    """Load data and network, and check that they fit.

    Args:
        spec: What the user said.
        notify: Told what is going on.
        advance: Told of samples decoded, of how many.

    Raises:
        ConfigError: If anything can't be used; says what.
    """
    data = load_data(
        spec.data, augment=spec.augment, base=spec.base, notify=notify, advance=advance
    )
    notify("building the network")
    network = _network(spec, data)
    if network.nhwc:
        data = data.in_nhwc()
    # With both a loss and a metric of the user's own, only they know what outputs are right.
    outputs = None if _is_own(spec.loss) and _is_own(spec.metric) else data.outputs
    rows = torch.arange(2) % len(data.validation)
    check_network(network.module, data.validation.batch(rows), outputs)
    _check_against_file(network, data)
    trained = network.pretrained or spec.trained
    if trained and spec.weights is None and isinstance(spec.model, str) and spec.model in MODELS:
        raise ConfigError(
            f"The shipped model {spec.model!r} comes untrained: leave out `--trained`, or give its "
            "weights with `--weights`."
        )
    standardised = _learns_units(spec, data, trained)
    objective = make_objective(
        data, spec.loss, spec.metric, spec.imitation, standardised, _gives_logits(network, data)
    )
    finals = {0: InUnits(*mean_and_spread(data))} if standardised else network.finals
    network = replace(network, pretrained=trained, finals=finals)
    recipe = default_recipe(len(data.train), trained, spec.reduction.fraction)
    whole = default_recipe(len(data.train), trained).with_values(spec.recipe, "the recipe")
    task = Task(
        name=_name(spec.name or f"{network.name}-{data.name}"),
        network=network,
        data=data,
        objective=objective,
        recipe=recipe.with_values(spec.recipe, "the recipe"),
        reduction=spec.reduction,
        epochs_on_all=whole.trial_epochs,
        source=spec.source(),
        description=data.description,
        notes=(*network.notes, *data.notes, *_softmax_note(network, data, objective)),
    )
    try_objective(task)
    return task


def _gives_logits(network: Network, data: Data) -> bool:
    """Whether the network returns one number per class."""
    outputs = predict(network.module, [next(data.validation.chunks(1))])
    return len(outputs) == 1 and outputs[0].shape == (1, data.outputs) and outputs[0].size > 1


def _softmax_note(network: Network, data: Data, objective: Objective) -> tuple[str, ...]:
    """Say so where outputs look like probabilities: cross-entropy takes logits."""
    if not objective.classifies or network.finals:
        return ()
    (outputs,) = predict(network.module, [next(data.validation.chunks(_COMPARED))])
    if outputs.min() < 0 or abs(outputs.sum(1) - 1).max() > _CLOSE_TO_ONE:
        return ()
    return (
        "the network's outputs are probabilities: it seems to end in a softmax. Cross-entropy and "
        "distillation take logits: leave it out, in an ONNX file before the export",
    )


def _check_against_file(network: Network, data: Data) -> None:
    """Hold a network that was made from an ONNX file against the file, on real samples.

    Raises:
        ConfigError: If they differ.
    """
    if not network.spec.startswith("onnx:"):
        return
    from harness.models.onnx_file import TOLERANCE, check_against_file

    samples = next(data.validation.chunks(_COMPARED)).numpy()
    assert isinstance(network.module, OnnxNetwork)
    error = check_against_file(network.module, Path(network.spec[5:]), samples)
    if not error <= TOLERANCE:
        raise ConfigError(
            f"{network.spec[5:]}: in torch, outputs for {len(samples)} samples of the data differ "
            f"from ONNX Runtime's by {error:.2g} of the largest one. Expected at most "
            f"{TOLERANCE:.0e}. Give the network as Python ({as_asked('FILE.py:function')})."
        )


def _learns_units(spec: TaskSpec, data: Data, trained: bool) -> bool:
    """Whether a network is to predict values of mean 0 and deviation 1, put in units at export.

    A fresh one that regresses is: else its first epochs go into reaching the targets' size.
    """
    return data.kind == "regression" and not trained and not _is_own(spec.loss)


def _is_own(given: object) -> bool:
    return callable(given) or (isinstance(given, str) and ":" in given)


def _network(spec: TaskSpec, data: Data) -> Network:
    inputs = data.validation.sample_shape
    if isinstance(spec.model, str):
        return load_network(spec.model, inputs=inputs, outputs=data.outputs, weights=spec.weights)
    if spec.weights is not None:
        raise ConfigError("Weights go with a model given as text: load them into your nn.Module.")
    module = copy.deepcopy(check_module(spec.model, "The model"))  # the caller's stays as it is
    return Network(module.eval(), type(spec.model).__name__.lower())


def _name(text: str) -> str:
    """Return a name that is fit for files: the cache's, and by way of the study's the results'."""
    return re.sub(r"[^\w.+-]", "", text).lstrip(".") or "task"


def make_reduction(fraction: float | None, method: str | None) -> Reduction:
    """Return which part of the training split candidates are trained on.

    Raises:
        ConfigError: If the method is unknown, or there is nothing for it to choose.
    """
    if method is not None and method not in METHODS:
        raise ConfigError(f"`--coreset` must be one of {', '.join(METHODS)}. Received: {method!r}.")
    if method is not None and (fraction is None or fraction == 1):
        raise ConfigError(
            f"`--coreset {method}` chooses a part of the training split: say which with "
            "`--train-fraction`, such as 0.3."
        )
    return Reduction(1.0 if fraction is None else fraction, method or METHODS[0])
