"""What the shipped models share: the check of a sample's shape, and initial weights."""

from __future__ import annotations

import math

from torch import nn

from harness.errors import ConfigError
from harness.models.asked import as_asked


def check_sample(model: str, inputs: tuple[int, ...], axes: str, smallest: int = 1) -> None:
    """Check that a model can take samples of a shape.

    Args:
        model: Its name, for the message.
        inputs: The shape of one sample, without the batch.
        axes: What the model takes: `"CHW"`, `"CL"` or `"F"`; the first is a count of channels or
            features.
        smallest: Least size along every other axis.

    Raises:
        ConfigError: If the number of axes is another, or one is too small.
    """
    takes = {"CHW": "images [channels, height, width]", "CL": "signals [channels, length]"}.get(
        axes, "rows of a table [features]"
    )
    if len(inputs) != len(axes):
        fits = {3: "small-cnn", 2: "cnn1d", 1: "mlp"}.get(len(inputs))
        hint = f" For these data, try {as_asked(fits)}." if fits else ""
        raise ConfigError(
            f"The model {model!r} takes {takes}. Received samples of shape {list(inputs)}.{hint}"
        )
    if min(inputs) < 1 or min(inputs[1:], default=smallest) < smallest:
        raise ConfigError(
            f"The model {model!r} takes {takes} of at least {smallest} along each side. Received "
            f"samples of shape {list(inputs)}. Enlarge them, or take a smaller model."
        )


def init_he(model: nn.Module) -> None:
    """Initialise convolutions in place, as suits ReLU; linear layers stay as torch makes them.

    References:
        He et al. (2015), "Delving deep into rectifiers".
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
            # torch's own fan-out overlooks groups, so depthwise layers would start near zero.
            fan_out = layer.weight.numel() / layer.weight.shape[1] / layer.groups
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
