"""What decoding and augmentation cost, beside a training step of ResNet-20.

    python tests/benchmarks/pipeline.py OUT.csv --data cifar10-train.parquet [--rounds 5]

Pipelines, each with flips and shifts of up to 4 pixels unless it says otherwise:

    harness         images decoded once; a batch is gathered, augmented and scaled
    harness-plain   the same without augmentation
    loader-0        torch's DataLoader without workers, Pillow for every sample and epoch
    loader-2        the same with two workers
    floats          ready-made tensors, neither decoded nor augmented: no pipeline at all

Each is timed alone (samples per second), and in a loop that trains with it; `overhead` is the share
of that loop's time by which it exceeds the loop over ready-made tensors in the same round. Columns
are medians over rounds, in which the pipelines take turns; `lo` and `hi` are the extremes. A last
row has the decoding, which happens once: samples per second, in an empty cache.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

from harness.bfloat16 import bfloat16_is_faster
from harness.data.spec import load_data
from harness.manner import set_memory_format
from harness.models.resnet import resnet20
from harness.training import use_all_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.data.split import Data, Scale, Split

    Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]

BATCH = 128
PAD = 4
ALONE, TRAINED = 40, 12
"""Batches per round: of a pipeline alone, and of the loop that trains."""
COLUMNS = (
    "pipeline", "samples_per_s", "lo", "hi", "batch_ms", "train_ms", "train_lo_ms", "train_hi_ms",
    "overhead", "overhead_lo", "overhead_hi", "rounds", "threads",
)  # fmt: skip


class PerSample(torch.utils.data.Dataset):
    """What training scripts do: Pillow decodes, pads, crops and mirrors each sample anew."""

    def __init__(self, encoded: list[bytes], labels: list[int], scale: Scale) -> None:
        self._encoded, self._labels = encoded, labels
        self._mean = torch.tensor(scale.mean).view(-1, 1, 1)
        self._std = torch.tensor(scale.std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(io.BytesIO(self._encoded[index])).convert("RGB")
        width, height = image.size
        x, y = random.randint(0, 2 * PAD), random.randint(0, 2 * PAD)
        image = ImageOps.expand(image, PAD).crop((x, y, x + width, y + height))
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return (pixels.float().div_(255) - self._mean) / self._std, self._labels[index]


def of_split(split: Split, view: bool) -> Batches:
    """Yield batches without end, as `harness.training.fit` takes them."""
    rng = torch.Generator().manual_seed(0)
    for epoch in itertools.count():
        for rows in torch.split(torch.randperm(len(split), generator=rng), BATCH)[:-1]:
            yield split.batch(rows, epoch if view else None), split.targets_of(rows)


def of_loader(dataset: PerSample, workers: int) -> Batches:
    loader = torch.utils.data.DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True,
        persistent_workers=workers > 0,
    )  # fmt: skip
    while True:
        yield from loader


def of_floats(split: Split) -> Batches:
    """Yield slices of tensors that are ready: at most 10,000 samples, to spare memory."""
    rows = torch.arange(min(len(split), 10_000))
    inputs, targets = split.batch(rows), split.targets_of(rows)
    starts = range(0, len(rows) - BATCH + 1, BATCH)
    for start in itertools.cycle(starts):
        yield inputs[start : start + BATCH], targets[start : start + BATCH]


def time_alone(batches: Batches) -> float:
    """Return seconds per batch."""
    start = time.perf_counter()
    for _ in range(ALONE):
        next(batches)
    return (time.perf_counter() - start) / ALONE


def trainer(data: Data) -> Callable[[Batches], float]:
    """Return a function that trains for a while and returns seconds per step."""
    model = resnet20(data.train.sample_shape, data.outputs)
    set_memory_format(model, torch.channels_last)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def train(batches: Batches) -> float:
        start = time.perf_counter()
        for _ in range(TRAINED):
            inputs, targets = next(batches)
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16_is_faster()):
                outputs = model(inputs.contiguous(memory_format=torch.channels_last))
            F.cross_entropy(outputs.float(), targets).backward()
            optimizer.step()
        return (time.perf_counter() - start) / TRAINED

    return train


def measure(data: Data, dataset: PerSample, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return seconds per batch alone and per step, by pipeline and round."""
    pipelines = {
        "harness": of_split(data.train, view=True),
        "harness-plain": of_split(data.train, view=False),
        "loader-0": of_loader(dataset, 0),
        "loader-2": of_loader(dataset, 2),
        "floats": of_floats(data.train),
    }
    train = trainer(data)
    train(pipelines["floats"])  # the first steps choose kernels
    found = {name: {"alone": [], "train": []} for name in pipelines}
    for turn in range(rounds):
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
        for name in random.sample(list(pipelines), len(pipelines)):
            batches = pipelines[name]
            next(batches)  # starts workers
            found[name]["alone"].append(time_alone(batches))
            found[name]["train"].append(train(batches))
    return found


def row(name: str, seconds: dict[str, list[float]], floats: list[float]) -> dict[str, str]:
    """Return a row of the table."""
    rate = [BATCH / s for s in seconds["alone"]]
    steps = [1e3 * s for s in seconds["train"]]
    over = [1 - f / s for s, f in zip(seconds["train"], floats, strict=True)]
    numbers = {
        "samples_per_s": statistics.median(rate), "lo": min(rate), "hi": max(rate),
        "batch_ms": 1e3 * statistics.median(seconds["alone"]),
        "train_ms": statistics.median(steps), "train_lo_ms": min(steps), "train_hi_ms": max(steps),
        "overhead": statistics.median(over), "overhead_lo": min(over), "overhead_hi": max(over),
        "rounds": len(rate), "threads": torch.get_num_threads(),
    }  # fmt: skip
    return {"pipeline": name, **{key: f"{value:.4g}" for key, value in numbers.items()}}


def decoding(path: Path) -> dict[str, str]:
    """Return how fast the images are made ready in an empty cache, headers read first."""
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("HARNESS_CACHE_DIR")
        os.environ["HARNESS_CACHE_DIR"] = folder
        try:
            start = time.perf_counter()
            data = load_data(str(path))
            seconds = time.perf_counter() - start
        finally:
            os.environ.pop("HARNESS_CACHE_DIR")
            if before is not None:
                os.environ["HARNESS_CACHE_DIR"] = before
        count = sum(map(len, (data.train, data.validation, data.test)))
    return {"pipeline": "decode-once", "samples_per_s": f"{count / seconds:.4g}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="parquet of encoded images")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    use_all_cores()
    data = load_data(str(asked.data), augment="flip+shift")
    table = pq.read_table(asked.data, columns=["image", "label"]).slice(0, 20_000).to_pydict()
    images = [one["bytes"] if isinstance(one, dict) else one for one in table["image"]]
    dataset = PerSample(images, table["label"], data.train.scale)
    found = measure(data, dataset, asked.rounds)
    rows = [row(name, one, found["floats"]["train"]) for name, one in found.items()]
    rows.append(decoding(asked.data))
    with asked.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(asked.out.read_text())


if __name__ == "__main__":
    main()
