"""Turns the bytes of one file into pixels. Runs in a decoder process, never here.

Whatever is raised concerns this one file: the decoder says so and takes the next.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import (
    BmpImagePlugin,  # noqa: F401  (a locked decoder can load no plugin any more)
    Image,
    ImageOps,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
)

from core.data.plain_png import decode_plain
from core.data.refusals import MAX_PIXELS, Refused
from core.data.resampling import DEEP_MODES, MODES, to_square

FORMATS: Final = ("PNG", "JPEG", "TIFF", "BMP")
"""The only decoders of Pillow that are ever tried, whatever a file is called."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the images are to become.

    Attributes:
        resolution: Side of the result in pixels.
        channels: 1 or 3.
        window: The declared range of deep pixels, or None.
    """

    resolution: int
    channels: int
    window: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One image out of a file.

    Attributes:
        pixels: uint8 [resolution, resolution, channels].
        width: Pixels in the file, after turning it upright.
        height: The same.
        mode: What the header says, in Pillow's words ("RGB", "L", "I;16") or DICOM's.
    """

    pixels: np.ndarray
    width: int
    height: int
    mode: str


def decode(content: bytes, wanted: Wanted) -> list[Decoded]:
    """All images of one file, upright: one, or the frames of a DICOM file.

    Raises:
        Refused: If the file breaks a rule of ours.
        Exception: Anything at all, if its bytes are damaged or hostile.
    """
    if not content:
        raise Refused("empty file")
    if content[128:132] == b"DICM":
        from core.data.dicom import decode_dicom

        return decode_dicom(content, wanted)
    plain = decode_plain(content)
    image = plain or _opened(content, wanted)
    mode = image.mode
    if plain is None:  # Plain files say nothing of a turn.
        ImageOps.exif_transpose(image, in_place=True)
    width, height = image.size
    pixels = to_square(image, wanted.resolution, wanted.channels, wanted.window)
    return [Decoded(pixels=pixels, width=width, height=height, mode=mode)]


def _opened(content: bytes, wanted: Wanted) -> Image.Image:
    """Open by content, with our own limits checked before any pixel is decoded."""
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise Refused("too many pixels")
    if image.format in ("TIFF", "PNG") and getattr(image, "is_animated", False):
        raise Refused("several frames")
    if image.mode not in MODES:
        raise Refused("unsupported mode", mode=image.mode)
    if image.mode in DEEP_MODES and wanted.window is None:
        raise Refused("no window", mode=image.mode)
    return image
