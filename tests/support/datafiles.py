"""Small data sets in files, made on the spot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def pictures(count: int, seed: int = 0, side: int = 8, channels: int = 3) -> np.ndarray:
    """Return different random images, uint8 [N, H, W, C] or [N, H, W]."""
    shape = (count, side, side, channels) if channels > 1 else (count, side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def image_folder(
    root: Path, per_class: int = 50, classes: Sequence[str] = "ab", seed: int = 0
) -> Path:
    """Write `per_class` images of each class below `root`."""
    images = pictures(per_class * len(classes), seed)
    for i, pixels in enumerate(images):
        folder = root / classes[i % len(classes)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:04}.png").write_bytes(encoded(pixels))
    return root


def parquet(path: Path, count: int = 100, seed: int = 0, *, struct: bool = False,
            classes: int = 2, images: list | None = None, names: list[str] | None = None,
            **columns: list) -> Path:  # fmt: skip
    """Write encoded images and labels, as the hub does where `struct`."""
    found = images or [encoded(one) for one in pictures(count, seed)]
    column = [{"bytes": one, "path": None} for one in found] if struct else found
    if struct:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        array = pa.array(column, kind)
    else:
        array = pa.array(column)
    labels = [i % classes for i in range(len(found))]
    table = pa.table({"image": array, "label": labels, **columns})
    if names:
        features = f'{{"info": {{"features": {{"label": {{"names": {names!r}}}}}}}}}'
        table = table.replace_schema_metadata({"huggingface": features.replace("'", '"')})
    pq.write_table(table, path, row_group_size=16)
    return path
