"""Weights written to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from harness.atomic import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def save_weights(model: nn.Module, path: Path) -> Path:
    """Write a state dict as safetensors, atomically.

    Weights that are shared under several names are written under each, so that every name is found.
    """
    plain = torch.contiguous_format
    state = {k: v.detach().clone(memory_format=plain) for k, v in model.state_dict().items()}
    write_atomic(path, save(state))
    return path
