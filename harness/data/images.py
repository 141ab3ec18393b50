"""One encoded image to uint8 `[C, H, W]`.

- EXIF orientation is applied.
- Transparent pixels are laid over white; palettes, CMYK and the like become RGB; 16-bit greys are
  scaled to 8 bits.
- A resize keeps the whole image (no crop, the aspect gives way) and is bilinear with
  anti-aliasing.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of images that have no colour."""
_SWAPS_SIDES = (5, 6, 7, 8)
"""EXIF orientations that turn an image by a quarter."""
_ORIENTATION = 0x0112
_DRAFT = 2
"""JPEGs are decoded at no more than needed to resize from twice the size asked."""


@dataclass(frozen=True, slots=True)
class ImageForm:
    """The form that all images of a data set share.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        height, width: Pixels.
        resize: Whether images of another size are resized, or refused.
    """

    channels: int
    height: int
    width: int
    resize: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """`[C, H, W]`."""
        return self.channels, self.height, self.width


def look(encoded: bytes | Path) -> tuple[int, int, bool]:
    """Return height, width and whether it is grey, from an image's header.

    Raises:
        Exception: What Pillow raises where it is no image.
    """
    with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION) in _SWAPS_SIDES:
            width, height = height, width
        return height, width, image.mode in GREY


def decode(encoded: bytes | Path, form: ImageForm) -> NDArray[np.uint8]:
    """Return an image as uint8 `[C, H, W]`.

    Args:
        encoded: The bytes of a file, or its path.
        form: What is wanted.

    Raises:
        Exception: What Pillow raises where it is no whole image; ValueError where its size is
            another and may not be changed, or its values have no known range.
    """
    with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
        if form.resize:
            side = _DRAFT * max(form.height, form.width)
            image.draft(None, (side, side))
        return fitted(image, form)


def fitted(image: Image.Image, form: ImageForm) -> NDArray[np.uint8]:
    """Return a Pillow image as uint8 `[C, H, W]`; raises as `decode` does."""
    plain = _plain(ImageOps.exif_transpose(image)).convert("L" if form.channels == 1 else "RGB")
    if plain.size != (form.width, form.height):
        if not form.resize:
            found = f"{plain.height}x{plain.width}"
            raise ValueError(f"it is {found}, others are {form.height}x{form.width}")
        plain = plain.resize((form.width, form.height), Image.Resampling.BILINEAR)
    pixels = np.asarray(plain, dtype=np.uint8)
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)


def _plain(image: Image.Image) -> Image.Image:
    """Return an 8-bit image without transparency."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray((wide.clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its values are floating-point numbers, whose range is not known")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(white, clear)
    return image
