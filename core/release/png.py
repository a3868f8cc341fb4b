"""PNG files that hold pixels and nothing else."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

ALLOWED_CHUNKS = ("IHDR", "PLTE", "IDAT", "IEND")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode(pixels: Any) -> bytes:
    """A PNG file of raw pixels: no text, time, colour profile or other metadata.

    Args:
        pixels: uint8 array, [height, width] or [height, width, 3].
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def inspect(data: bytes) -> tuple[tuple[str, ...], tuple[int, int]]:
    """The chunk names in order, and (height, width).

    Raises:
        ValueError: If the bytes are no whole PNG file, with the reason.
    """
    if not data.startswith(_SIGNATURE):
        raise ValueError("is not a PNG file")
    names: list[str] = []
    size, position = (0, 0), len(_SIGNATURE)
    while not names or names[-1] != "IEND":
        if position + 12 > len(data):
            raise ValueError("is cut short")
        (length,) = struct.unpack_from(">I", data, position)
        name, end = data[position + 4 : position + 8], position + 12 + length
        if end > len(data):
            raise ValueError("is cut short")
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(data[position + 4 : end - 4]) != checksum:
            raise ValueError("is damaged")
        if not names:
            if name != b"IHDR" or length != 13:
                raise ValueError("does not start with an image header")
            width, height = struct.unpack_from(">II", data, position + 8)
            size = (height, width)
        names.append(name.decode("latin-1"))
        position = end
    if position != len(data):
        raise ValueError("holds bytes after the end of the image")
    return tuple(names), size
