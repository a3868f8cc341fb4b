"""An image of a release holds its pixels, and not one byte besides."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from core.release import png
from core.release.audit import canonical
from core.release.dataset import content_hashes
from core.release.verify import DOCUMENTS, verify
from tests.core.release.test_verify import IMAGE, said

ROWS = b"".join(b"\0" + bytes(24) for _ in range(8))
PIXELS = zlib.compress(ROWS)
WHO = b"Jane Doe, ward 7"


def header(*, height=8, width=8, depth=8, colour=2, rest=(0, 0, 0)) -> bytes:
    return struct.pack(">II", width, height) + bytes((depth, colour, *rest))


def file(*chunks: tuple[bytes, bytes], start: bytes | None = None) -> bytes:
    """A PNG file of a header, these chunks, and right checksums."""
    made = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", start or header()), *chunks):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        made += struct.pack(">I", len(content)) + name + content + checksum
    return made


END = (b"IEND", b"")
WRONG = {
    "text for pixels": file((b"IDAT", WHO), END),
    "text behind the pixels": file((b"IDAT", PIXELS + WHO), END),
    "text in a chunk of its own": file((b"IDAT", PIXELS), (b"IDAT", WHO), END),
    "text in the end": file((b"IDAT", PIXELS), (b"IEND", WHO)),
    "text in a palette": file((b"PLTE", WHO[:15]), (b"IDAT", PIXELS), END),
    "text in a second header": file((b"IHDR", WHO[:13]), (b"IDAT", PIXELS), END),
    "text as a row more": file((b"IDAT", zlib.compress(ROWS + WHO)), END),
    "a row less": file((b"IDAT", zlib.compress(ROWS[25:])), END),
    "a stream cut short": file((b"IDAT", PIXELS[:-4]), END),
    "an unknown filter": file((b"IDAT", zlib.compress(b"\5" + ROWS[1:])), END),
    "no pixels": file(END),
    "a bomb": file((b"IDAT", zlib.compress(bytes(10**7))), END),
    "another size": file((b"IDAT", PIXELS), END, start=header(height=4)),
    "another depth": file((b"IDAT", PIXELS), END, start=header(depth=16)),
    "another colour": file((b"IDAT", PIXELS), END, start=header(colour=0)),
    "rows out of order": file((b"IDAT", PIXELS), END, start=header(rest=(0, 0, 1))),
}


def test_pixels_alone_pass():
    png.check(file((b"IDAT", PIXELS), END), height=8, width=8, channels=3)
    halves = (b"IDAT", PIXELS[:9]), (b"IDAT", PIXELS[9:])
    png.check(file(*halves, END), height=8, width=8, channels=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_exported_passes(channels):
    shape = (300, 200, 3) if channels == 3 else (300, 200)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    png.check(png.encode(pixels), height=300, width=200, channels=channels)


@pytest.mark.parametrize("what", WRONG)
def test_anything_else_does_not(what):
    with pytest.raises(ValueError, match=r"^(holds|has another)"):
        png.check(WRONG[what], height=8, width=8, channels=3)


def test_a_size_that_no_memory_holds_is_not_unpacked():
    huge = file((b"IDAT", PIXELS), END, start=header(height=1 << 20, width=1 << 20))
    with pytest.raises(ValueError, match="larger"):
        png.check(huge, height=1 << 20, width=1 << 20, channels=3)


def test_an_image_that_is_none_is_a_finding(release, resummed):
    """The forger lists it everywhere, in audit.json too."""
    import json

    (release / IMAGE).write_bytes(WRONG["text behind the pixels"])
    resummed(release)
    lines = (release / "SHA256SUMS").read_text().splitlines()
    listed = {
        name: value for value, _, name in (line.partition("  ") for line in lines)
    }
    audit = json.loads((release / "audit.json").read_text())
    audit["content_hashes"] = content_hashes(
        {name: value for name, value in listed.items() if name not in DOCUMENTS}
    )
    (release / "audit.json").write_bytes(canonical(audit))
    assert f"{IMAGE} holds bytes behind its pixels." in said(release)
    assert not verify(release).holds
