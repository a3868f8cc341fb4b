"""Brings one decoded image to the working resolution and number of channels."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from PIL import Image

DEEP_MODES: Final = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
"""Pillow modes of more than 8 bits: what is black and white has to be declared."""

MODES: Final = DEEP_MODES | {
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa"),
    *("CMYK", "YCbCr", "HSV"),
}
"""Modes that `to_square` accepts."""

_LARGEST_PADDING: Final = 4
_BLOCK: Final = 2**18


def windowed(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Map low to 0 and high to 255, and cut off what lies beyond.

    Args:
        values: Of any shape, integers or floats; not-a-number becomes 0.
        window: (low, high), declared; taking it from the values would fit a constant on
            private data.

    Returns:
        uint8 of the same shape.
    """
    size = values.dtype.itemsize
    if values.dtype.kind in "iu" and size <= 2 and values.size > 256**size:
        # Fewer values than pixels: each is worked out once, and looked up by its bits.
        bits = np.dtype(f"u{size}")
        return _windowed(np.arange(256**size, dtype=bits).view(values.dtype), window)[
            values.view(bits)
        ]
    # Some rows at a time, so that many pixels take no multiple of their memory.
    shown = np.empty(values.shape, np.uint8)
    rows = max(1, _BLOCK // max(1, math.prod(values.shape[1:])))
    for start in range(0, len(values), rows):
        shown[start : start + rows] = _windowed(values[start : start + rows], window)
    return shown


def _windowed(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    low, high = window
    with np.errstate(over="ignore", invalid="ignore"):
        share = (values.astype(np.float32) - low) * (255.0 / (high - low))
    share = np.nan_to_num(share, nan=0.0, posinf=255.0, neginf=0.0)
    return (np.clip(share, 0.0, 255.0) + 0.5).astype(np.uint8)


def to_square(
    image: Image.Image,
    resolution: int,
    channels: int,
    window: tuple[float, float] | None = None,
) -> np.ndarray:
    """Convert the mode, crop to the central square, resample by area.

    Transparency is dropped, as WILDS does. Images larger than the resolution are
    averaged over areas; smaller ones are enlarged bicubically.

    Args:
        image: Decoded, upright, in one of `MODES`.
        resolution: Side of the result in pixels.
        channels: 1 for grey, 3 for RGB.
        window: The declared range of values; needed for `DEEP_MODES` only.

    Returns:
        uint8 [resolution, resolution, channels].
    """
    if image.mode in DEEP_MODES:
        assert window is not None
        image = Image.fromarray(windowed(np.asarray(image), window))
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:  # Pillow would copy one that is right already.
        image = image.convert(mode)
    side = min(image.size)
    if image.width != image.height:
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if side != resolution:
        shrinks = side > resolution
        method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
        image = image.resize((resolution, resolution), method)
    return np.asarray(image, np.uint8).reshape(resolution, resolution, channels)


def grid_to_square(pixels: np.ndarray, resolution: int, channels: int) -> np.ndarray:
    """Bring one image of an array file (IDX, npz, HDF5) to the working resolution.

    A square grey image smaller than the resolution by at most 4 pixels is padded with
    zeros on all sides (28×28 to 32×32: two pixels per side, as EDM's own reader of
    MNIST does), so that every original pixel is kept. All others are resampled.

    Args:
        pixels: uint8 [rows, columns] or [rows, columns, 3].
        resolution: Side of the result in pixels.
        channels: 1 or 3.

    Returns:
        uint8 [resolution, resolution, channels].
    """
    rows, columns = pixels.shape[:2]
    missing = resolution - rows
    if pixels.ndim == 2 and rows == columns and 0 <= missing <= _LARGEST_PADDING:
        before = missing // 2
        padding = (before, missing - before)
        return np.repeat(np.pad(pixels, (padding, padding))[:, :, None], channels, 2)
    return to_square(Image.fromarray(pixels), resolution, channels)
