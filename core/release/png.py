"""PNG files that hold pixels and nothing else."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

CHUNKS = ("IHDR", "IDAT", "IEND")
"""What holds pixels; a palette would be text to spare in an image without one."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}
_LAST_FILTER = 4
_MOST_BYTES = 1 << 28
"""Of the pixels of one image, so that a few bytes cannot fill the memory."""


def encode(pixels: Any) -> bytes:
    """A PNG file of raw pixels: no text, time, colour profile or other metadata.

    Args:
        pixels: uint8 array, [height, width] or [height, width, 3].
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def check(data: bytes, *, height: int, width: int, channels: int) -> None:
    """Refuse bytes that hold more or less than the pixels of one image.

    Args:
        data: The file.
        height, width: In pixels.
        channels: 1 or 3, of 8 bits each.

    Raises:
        ValueError: With the reason, to be put behind the name of the file.
    """
    parts = chunks(data)
    names = [name for name, _ in parts]
    for name in names:
        if name not in CHUNKS:
            raise ValueError(f"holds a {name!r} chunk, which is not pixels")
    if names.count("IHDR") != 1 or parts[-1][1]:
        raise ValueError("holds bytes that are not pixels")
    header = parts[0][1]
    if header[:8] != struct.pack(">II", width, height):
        raise ValueError("has another size than audit.json says")
    if header[8:] != bytes((8, _COLOUR_TYPES[channels], 0, 0, 0)):
        raise ValueError("has another colour or depth than audit.json says")
    # PRIVACY: what does not decode to pixels could be anything, a name for instance.
    compressed = b"".join(content for name, content in parts if name == "IDAT")
    _check_pixels(compressed, height, width * channels)


def _check_pixels(compressed: bytes, height: int, row: int) -> None:
    """Refuse what does not decode to just as many rows, each behind its filter."""
    size = height * (1 + row)
    if size > _MOST_BYTES:
        raise ValueError("is larger than any image of this program")
    decoder = zlib.decompressobj()
    try:
        pixels = decoder.decompress(compressed, size + 1)
    except zlib.error:
        raise ValueError("holds pixels that cannot be decoded") from None
    if len(pixels) != size or not decoder.eof:
        raise ValueError("holds more or fewer pixels than its size calls for")
    if decoder.unused_data or decoder.unconsumed_tail:
        raise ValueError("holds bytes behind its pixels")
    if max(pixels[:: 1 + row]) > _LAST_FILTER:
        raise ValueError("holds pixels that cannot be decoded")


def chunks(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """Name and content of every chunk, in order: the header first, the end last.

    Raises:
        ValueError: If the bytes are no whole PNG file, with the reason.
    """
    if not data.startswith(_SIGNATURE):
        raise ValueError("is not a PNG file")
    found: list[tuple[str, bytes]] = []
    position = len(_SIGNATURE)
    while not found or found[-1][0] != "IEND":
        if position + 12 > len(data):
            raise ValueError("is cut short")
        (length,) = struct.unpack_from(">I", data, position)
        name, end = data[position + 4 : position + 8], position + 12 + length
        if end > len(data):
            raise ValueError("is cut short")
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(data[position + 4 : end - 4]) != checksum:
            raise ValueError("is damaged")
        if not found and (name != b"IHDR" or length != 13):
            raise ValueError("does not start with an image header")
        found.append((name.decode("latin-1"), data[position + 8 : end - 4]))
        position = end
    if position != len(data):
        raise ValueError("holds bytes after the end of the image")
    return tuple(found)
