"""Whether training in bfloat16 is faster than in float32 on this CPU: measured once, then cached.

That a CPU has the instructions says nothing: on a virtual Xeon with avx512_bf16 and without AMX a
training step in bfloat16 took 2.4 times as long, on an EPYC with the same flag half as long.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from harness.atomic import write_atomic
from harness.folders import cache_folder

_FLAGS = ("avx512_bf16", "amx_bf16")
_GAIN = 0.8
"""bfloat16 is chosen where a step takes less than this part of float32's: it costs precision."""
_ROUNDS = 7
_CHANNELS, _SIDE, _BATCH = 64, 16, 32
"""The probe's convolutions: those of a small network for images of 32x32."""


@functools.cache
def bfloat16_is_faster() -> bool:
    """Return whether small convolutional networks train clearly faster in bfloat16 here.

    The first call on a machine takes about a second: it measures. Others read the answer from the
    cache folder, so that resumed searches train as they began.
    """
    cpu = _cpu()
    if not any(flag in cpu for flag in _FLAGS):
        return False
    facts = (cpu, torch.__version__, torch.get_num_threads())
    path = cache_folder() / "bfloat16" / f"{hashlib.sha256(repr(facts).encode()).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return bool(json.loads(path.read_bytes())["faster"])
    ratio = _measured()
    with contextlib.suppress(OSError):  # a cache is a convenience
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"faster": ratio < _GAIN, "ratio": ratio}).encode())
    return ratio < _GAIN


def _cpu() -> str:
    """Return what the kernel says of the first CPU's model and instructions; empty if nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    kept = {line for line in lines if line.startswith(("model name", "flags"))}
    return "\n".join(sorted(kept))


def _measured() -> float:
    """Return a training step's time in bfloat16 over that in float32: median of paired rounds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, bias=False) for _ in range(2)]
        model = nn.Sequential(
            layers[0], nn.BatchNorm2d(_CHANNELS), nn.ReLU(), layers[1], nn.BatchNorm2d(_CHANNELS)
        )
        inputs = torch.randn(_BATCH, _CHANNELS, _SIDE, _SIDE)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    ratios = []
    for _ in range(_ROUNDS):
        low, full = (_step_s(model, inputs, bfloat16) for bfloat16 in (True, False))
        ratios.append(low / full)
    return statistics.median(ratios[1:])  # the first round sets up


def _step_s(model: nn.Module, inputs: torch.Tensor, bfloat16: bool) -> float:
    started = time.perf_counter()
    with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        outputs = model(inputs)
    outputs.float().square().mean().backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - started
