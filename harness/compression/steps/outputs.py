"""Whether a network returns what its teacher returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.importing import user_code
from harness.training import predict_tensors

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.steps.base import Context


def check_outputs(step: str, module: nn.Module, context: Context) -> None:
    """Check that a network returns tensors of the teacher's shapes.

    Args:
        step: The name of the step that needs it, for messages.
        module: The network, in evaluation mode.
        context: Has the teacher, and samples to run both on.

    Raises:
        ConfigError: If it returns others, or doesn't run.
    """
    samples = context.task.example_input(2)
    shapes = []
    for network, which in ((module, "network"), (context.teacher, "teacher")):
        with user_code(f"running the {which} on {list(samples.shape)}", f"Step {step!r}"):
            found = predict_tensors(network, [samples])
        shapes.append(", ".join(str(["N", *part.shape[1:]]).replace("'", "") for part in found))
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"Step {step!r}: the network must return what the teacher returns, {shapes[1]}. "
            f"Received: {shapes[0]}. Build it for as many outputs."
        )
