"""One training loop: labels alone for the dense model, soft targets too for a student."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from harness.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from harness.tasks.base import Split


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """What a student learns from its teacher.

    Attributes:
        logits: The teacher's, float32 `[N, classes]`, for the samples of the split in order.
        temperature: Softens both distributions; above 0.
        weight: Of the soft targets in the loss, 0 (labels only) to 1.
    """

    logits: torch.Tensor
    temperature: float
    weight: float


def distillation_loss(
    logits: torch.Tensor, labels: torch.Tensor, soft: SoftTargets | None, rows: torch.Tensor
) -> torch.Tensor:
    """Return (1 - w) CE(labels) + w T^2 KL(teacher || student), both softened by T.

    Args:
        logits: The student's, `[B, classes]`.
        labels: int64 `[B]`.
        soft: The teacher's side; None for labels only.
        rows: int64 `[B]`, which samples of the split these are.

    References:
        Hinton, Vinyals & Dean (2015), "Distilling the knowledge in a neural network".
    """
    hard = F.cross_entropy(logits, labels)
    if soft is None or soft.weight == 0:
        return hard
    t = soft.temperature
    student = F.log_softmax(logits / t, dim=1)
    teacher = F.log_softmax(soft.logits[rows] / t, dim=1)
    divergence = F.kl_div(student, teacher, log_target=True, reduction="batchmean")
    return (1 - soft.weight) * hard + soft.weight * t**2 * divergence


def fit(
    model: nn.Module,
    split: Split,
    *,
    epochs: int,
    batch: int,
    lr: float,
    weight_decay: float,
    seed: int,
    soft: SoftTargets | None = None,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> nn.Module:
    """Train `model` in place and return it in evaluation mode.

    SGD with Nesterov momentum under the one-cycle schedule of Smith & Topin (2018).

    Args:
        model: The network.
        split: What to train on.
        epochs: Passes over it.
        batch: Samples per step.
        lr: Peak learning rate.
        weight_decay: L2 penalty.
        seed: Of the order of samples.
        soft: Distil from these; None trains on the labels alone.
        on_batch: Called after every step with the steps done and in all.

    Raises:
        TaskError: If the loss stops being finite.
    """
    rng = torch.Generator().manual_seed(seed)
    set_memory_format(model, torch.channels_last)
    model.train()
    inputs = split.inputs.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay
    )
    total = epochs * -(-len(split) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total, pct_start=0.2)
    step = 0
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(split), generator=rng), batch):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_bf16()):
                logits = model(inputs[rows])
            loss = distillation_loss(logits.float(), split.labels[rows], soft, rows)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            step += 1
            on_batch(step, total)
        if not torch.isfinite(loss):
            raise TaskError(f"Training diverged: the loss is {loss.item()} at step {step}.")
    set_memory_format(model, torch.contiguous_format)
    return model.eval()


def predict(model: nn.Module, inputs: NDArray[np.float32], batch: int = 256) -> NDArray[np.float32]:
    """Return fp32 logits `[N, classes]` of inputs `[N, ...]`."""
    model.eval()
    with torch.inference_mode():
        parts = [model(chunk) for chunk in torch.split(torch.from_numpy(inputs), batch)]
    logits: NDArray[np.float32] = torch.cat(parts).numpy()
    return logits


def set_memory_format(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Lay out a network's weights in memory, in place."""
    model.to(memory_format=memory_format)  # type: ignore[call-overload]  # missing in torch's stubs


@functools.cache
def fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 natively: training is then about twice as fast."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def use_all_cores() -> int:
    """Let torch use every core that this process may run on; return how many."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    return cores
