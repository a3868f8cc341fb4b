"""Brings one decoded image to the working resolution and number of channels."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

GREY_MODES: Final = frozenset({"1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow modes whose header says: one channel of light."""

_COLOUR_MODES: Final = frozenset(
    {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr", "HSV"}
)
MODES: Final = GREY_MODES | _COLOUR_MODES
"""Modes that `to_square` accepts. 32-bit floats are not among them: their range is not
public, and taking it from the pixels would fit a constant on private data."""

_LARGEST_PADDING: Final = 4


def to_square(image: Image.Image, resolution: int, channels: int) -> np.ndarray:
    """Convert the mode, crop to the central square, resample by area.

    16-bit grey is divided by 257, the ratio of the full ranges, whatever the image
    holds. Transparency is dropped, as WILDS does. Images larger than the resolution are
    averaged over areas; smaller ones are enlarged bicubically.

    Args:
        image: Decoded, upright, in one of `MODES`.
        resolution: Side of the result in pixels.
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 [resolution, resolution, channels].
    """
    if image.mode.startswith("I"):
        wide = np.clip(np.asarray(image, np.int64), 0, 65535)
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    image = image.convert("L" if channels == 1 else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != resolution:
        shrinks = side > resolution
        method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
        image = image.resize((resolution, resolution), method)
    return np.asarray(image, np.uint8).reshape(resolution, resolution, channels)


def grid_to_square(pixels: np.ndarray, resolution: int) -> np.ndarray:
    """Bring one grey IDX image to the working resolution.

    A square image smaller than the resolution by at most 4 pixels is padded with zeros
    on all sides (28×28 to 32×32: two pixels per side, as EDM's own reader of MNIST
    does), so that every original pixel is kept. All others are resampled.

    Args:
        pixels: uint8 [rows, columns].
        resolution: Side of the result in pixels.

    Returns:
        uint8 [resolution, resolution, 1].
    """
    rows, columns = pixels.shape
    missing = resolution - rows
    if rows == columns and 0 <= missing <= _LARGEST_PADDING:
        before = missing // 2
        padding = (before, missing - before)
        return np.pad(pixels, (padding, padding))[:, :, None]
    return to_square(Image.fromarray(pixels), resolution, 1)
