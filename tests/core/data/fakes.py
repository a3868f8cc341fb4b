"""Small datasets of each layout, written by hand for the tests of this room."""

from __future__ import annotations

import csv
import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image

CAMELYON_HEADER = [
    "",
    "patient",
    "node",
    "x_coord",
    "y_coord",
    "tumor",
    "slide",
    "center",
    "split",
]


def image(
    seed: int, size: tuple[int, int] = (40, 40), mode: str = "RGB"
) -> Image.Image:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def class_folders(
    root: Path, counts: dict[str, int] | None = None, *, mode: str = "RGB"
) -> Path:
    """`root/<class>/<n>.png`, different pixels everywhere."""
    seed = 0
    for name, count in (counts or {"benign": 6, "malignant": 6}).items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image(seed, mode=mode).save(root / name / f"{number}.png")
            seed += 1
    return root


def idx_bytes(array: np.ndarray) -> bytes:
    kinds = {"uint8": 0x08, "int32": 0x0C}
    header = bytes([0, 0, kinds[array.dtype.name], array.ndim])
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return header + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def idx_pair(
    root: Path, prefix: str, count: int, *, packed: bool = False, side: int = 28
) -> tuple[np.ndarray, np.ndarray]:
    """One pair of IDX files; gives back what is in them."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(prefix) + count)
    images = rng.integers(0, 256, (count, side, side), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        content = idx_bytes(array)
        file = root / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
        file.write_bytes(gzip.compress(content) if packed else content)
    return images, labels


def camelyon_rows() -> list[list[object]]:
    """Two labels for each of the hospitals, both values of the split column."""
    rows: list[list[object]] = []
    for center in range(5):
        for split in (0, 1):
            for tumor in (0, 1):
                x = 32 * len(rows)
                patient = f"{20 * center + 4:03d}"
                slide = 10 * center
                rows.append([len(rows), patient, 4, x, 64, tumor, slide, center, split])
    return rows


def write_metadata(root: Path, rows: list[list[object]], header: list[str]) -> None:
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def camelyon17(parent: Path) -> Path:
    """`parent/camelyon17_v1.0/`; every tile is RGBA, as OpenSlide saves it."""
    root = parent / "camelyon17_v1.0"
    rows = camelyon_rows()
    for index, patient, node, x, y, *_ in rows:
        slide = f"patient_{patient}_node_{node}"
        file = root / "patches" / slide / f"patch_{slide}_x_{x}_y_{y}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image(int(str(index)), (96, 96), "RGBA").save(file)
    (root / "RELEASE_v1.0.txt").write_text("fake")
    write_metadata(root, rows, CAMELYON_HEADER)
    return root
