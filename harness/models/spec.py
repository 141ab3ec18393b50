"""From `--model`'s text to a network."""

from __future__ import annotations

import difflib
import importlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.errors import ConfigError
from harness.models import MODELS
from harness.models.asked import as_asked, asked
from harness.models.factory import user_network
from harness.models.network import Network

if TYPE_CHECKING:
    from torch import nn

SEED = 20260101
PRETRAINED = ",pretrained"
"""What a user adds to a name to start from published weights."""
FORMS = (
    f"a shipped model ({', '.join(MODELS)}), 'pkg.module:factory', 'path/file.py:factory', "
    "'onnx:FILE', 'timm:NAME' or 'torchvision:NAME'"
)


def load_network(
    spec: str,
    *,
    inputs: tuple[int, ...],
    outputs: int | None,
    weights: Path | None,
    seed: int = SEED,
) -> Network:
    """Return the network that a text names; the same initial weights at every call.

    Args:
        spec: A shipped model's name, `pkg.module:factory`, `path/file.py:factory`, `onnx:FILE`,
            `timm:NAME` or `torchvision:NAME`; hubs' names and `efficientnet-lite0` may end in
            `,pretrained`.
        inputs: Shape of one sample, without the batch.
        outputs: Classes, or values to predict; None where the data don't tell.
        weights: File to load weights from; None for none.
        seed: Of the initial weights.

    Raises:
        ConfigError: If there is no such network, it can't be built for these data or can't be
            pruned, or the weights don't fit it.
    """
    kind, _, rest = spec.partition(":")
    if kind == "onnx":
        return _from_onnx(rest, spec, inputs, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, notes = _build(spec, inputs, outputs, seed)
    if weights is not None:
        from harness.models.weights import load_weights

        notes = (*notes, *load_weights(module, weights))
    # Published weights come with a new last layer: such a network is still to be trained.
    return Network(module.eval(), short_name(spec), spec, weights is not None, notes)


def _build(
    spec: str, inputs: tuple[int, ...], outputs: int | None, seed: int
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the network and what a user should know of it."""
    kind, colon, rest = spec.partition(":")
    name = spec.removesuffix(PRETRAINED)
    if colon and kind not in ("timm", "torchvision"):
        return user_network(spec, inputs, outputs, seed), ()
    if not colon and name not in MODELS:
        raise _unknown(spec)
    if outputs is None:
        raise ConfigError(
            f"{asked()} {spec} is built for a number of outputs, which these data don't tell. Name "
            f"a function of your own that builds it: {as_asked('path/file.py:factory')}."
        )
    if colon:
        from harness.models.hubs import hub_network

        return hub_network(kind, rest, inputs, outputs)
    if name == "efficientnet-lite0" and name != spec:
        from harness.models.imagenet import efficientnet_lite0_imagenet

        return efficientnet_lite0_imagenet(inputs, outputs)
    if name != spec:
        raise ConfigError(
            f"There are no published weights of the shipped {name!r} here. Leave out "
            f"'{PRETRAINED}', and give weights of your own with `--weights FILE`."
        )
    module, _, function = MODELS[name].partition(":")
    built: nn.Module = getattr(importlib.import_module(module), function)(inputs, outputs)
    return built, ()


def _from_onnx(file: str, spec: str, inputs: tuple[int, ...], weights: Path | None) -> Network:
    if weights is not None:
        raise ConfigError("An ONNX file brings its own weights: leave out `--weights`.")
    if not file:
        raise ConfigError(f"{as_asked('onnx:FILE')} must name a file, such as 'onnx:model.onnx'.")
    from harness.models.onnx_file import load_onnx

    return replace(load_onnx(Path(file), inputs), spec=spec)


def short_name(spec: str) -> str:
    """Return a name for studies: of letters, digits and any of `_.+-`; never empty."""
    last = spec.removesuffix(PRETRAINED).rpartition(":")[2]
    return re.sub(r"[^a-z0-9_.+-]+", "-", last.lower()).strip("-.") or "model"


def _unknown(spec: str) -> ConfigError:
    near = difflib.get_close_matches(spec.lower(), MODELS, n=1)
    suffix = Path(spec).suffix.lower()
    hint = {
        ".onnx": f" For this file: 'onnx:{spec}'.",
        ".py": f" Say which function or class of that file: '{spec}:NAME'.",
        ".pt": " A file of weights goes to `--weights`, beside the model that they are for.",
    }.get(".pt" if suffix in (".pth", ".ckpt", ".bin", ".safetensors") else suffix, "")
    if near:
        hint = f" Did you mean {near[0]!r}?"
    return ConfigError(f"{asked()} must be {FORMS}. Received: {spec!r}.{hint}")
