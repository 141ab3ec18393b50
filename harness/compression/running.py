"""A network at work: what it returns, which module is called with what, how far two are apart."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import TaskError
from harness.tasks.objective import as_tuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class Called:
    """One call of a module.

    Attributes:
        args: Its arguments by position.
        kwargs: Its arguments by name.
        output: What it returned.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any


def outputs_of(model: nn.Module, inputs: torch.Tensor, what: str) -> tuple[torch.Tensor, ...]:
    """Return a network's outputs, each `[N, ...]`, in evaluation mode.

    Args:
        model: The network, whose own code may raise anything; it is put into evaluation mode.
        inputs: A batch `[N, ...]`.
        what: The network's name in the error, such as `"The network"`.

    Raises:
        TaskError: If it doesn't run.
    """
    model.eval()
    try:
        with torch.inference_mode():
            return as_tuple(model(inputs))
    except Exception as exc:  # the network's own code raises what it likes
        raise TaskError(f"{what} doesn't run: {type(exc).__name__}: {exc}") from exc


def tensors_of(model: nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return all tensors that a network returns on a batch, however nested, without gradients.

    The network stays in its mode, and what its own code raises passes as it is.
    """
    with torch.no_grad():
        return list(flat(model(inputs)))


def flat(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from flat(one)


def calls_of(model: nn.Module, inputs: torch.Tensor) -> dict[str, list[Called]]:
    """Return every call of every module in one run, by module name.

    Tensors are the objects that the modules themselves saw: two that are the same object were
    handed from one module to the other. Modules that don't run have no entry.
    """
    found: dict[str, list[Called]] = defaultdict(list)
    hooks = []

    def watch(name: str, module: nn.Module) -> None:
        def keep(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            found[name].append(Called(args, kwargs, output))

        hooks.append(module.register_forward_hook(keep, with_kwargs=True))

    for name, module in model.named_modules():
        watch(name, module)
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return dict(found)


def difference(expected: Sequence[torch.Tensor], got: Sequence[torch.Tensor]) -> float:
    """Return the largest absolute difference over the largest absolute value of that output.

    It is 0 for equal outputs, and infinite where they can't be compared: others in number or
    shape, or not finite.
    """
    if [x.shape for x in expected] != [x.shape for x in got]:
        return float("inf")
    return max((_relative(*pair) for pair in zip(expected, got, strict=True)), default=0.0)


def _relative(expected: torch.Tensor, got: torch.Tensor) -> float:
    if torch.equal(expected, got) or not expected.numel():
        return 0.0
    one, other = expected.double(), got.double()
    error = float((one - other).abs().max()) / (float(one.abs().max()) or 1.0)
    return error if error >= 0 else float("inf")  # not a number: no comparison holds


@contextlib.contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put a network into training or evaluation mode for a while, with random numbers of its own.

    What runs in it draws the same numbers every time, and torch's own generator stays as it is.
    """
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        for module, mode in before.items():
            module.training = mode
