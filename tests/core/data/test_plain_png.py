"""The quick decoder gives what Pillow gives, or leaves the file to Pillow."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from core.data import plain_png
from core.data.decoding import Wanted, decode
from core.data.plain_png import decode_plain

MODES = {"L": 1, "RGB": 3, "RGBA": 4}
RNG = np.random.default_rng(0)


def picture(mode, size=(9, 7)):
    pixels = RNG.integers(0, 256, (size[1], size[0], MODES[mode]), np.uint8)
    return Image.fromarray(pixels[:, :, 0] if mode == "L" else pixels)


def png(image, **settings):
    file = io.BytesIO()
    image.save(file, "PNG", **settings)
    return file.getvalue()


def with_chunk(content, kind, body=b""):
    """Put one more chunk, with a right checksum, behind the header."""
    checksum = zlib.crc32(kind + body).to_bytes(4, "big")
    chunk = len(body).to_bytes(4, "big") + kind + body + checksum
    return content[:33] + chunk + content[33:]


def header_byte(content, place, value):
    """Change one byte of the header, and its checksum with it."""
    header = bytearray(content[12:29])
    header[4 + place] = value
    return content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (9, 7), (96, 96)])
def test_plain_files_are_decoded_as_pillow_does(mode, size):
    original = picture(mode, size)
    found = decode_plain(png(original, dpi=(72, 72)))
    assert (found.mode, found.size) == (mode, size)
    assert found.tobytes() == original.tobytes()


def test_decoding_takes_the_quick_way(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError

    content = png(picture("RGB"))
    monkeypatch.setattr(Image, "open", refuse)
    (found,) = decode(content, Wanted(resolution=4, channels=3))
    assert (found.width, found.height, found.mode) == (9, 7, "RGB")


TURNED = Image.Exif()
TURNED[0x0112] = 6
WORDS = PngImagePlugin.PngInfo()
WORDS.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')

OTHERS = {
    "palette": png(picture("L").convert("P")),
    "one bit": png(picture("L").convert("1")),
    "sixteen bits": png(Image.fromarray(np.zeros((7, 9), np.uint16))),
    "grey with transparency": png(picture("RGBA").convert("LA")),
    "a transparent colour": png(picture("RGB"), transparency=(0, 0, 0)),
    "turned by EXIF": png(picture("RGB"), exif=TURNED),
    "turned by XMP": png(picture("RGB"), pnginfo=WORDS),
    "animated": png(picture("RGB"), save_all=True, append_images=[picture("RGB")]),
    "unknown chunk": with_chunk(png(picture("RGB")), b"quAK"),
    "more after its end": png(picture("RGB")) + b"more",
    "no PNG": b"\xff\xd8" + png(picture("RGB")),
    "header only": png(picture("RGB"))[:28],
    "empty": b"",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_everything_else_is_left_to_pillow(kind):
    assert decode_plain(OTHERS[kind]) is None


@pytest.mark.parametrize("mode", MODES)
def test_every_damaged_byte_and_every_cut_is_left_to_pillow(mode):
    whole = png(picture(mode), dpi=(72, 72))
    for place in range(len(whole)):
        assert decode_plain(whole[:place]) is None
        damaged = bytearray(whole)
        damaged[place] ^= 0x20
        assert decode_plain(bytes(damaged)) is None


@pytest.mark.parametrize(("place", "value"), [(0, 0x70), (3, 0), (7, 0)])
def test_no_room_is_made_for_sizes_that_are_refused(place, value, monkeypatch):
    calls = []
    monkeypatch.setattr(plain_png, "decode_image_png_u8", lambda *_: calls.append(_))
    assert decode_plain(header_byte(png(picture("L")), place, value)) is None
    assert not calls


SAMPLES = [png(picture(mode, size)) for mode in MODES for size in ((3, 2), (20, 31))]


@given(
    whole=st.sampled_from(SAMPLES),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), max_size=3),
)
def test_what_both_accept_is_the_same(whole, changes):
    """Bytes replaced anywhere, the checksums of all chunks made to fit again."""
    content = bytearray(whole)
    for share, new in changes:
        place = int(share * len(content))
        content[place : place + len(new)] = new
    mended = with_right_checksums(bytes(content))
    found = decode_plain(mended)
    if found is None:
        return
    try:
        with Image.open(io.BytesIO(mended)) as expected:
            expected.load()
    except (OSError, SyntaxError, ValueError):
        return
    assert found.mode == expected.mode
    assert found.tobytes() == expected.tobytes()


def with_right_checksums(content):
    mended, at = bytearray(content), 8
    while at + 12 <= len(mended):
        end = at + 8 + int.from_bytes(mended[at : at + 4], "big")
        if end + 4 > len(mended):
            break
        mended[end : end + 4] = zlib.crc32(mended[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(mended)
