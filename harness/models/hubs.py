"""Networks of timm and torchvision, by name; nothing is downloaded unless the user asks for it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from torch import nn

from harness.errors import ConfigError, HarnessError
from harness.models.asked import as_asked
from harness.models.check_module import check_module
from harness.models.torchvision_import import import_torchvision

if TYPE_CHECKING:
    from collections.abc import Iterable

_FLAG = "pretrained"
_RGB = 3


def hub_network(
    hub: str, text: str, inputs: tuple[int, ...], outputs: int
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a hub's network, and what a user should know of it.

    Args:
        hub: `"timm"` or `"torchvision"`.
        text: The network's name there; `,pretrained` after it downloads weights, and the last
            layer then starts untrained.
        inputs: Shape of one image, `(C, H, W)`.
        outputs: Classes, or values to predict.

    Raises:
        ConfigError: If the hub isn't installed, has no such network, or can't build it so.
    """
    name, comma, flag = text.partition(",")
    if not name or (comma and flag != _FLAG):
        raise ConfigError(
            f"{as_asked(hub + ':')} takes a name, and ',{_FLAG}' after it to start from downloaded "
            f"weights. Received: {text!r}."
        )
    if len(inputs) != 3:
        raise ConfigError(
            f"The networks of {hub} take images [channels, height, width]. Received samples of "
            f"shape {list(inputs)}."
        )
    build = _timm if hub == "timm" else _torchvision
    try:
        found, renewed = build(name, bool(comma), inputs, outputs)
    except HarnessError:
        raise
    except Exception as exc:  # hubs raise what they like, the network included
        hint = f" Its weights are downloaded; leave out ',{_FLAG}' to do without." if comma else ""
        raise ConfigError(
            f"{hub} could not build {name!r} for images {list(inputs)} and {outputs} outputs: "
            f"{type(exc).__name__}: {exc}{hint}"
        ) from exc
    new = f", with a new last layer for {outputs} outputs" if renewed else ""
    notes = (f"{hub}'s weights{new}",) if comma else ()
    return check_module(found, as_asked(f"{hub}:{name}")), notes


def _timm(name: str, pretrained: bool, inputs: tuple[int, ...], outputs: int) -> tuple[Any, bool]:
    """Return the network, and whether its last layer is new where the rest has weights."""
    timm = _import_timm()
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    arguments: dict[str, Any] = {"num_classes": outputs, "in_chans": inputs[0]}
    known = timm.get_pretrained_cfg(name)
    # Networks with learned positions are made for one size of image, and must be told of another.
    if known is not None and known.fixed_input_size and known.input_size[1:] != inputs[1:]:
        arguments["img_size"] = inputs[1:]
    renewed = known is None or known.num_classes != outputs
    return timm.create_model(name, pretrained=pretrained, **arguments), renewed


def _import_timm() -> Any:
    try:
        if importlib.util.find_spec("timm") is not None:
            import_torchvision()  # timm imports it, which fails beside a CPU build of torch
        return importlib.import_module("timm")
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"timm, or something that it needs, is not installed ({exc}). Run: pip install "
            "--no-deps timm torchvision && pip install huggingface_hub pyyaml pillow (without "
            "--no-deps, pip may replace torch by another build)."
        ) from exc


def _torchvision(
    name: str, pretrained: bool, inputs: tuple[int, ...], outputs: int
) -> tuple[Any, bool]:
    """Return the network, and whether its last layer is new where the rest has weights."""
    import_torchvision()
    models = importlib.import_module("torchvision.models")
    names = models.list_models(module=models)  # those that classify: others need other data
    if name not in names:
        raise _unknown("torchvision", name, names)
    # Without weights, as here, these two want to be told not to have outputs for training only,
    # and that published weights are for images scaled otherwise than those of the other networks.
    extra = {"aux_logits": False, "init_weights": True, "transform_input": pretrained}
    extra = extra if name in ("googlenet", "inception_v3") else {}
    model = models.get_model(name, weights=None, num_classes=outputs, **extra)
    # torchvision's own builder knows how its oldest files name their layers.
    renewed = pretrained and _take_weights(
        model, models.get_model(name, weights="DEFAULT", progress=False)
    )
    if inputs[0] != _RGB:
        if pretrained:
            raise ConfigError(
                f"torchvision's weights are for images of {_RGB} channels. Received {inputs[0]}. "
                f"Leave out ',{_FLAG}', or take timm's network of that name, which adapts."
            )
        _retake(model, inputs[0])
    return model, renewed


def _take_weights(model: nn.Module, trained: nn.Module) -> bool:
    """Load another network's weights in place, but for layers of another size: the last.

    Returns:
        Whether one was left out.
    """
    own, state = model.state_dict(), trained.state_dict()
    fitting = {n: t for n, t in state.items() if n in own and t.shape == own[n].shape}
    model.load_state_dict(fitting, strict=False)
    return len(fitting) < len(own)


def _retake(model: nn.Module, channels: int) -> None:
    """Give a network's first convolution, in place, another number of input channels."""
    name, old = next(
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.in_channels == _RGB
    )
    new = nn.Conv2d(
        channels, old.out_channels, old.kernel_size, old.stride, old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )  # fmt: skip
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)


def _unknown(hub: str, name: str, known: Iterable[str]) -> ConfigError:
    near = difflib.get_close_matches(name.lower(), list(known), n=3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return ConfigError(f"{hub} has no network {name!r}.{hint}")
