"""Messages between this program and its decoders: a length, JSON, and raw bytes.

Nothing that a decoder sends is ever unpickled or run; it is a dictionary of JSON values
and bytes, both of bounded length, that the receiver has still to check.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any, Final

_LENGTHS: Final = struct.Struct(">IQ")
_MOST_JSON: Final = 4 * 1024 * 1024
_AT_ONCE: Final = 16 * 1024 * 1024


class BrokenFrame(Exception):
    """What came is no message, or the other side is gone."""


def send(pipe: IO[bytes], header: dict[str, Any], *blobs: bytes) -> None:
    """Write one message."""
    text = json.dumps(header).encode()
    length = sum(map(len, blobs))
    pipe.write(_LENGTHS.pack(len(text), length) + text)
    # At once, because each piece would wake the other side; but no copy of what is big.
    for blob in blobs if length > _AT_ONCE else (b"".join(blobs),):
        pipe.write(blob)
    pipe.flush()


def receive(pipe: IO[bytes], most: int) -> tuple[dict[str, Any], bytes]:
    """Read one message.

    Args:
        pipe: Where from.
        most: The most bytes that may follow the JSON.

    Raises:
        BrokenFrame: If the other side is gone, or sent something else.
    """
    text, blob = receive_text(pipe, _MOST_JSON, most)
    return parsed(text), blob


def receive_text(pipe: IO[bytes], most_json: int, most: int) -> tuple[bytes, bytes]:
    """Read one message, and leave its JSON as it is.

    Args:
        pipe: Where from.
        most_json: The most bytes of JSON. As values they take twenty times as many.
        most: The most bytes that may follow it. A longer claim is refused before
            anything is allocated for it.

    Raises:
        BrokenFrame: If the other side is gone, or claims more.
    """
    start = pipe.read(_LENGTHS.size)
    if len(start) < _LENGTHS.size:
        raise BrokenFrame
    json_length, blob_length = _LENGTHS.unpack(start)
    if json_length > most_json or blob_length > most:
        raise BrokenFrame
    text, blob = pipe.read(json_length), pipe.read(blob_length)
    if len(text) < json_length or len(blob) < blob_length:
        raise BrokenFrame
    return text, blob


def parsed(text: bytes) -> dict[str, Any]:
    """The header of a message.

    Raises:
        BrokenFrame: If it is no object of JSON.
    """
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise BrokenFrame from None
    if not isinstance(header, dict):
        raise BrokenFrame
    return header
