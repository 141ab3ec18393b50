"""The embedded task: scikit-learn's digits at 32x32 with fixed corruptions; no download.

The 1,797 images of 8x8 pixels are split once; each training image is seen under eight corruptions
and each validation or test image under one, so that test samples stay independent. Everything is
drawn from one fixed seed and rounded to whole grey levels.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage
from sklearn.datasets import load_digits

from harness.data.split import Data, Scale, Split
from harness.models.network import Network
from harness.models.residual import BLOCKS, WIDTHS, ResidualCnn
from harness.tasks.base import Task
from harness.tasks.objective import make_objective
from harness.tasks.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 32
N_TEST, N_VALIDATION, TRAIN_COPIES = 600, 400, 8
_SEED = 20260101
DESCRIPTION = "scikit-learn's digits, 32x32, corrupted; a small residual CNN"
RECIPE = Recipe(
    teacher_epochs=8, trial_epochs=2, batch=64, teacher_lr=0.1, trial_lr=0.05, weight_decay=5e-4
)


def digits() -> Task:
    """Return handwritten digits, ten classes, with a small residual CNN, untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = ResidualCnn(1, WIDTHS, BLOCKS, classes=10).eval()
    data = digits_data()
    return Task(
        name="digits",
        network=Network(network, "residual-cnn"),
        data=data,
        objective=make_objective(data),
        recipe=RECIPE,
        source={"task": "digits"},
        description=DESCRIPTION,
    )


def digits_data() -> Data:
    """Return 6,376 training samples (797 images under eight corruptions), 400 and 600 others."""
    splits = {name: _split(name) for name in _data()}
    return Data(
        name="digits", kind="classification", outputs=10, sha256=_sha256(),
        classes=tuple(map(str, range(10))), origin="made once, from a fixed seed",
        description=DESCRIPTION, train=splits["train"], validation=splits["validation"],
        test=splits["test"],
    )  # fmt: skip


def _sha256() -> str:
    digest = hashlib.sha256()
    for name, (images, labels) in sorted(_data().items()):
        digest.update(name.encode() + images.tobytes() + labels.tobytes())
    return digest.hexdigest()


@functools.cache
def _data() -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Return every split as grey levels `[N, 32, 32]` and labels `[N]`."""
    digits = load_digits()
    rng = np.random.default_rng(_SEED)
    order = rng.permutation(len(digits.images))
    images, labels = digits.images[order] / 16.0, digits.target[order].astype(np.int64)
    stops = (N_TEST, N_TEST + N_VALIDATION)
    parts = {
        "test": (slice(0, stops[0]), 1),
        "validation": (slice(*stops), 1),
        "train": (slice(stops[1], None), TRAIN_COPIES),
    }
    return {
        name: (
            np.stack([_corrupt(image, rng) for _ in range(copies) for image in images[part]]),
            np.tile(labels[part], copies),
        )
        for name, (part, copies) in parts.items()
    }


def _corrupt(image: NDArray[np.floating[Any]], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Upscale 8x8 (0..1) to 32x32, turned, sheared, moved, dimmed, occluded and noisy."""
    angle, shear = np.deg2rad(rng.uniform(-15, 15)), rng.uniform(-0.15, 0.15)
    scale, centre = rng.uniform(2.4, 3.4), (SIDE - 1) / 2 + rng.uniform(-3, 3, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, shear], [0, 1]]) / scale
    offset = np.array([3.5, 3.5]) - matrix @ centre
    large = ndimage.affine_transform(image, matrix, offset, (SIDE, SIDE), order=1)
    large = large * rng.uniform(0.5, 1)
    y, x = rng.integers(0, SIDE - 4, 2)
    large[y : y + 5, x : x + 5] = rng.uniform(0, 1)
    large = large + rng.normal(0, 0.15, large.shape)
    return np.asarray(np.round(np.clip(large, 0, 1) * 255), dtype=np.uint8)


@functools.cache
def _split(name: str) -> Split:
    images, labels = _data()[name]
    scale = Scale(mean=(0.2,), std=(0.3,), factor=1 / 255)
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels), scale=scale)
