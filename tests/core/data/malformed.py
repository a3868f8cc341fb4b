"""Makes malformed inputs by the hundred, the same ones every time."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
import pydicom

from tests.core.data.fakes import idx_bytes, image

CUTS = 14
FLIPS = 14


def damaged(content: bytes, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Cut at many places, most of them near the start, and flipped bit by bit."""
    rng = np.random.default_rng([seed, len(content)])
    early = rng.integers(0, min(200, len(content)), CUTS // 2)
    late = rng.integers(0, len(content), CUTS - CUTS // 2)
    for cut in sorted({0, 1, *early.tolist(), *late.tolist()}):
        yield f"cut{cut}", content[:cut]
    for number in range(FLIPS):
        changed = bytearray(content)
        reach = min(200, len(content)) if number % 2 else len(content)
        for place in rng.integers(0, reach, 1 + number % 4):
            changed[place] ^= 1 << int(rng.integers(8))
        yield f"flip{number}", bytes(changed)
    half = len(content) // 2
    yield "zeros", content[:half] + bytes(len(content) - half)
    yield "twice", content + content
    yield "shifted", b"\0" + content
    yield "backwards", content[::-1]


def chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(width: int, height: int, *chunks: bytes, depth=8, colour=2, body=b"") -> bytes:
    start = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", start), *chunks, chunk(b"IDAT", body or zlib.compress(b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def tiff(entries: list[tuple[int, int, int, int]], next_directory: int = 0) -> bytes:
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    count = struct.pack("<H", len(entries))
    return b"II*\0\x08\0\0\0" + count + fields + struct.pack("<I", next_directory)


def images() -> Iterator[tuple[str, bytes]]:
    """Files that are called images, by name."""
    for name, settings in (
        ("PNG", {}),
        ("JPEG", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
    ):
        file = io.BytesIO()
        image(3, (40, 30)).save(file, name, **settings)
        for kind, content in damaged(file.getvalue()):
            yield f"{name}-{kind}", content
    for name in ("GIF", "WEBP", "PPM", "ICO", "EPS", "PDF", "ICNS", "TGA", "PCX"):
        file = io.BytesIO()
        image(3).save(file, name)
        yield f"is-{name}", file.getvalue()
    bomb = zlib.compress(bytes(20_000_000), 9)
    text = b"k\0\0" + zlib.compress(b"A" * 50_000_000, 9)
    yield "bomb-8001", png(8001, 8001)
    yield "bomb-max", png(2**31 - 1, 2**31 - 1)
    yield "bomb-one-row", png(2**31 - 1, 1)
    yield "bomb-tall", png(1, 2**31 - 1)
    yield "bomb-deep", png(60_000, 60_000, depth=16)
    yield "bomb-body", png(10, 10, body=bomb)
    yield "bomb-text", png(10, 10, chunk(b"zTXt", text), body=zlib.compress(bytes(310)))
    yield "bomb-itxt", png(10, 10, chunk(b"iTXt", b"k\0\1\0\0\0" + text[3:]))
    yield "bomb-profile", png(10, 10, chunk(b"iCCP", text))
    yield "no-size", png(0, 0)
    yield "no-body", png(10, 10)
    yield "odd-depth", png(10, 10, depth=3)
    yield "odd-colour", png(10, 10, colour=5)
    yield "many-chunks", png(10, 10, *[chunk(b"tEXt", b"a\0b")] * 20_000)
    yield "long-chunk", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31 - 1) + b"IHDR"
    sizes = [(256, 4, 1, 60_000), (257, 4, 1, 60_000), (258, 3, 1, 8)]
    yield "tiff-huge", tiff(sizes)
    yield "tiff-loop", tiff([(256, 4, 1, 9), (257, 4, 1, 9)], next_directory=8)
    yield "tiff-counts", tiff([(256, 4, 2**32 - 1, 8), (257, 4, 1, 9)])
    yield "tiff-many", tiff([(number, 4, 1, 1) for number in range(60_000)])
    yield "tiff-offset", b"II*\0" + struct.pack("<I", 2**32 - 1)
    header = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
    for name, size in (("wide", (2**31 - 1, 1)), ("high", (1, -(2**31)))):
        bmp = struct.pack("<IiiHHIIiiII", 40, *size, 1, 24, 0, 0, 0, 0, 0, 0)
        yield f"bmp-{name}", header + bmp
    yield (
        "jpeg-huge",
        (
            b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01"
            b"\x03\x11\x01\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00\xff\xd9"
        ),
    )
    yield "jpeg-markers", b"\xff\xd8" + b"\xff\xe1\xff\xff" * 5000
    for name, content in {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "html": b"<html><img src='file:///etc/passwd'></html>",
        "elf": b"\x7fELF" + bytes(60),
        "pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
        "zip": b"PK\x03\x04" + bytes(30),
        "zeros": bytes(5000),
        "ones": b"\xff" * 5000,
        "text": "Ωмега ".encode() * 100,
        "nothing": b"",
    }.items():
        yield f"is-{name}", content


def dicoms() -> Iterator[tuple[str, bytes]]:
    """Files that start as DICOM, by name."""
    from tests.core.data.test_dicom import as_bytes, dicom

    whole = dicom(np.arange(64, dtype=np.uint8).reshape(8, 8))
    yield from damaged(as_bytes(whole))
    for number, changes in enumerate(
        [
            {"Rows": 65535, "Columns": 65535},
            {"NumberOfFrames": 2**31 - 1},
            {"NumberOfFrames": -1},
            {"BitsAllocated": 64},
            {"BitsAllocated": 0},
            {"SamplesPerPixel": 9},
            {"PhotometricInterpretation": "NONSENSE"},
            {"RescaleSlope": 1e300, "RescaleIntercept": -1e300},
            {"WindowCenter": 0, "WindowWidth": -5},
            {"PatientID": "p" * 60_000},
            {"PatientID": "\x1b[2J\\p"},
            {"PixelData": b""},
        ]
    ):
        with pydicom.config.disable_value_validation():
            changed = dicom(np.zeros((8, 8), np.uint8), **changes)
            yield f"odd{number}", as_bytes(changed)
    level = b"\x08\0\x06\0SQ\0\0" + b"\xff" * 4 + b"\xfe\xff\0\xe0" + b"\xff" * 4
    content = as_bytes(whole)
    start = content.index(b"\x08\0\x16\0")
    for depth in (100, 5000, 100_000):
        nested = content[:start] + level * depth + content[start:]
        yield f"nested{depth}", nested


def tables() -> Iterator[tuple[str, bytes]]:
    """Manifests, by name; each of them is wrong in one way."""
    good = "path,label,patient\n" + "".join(
        f"{n}.png,{'ab'[n % 2]},p{n // 2}\n" for n in range(6)
    )
    lines = good.splitlines()
    for name, text in {
        "empty": "",
        "only-header": "path,label",
        "no-header": "\n".join(lines[1:]),
        "duplicate-header": good.replace("patient", "label"),
        "nul": good.replace("p1", "p\0001"),
        "open-quote": good.replace("2.png", '"2.png'),
        "quote-inside": good.replace("2.png", '"2".png'),
        "few-fields": good.replace(",p1", ""),
        "many-fields": good.replace(",p1", ",p1,x"),
        "bidi": good.replace("2.png", "\u202egnp.2"),
        "zero-width": good.replace("2.png", "2\u200b.png"),
        "escape": good.replace("p1", "\x1b[2Jp1"),
        "long-field": good.replace("p1", "p" * 5000),
        "longer-field": good.replace("p1", "p" * 500_000),
        "wide": ",".join(f"c{n}" for n in range(50_000)),
        "other-separators": good.replace(",", ";").replace("path;", "path,"),
        "semicolons-below": good.replace(",", ";").replace(";", ",", 2),
        "up": good.replace("2.png", "../2.png"),
        "absolute": good.replace("2.png", "/etc/hostname"),
        "drive": good.replace("2.png", "C:\\2.png"),
        "share": good.replace("2.png", "//server/share/2.png"),
        "stream": good.replace("2.png", "2.png:x"),
        "device": good.replace("2.png", "AUX.png"),
        "newline-path": good.replace("2.png", '"2\n.png"'),
        "split": good.replace("patient", "split"),
        "one-class": good.replace(",b,", ",a,"),
        "one-image": "\n".join(lines[:2]),
        "no-patient": good.replace("p1", ""),
        "json": json.dumps({"path": ["a"]}),
        "only-bom": "\ufeff",
        "huge-number": good.replace("a,p", "9" * 5000 + ",p"),
    }.items():
        yield name, text.encode()
    yield "utf-16", good.encode("utf-16")
    yield "latin-1", good.replace("a,", "ä,").encode("latin-1")
    yield "bytes", bytes(range(256)) * 10
    yield "zip", b"PK\x03\x04" + bytes(100)


def harmless_tables() -> Iterator[tuple[str, bytes]]:
    """Manifests that look odd and mean what they say."""
    good = "path,label,patient\n" + "".join(
        f"{n}.png,{'ab'[n % 2]},p{n // 2}\n" for n in range(6)
    )
    yield "bom", b"\xef\xbb\xbf" + good.encode()
    yield "crlf", good.replace("\n", "\r\n").encode()
    yield "blank-lines", good.replace("\n", "\n\n").encode()
    yield "quotes", good.replace("2.png", '"2.png"').encode()
    yield "spaces", good.replace(",", " , ").encode()
    yield "formula", good.replace("a,", "=cmd|' /C calc'!A0,").encode()
    yield "semicolons", good.replace(",", ";").encode()
    yield "tabs", good.replace(",", "\t").encode()
    yield "scripts", good.replace("a,", "病理 ß,").encode()


def idx_pairs() -> Iterator[tuple[str, bytes, bytes]]:
    """(name, images, labels): IDX files, one of the two wrong."""
    pixels = np.arange(12 * 64, dtype=np.uint32).astype(np.uint8).reshape(12, 8, 8)
    good = idx_bytes(pixels)
    numbers = idx_bytes(np.arange(12, dtype=np.uint8) % 3)
    for cut in range(0, 17):
        yield f"images-cut{cut}", good[:cut], numbers
    for cut in range(0, 9):
        yield f"labels-cut{cut}", good, numbers[:cut]
    for place in range(0, 16):
        changed = bytearray(good)
        changed[place] ^= 0x41
        yield f"images-byte{place}", bytes(changed), numbers
    for place in range(0, 8):
        changed = bytearray(numbers)
        changed[place] ^= 0x41
        yield f"labels-byte{place}", good, bytes(changed)
    packed = gzip.compress(good)
    for cut in (2, 5, 10, 20, len(packed) - 9, len(packed) - 1):
        yield f"gzip-cut{cut}", packed[:cut], numbers
    bomb = b"\0\0\x08\x03" + struct.pack(">3I", 12, 8, 8) + bytes(80_000_000)
    yield "gzip-bomb", gzip.compress(bomb, 9), numbers
    yield "gzip-extra", packed + b"more", numbers
    yield "labels-1000", good, idx_bytes(np.full(12, 1000, np.int32))


def npz_files() -> Iterator[tuple[str, bytes]]:
    """MedMNIST files, each of them wrong in one way."""
    file = io.BytesIO()
    arrays = {
        f"{split}_{kind}": np.zeros((6, 8, 8) if kind == "images" else (6, 1), np.uint8)
        for split in ("train", "val", "test")
        for kind in ("images", "labels")
    }
    arrays["train_labels"] = np.arange(6, dtype=np.uint8)[:, None] % 2
    np.savez(file, **arrays)
    whole = file.getvalue()
    for kind, content in damaged(whole):
        if kind not in ("twice", "shifted"):  # a zip file is read from its end
            yield kind, content
    for name, header in {
        "shape": "{'descr':'|u1','fortran_order':False,'shape':(2**9,8,8)}",
        "negative": "{'descr':'|u1','fortran_order':False,'shape':(-1,8,8)}",
        "object": "{'descr':'|O','fortran_order':False,'shape':(6,8,8)}",
        "order": "{'descr':'|u1','fortran_order':True,'shape':(6,8,8)}",
        "code": "__import__('os').system('touch /tmp/sfumato-ran')",
        "nested": "(" * 9000,
        "missing": "{'descr':'|u1'}",
        "fields": "{'descr':[('a','u1')],'fortran_order':False,'shape':(6,8,8)}",
        "huge": "{'descr':'|u1','fortran_order':False,'shape':(9000000,4000,4000)}",
        "long": " " * 60_000,
    }.items():
        text = header.encode() + b"\n"
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train_images.npy", start + bytes(6 * 64))
            labels = io.BytesIO()
            np.save(labels, np.zeros((6, 1), np.uint8))
            archive.writestr("train_labels.npy", labels.getvalue())
        yield f"header-{name}", out.getvalue()


def hdf5_files() -> Iterator[tuple[str, bytes]]:
    """Labels of PatchCamelyon, by name; some flipped bits leave them as they were."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as content:
        content.create_dataset("y", data=np.arange(24, dtype=np.uint8) % 2)
    yield from damaged(file.getvalue())


def json_indexes() -> Iterator[tuple[str, bytes]]:
    """Files `dataset.json`, by name; each of them is wrong in one way."""
    good = {"labels": [[f"{n}.png", n % 2] for n in range(6)]}
    text = json.dumps(good)
    for cut in range(1, len(text), 17):
        yield f"cut{cut}", text[:cut].encode()
    for name, wrong in {
        "up": text.replace("2.png", "../2.png"),
        "absolute": text.replace("2.png", "/etc/hostname"),
        "drive": text.replace("2.png", "C:\\\\2.png"),
        "device": text.replace("2.png", "NUL.png"),
        "nul": text.replace("2.png", "2\\u0000.png"),
        "bidi": text.replace("2.png", "\u202egnp.2"),
        "no-labels": json.dumps({"labels": None}),
        "other": json.dumps({"images": []}),
        "list": json.dumps([1, 2]),
        "twice": text.replace("}", ', "labels": []}'),
        "infinite": text.replace("0]", "Infinity]"),
        "fraction": text.replace("0]", "0.5]"),
        "truth": text.replace("0]", "true]"),
        "vector": text.replace("0]", "[0, 1]]"),
        "deep": "[" * 100_000,
        "huge": text.replace("0]", "9" * 5000 + "]"),
        "one-class": text.replace("1]", "0]"),
        "comma": text.replace("]]", "],]"),
        "empty": "",
        "null": "null",
    }.items():
        yield name, wrong.encode()
    yield "utf-16", text.encode("utf-16")
    yield "latin-1", text.replace("2.png", "ä.png").encode("latin-1")


NAMES = [
    "Ελληνικά.png",
    "русский.png",
    "日本語の画像.png",
    "한국어.png",
    "العربية.png",
    "עברית.png",
    "हिन्दी.png",
    "ไทย.png",
    "👩‍⚕️🩻.png",
    "e\u0301.png",
    "\u00e9.png",
    "A.png",
    "a.png",
    "ß.png",
    "SS.png",
    "İ.png",
    "ı.png",
    " leading.png",
    "trailing .png",
    "-rf.png",
    "--help.png",
    "$(touch x).png",
    "`x`.png",
    "a;b.png",
    "a'b\"c.png",
    "new\nline.png",
    "tab\there.png",
    "back\\slash.png",
    "colon:name.png",
    "per%00cent.png",
    "\x1b[2Jescape.png",
    "\u202egnp.exe.png",
    "zero\u200bwidth.png",
    "CON.png",
    "nul.tar.png",
    "x" * 240 + ".png",
    "UPPER.PNG",
    "<b>bold<b>.png",
    "=1+1.png",
    "10.png",
    "9" * 200 + ".png",
    "².png",
    "٣.png",
]
"""File names that are odd and allowed."""
