"""A training's state on disk, so that one that was killed goes on where it stood.

The file is a SHA-256 and what `torch.save` wrote of tensors and numbers. The hash covers those
bytes and what the training depends on: a file that is cut off, damaged or another training's is
never loaded. `torch.load` alone doesn't notice damaged tensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from typing import TYPE_CHECKING, Any

import torch

from harness.atomic import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

_EVERY_S = 60.0
"""An epoch that takes long is kept in between as often as this."""
_HASH_BYTES = 32


def digest_of(facts: object, tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a SHA-256, in hexadecimal digits, of facts by their `repr` and of tensors by value."""
    digest = hashlib.sha256(repr(facts).encode())
    for name, tensor in tensors.items():
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tensors_of(modules: Iterable[nn.Module]) -> dict[str, torch.Tensor]:
    """Return the parameters and all buffers of modules, by the module's number and their name."""
    return {
        f"{number}.{name}": tensor
        for number, module in enumerate(modules)
        for kind in (module.named_parameters, module.named_buffers)
        for name, tensor in kind()
    }


class Checkpoint:
    """What a training has come to, kept after every epoch and now and then in long ones.

    Args:
        path: Where it is kept; None for nowhere.
        identity: What the training depends on.
        modules: The network, and others whose tensors change while it is trained.
        optimizer: Its state is kept.
        schedule: Its state is kept.
    """

    def __init__(
        self,
        path: Path | None,
        identity: str,
        modules: Sequence[nn.Module],
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        self._path, self._identity = path, identity
        self._modules, self._optimizer, self._schedule = modules, optimizer, schedule
        self._saved = time.monotonic()

    def load(self, order: torch.Generator) -> int:
        """Put everything back as it was, torch's own generator too; return the steps done.

        Args:
            order: Draws the order of samples; as it was before the current epoch's was drawn.
        """
        found, own = self._read(), tensors_of(self._modules)
        if found is None or _shapes(found["tensors"]) != _shapes(own):
            return 0
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(found["tensors"][name])
        self._optimizer.load_state_dict(found["optimizer"])
        self._schedule.load_state_dict(found["schedule"])
        order.set_state(found["order"])
        torch.set_rng_state(found["torch"])
        return int(found["step"])

    def save(self, step: int, order: torch.Tensor, *, at_once: bool) -> None:
        """Keep everything.

        Args:
            step: Steps done.
            order: State of the generator of orders, before the current epoch's was drawn.
            at_once: Whether to do so even if it was done a moment ago.
        """
        if self._path is None or not (at_once or time.monotonic() - self._saved >= _EVERY_S):
            return
        state = {
            "step": step, "order": order, "torch": torch.get_rng_state(),
            "tensors": {k: t.detach() for k, t in tensors_of(self._modules).items()},
            "optimizer": self._optimizer.state_dict(), "schedule": self._schedule.state_dict(),
        }  # fmt: skip
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        with contextlib.suppress(OSError):  # training is worth more than that it can be resumed
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, self._hash(data) + data)
        self._saved = time.monotonic()

    def _read(self) -> dict[str, Any] | None:
        """Return what was kept of this very training; None for nothing."""
        if self._path is None:
            return None
        try:
            content = self._path.read_bytes()
        except OSError:
            return None
        data = content[_HASH_BYTES:]
        if content[:_HASH_BYTES] != self._hash(data):
            return None
        found: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
        return found

    def _hash(self, data: bytes) -> bytes:
        return hashlib.sha256(self._identity.encode() + data).digest()


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
