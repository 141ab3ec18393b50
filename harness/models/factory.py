"""A user's own network: the function or class that makes it, called with what it asks for."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.errors import ConfigError
from harness.importing import load_object, user_code
from harness.models.asked import asked
from harness.models.check_module import check_module

if TYPE_CHECKING:
    from collections.abc import Callable

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def user_network(spec: str, inputs: tuple[int, ...], outputs: int | None, seed: int) -> nn.Module:
    """Return the network that a user's code makes.

    Args:
        spec: `pkg.module:factory` or `path/file.py:factory`. The factory is a function or class,
            called with those of `num_classes`, `outputs` (both `outputs`), `in_channels`,
            `in_chans` (both the first of `inputs`), `inputs` and `input_shape` (both `inputs`)
            that it names; or a network that is there already.
        inputs: Shape of one sample.
        outputs: Classes, or values to predict; None where the data don't tell.
        seed: Set in torch before the factory is called.

    Raises:
        ConfigError: If there is no such factory, it needs other arguments, it fails, or what it
            returns is no network that can be pruned.
    """
    found = load_object(spec, asked())
    if isinstance(found, nn.Module):
        # A copy: the user's own object is left as it is, whatever is loaded or trained.
        return copy.deepcopy(check_module(found, f"{asked()} {spec}"))
    if not callable(found):
        raise ConfigError(
            f"{asked()} {spec} must be a function, a class or an nn.Module. Received: "
            f"{type(found).__name__}."
        )
    arguments = _arguments(found, spec, inputs, outputs)
    # Anew, since importing the user's code may have drawn numbers, and is done only once.
    torch.manual_seed(seed)
    with user_code(spec, asked()):
        made = found(**arguments)
    return check_module(made, f"What {asked()} {spec} returned")


def _arguments(
    factory: Callable[..., Any], spec: str, inputs: tuple[int, ...], outputs: int | None
) -> dict[str, Any]:
    """Return those of our arguments that a factory names.

    Raises:
        ConfigError: If it requires others.
    """
    known: dict[str, Any] = {
        "in_channels": inputs[0], "in_chans": inputs[0], "inputs": inputs, "input_shape": inputs,
    }  # fmt: skip
    if outputs is not None:
        known |= {"num_classes": outputs, "outputs": outputs}
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # written in C: nothing is known of it
        return {}
    missing = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in _OPEN
        and not (parameter.kind in _NAMED and parameter.name in known)
    ]
    if missing:
        raise ConfigError(
            f"{asked()} {spec} requires {', '.join(missing)}, which nothing here can fill: a "
            f"factory may require {', '.join(sorted(known))}. Write a small function that fills "
            "the rest in and returns the network, and name that one."
        )
    return {p.name: known[p.name] for p in parameters if p.kind in _NAMED and p.name in known}
