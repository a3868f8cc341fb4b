"""MedMNIST v2 and MedMNIST+: one `.npz` of two-dimensional images of any size."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.lib import format as npy

from core.data.arrays import BLOCK_BYTES, ArrayImages, check_shape
from core.data.formats.base import Index
from core.data.options import ReadOptions
from core.data.paths import is_clutter, leaves
from core.errors import UserError

_ORGANS: Final = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right"),
    *("liver", "lung-left", "lung-right", "pancreas", "spleen"),
)
CLASS_NAMES: Final = {
    "pathmnist": (
        *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle"),
        *("normal colon mucosa", "cancer-associated stroma"),
        "colorectal adenocarcinoma epithelium",
    ),
    "dermamnist": (
        *("actinic keratoses and carcinoma in situ", "basal cell carcinoma"),
        *("benign keratosis-like lesions", "dermatofibroma", "melanoma"),
        *("melanocytic nevi", "vascular lesions"),
    ),
    "octmnist": (
        *("choroidal neovascularization", "diabetic macular edema", "drusen"),
        "normal",
    ),
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal or benign"),
    "bloodmnist": (
        *("basophil", "eosinophil", "erythroblast", "immature granulocytes"),
        *("lymphocyte", "monocyte", "neutrophil", "platelet"),
    ),
    "tissuemnist": (
        *("collecting duct or connecting tubule", "distal convoluted tubule"),
        *("glomerular endothelial cells", "interstitial endothelial cells"),
        *("leukocytes", "podocytes", "proximal tubule segments"),
        "thick ascending limb",
    ),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}
"""What the numbers mean, by the start of the file's name; others have no names."""

_SPLITS: Final = ("train", "val", "test")
_LONGEST_HEADER: Final = 10_000
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


@dataclass(frozen=True, kw_only=True)
class NpzArray:
    """One array of images inside an `.npz`, as `core.data.arrays` wants it."""

    path: Path
    name: str
    count: int

    def blocks(self) -> Iterator[np.ndarray]:
        """uint8 blocks of whole images, unpacked a few megabytes at a time."""
        with _member(self.path, self.name) as (content, shape, dtype):
            size = int(np.prod(shape[1:])) * dtype.itemsize
            at_once = max(1, BLOCK_BYTES // size)
            for start in range(0, shape[0], at_once):
                wanted = min(at_once, shape[0] - start) * size
                data = _exactly(self.path, content, wanted)
                yield np.frombuffer(data, dtype).reshape(-1, *shape[1:])


class MedMnist:
    """`<name>[_<size>].npz` with `train_images`, `train_labels`, `val_…` and `test_…`.

    The file itself may be chosen, or a folder that holds one such file.
    """

    name = "MedMNIST"

    def detect(self, path: Path) -> bool:
        return bool(_files(path))

    def index(self, path: Path, options: ReadOptions) -> Index:
        file = _only(path, _files(path))
        arrays, labels, splits, shapes = [], [], [], set()
        for number, split in enumerate(_SPLITS):
            try:
                with _member(file, f"{split}_images") as (_, shape, dtype):
                    pass
            except KeyError:
                continue
            if dtype != np.uint8:
                raise UserError(
                    f"The images of {file.name} are of type {dtype}, and only 8-bit "
                    "images have a public range: choose the original MedMNIST file."
                )
            check_shape(shape, f"The file {file.name}")
            shapes.add(shape[1:])
            arrays.append(NpzArray(path=file, name=f"{split}_images", count=shape[0]))
            labels.append(_labels(file, split, shape[0]))
            splits.append(np.full(shape[0], number, np.uint8))
        if len(shapes) != 1:
            raise UserError(
                f"The images of {file.name} are of several sizes: choose the original "
                "MedMNIST file."
            )
        every_label = np.concatenate(labels)
        return Index(
            format_name=self.name,
            class_names=_class_names(file, every_label),
            images=ArrayImages(
                root=file.parent.resolve(),
                arrays=tuple(arrays),
                colour=len(shapes.pop()) == 3,
            ),
            labels=every_label,
            official_splits=np.concatenate(splits),
            official_split_names=_SPLITS,
        )


def _files(path: Path) -> list[Path]:
    """The `.npz` files that have training images by name, whatever else is there."""
    if path.is_file():
        return [path.resolve()] if _holds_images(path) else []
    root = path.resolve()
    return [
        file
        for file in sorted(root.glob("*.npz"))
        if not is_clutter(file.name) and not leaves(file, root) and _holds_images(file)
    ]


def _holds_images(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "train_images.npy" in archive.namelist()
    except (OSError, ValueError, *_DAMAGED):
        # A damaged file of that name is to be named, and not passed over.
        return path.suffix == ".npz" and "mnist" in path.name


def _only(path: Path, files: list[Path]) -> Path:
    if len(files) == 1:
        return files[0]
    names = ", ".join(file.name for file in files[:10])
    raise UserError(
        f"The folder {path} holds several datasets ({names}): choose one of the files."
    )


@contextmanager
def _member(
    path: Path, name: str
) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
    """An array inside an `.npz`: its bytes, still packed, its shape and type.

    Raises:
        KeyError: If the file has no such array.
        UserError: If it is damaged, or declares more than it holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            facts = archive.getinfo(f"{name}.npy")
            if facts.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile
            with archive.open(facts) as content:
                shape, dtype = _header(content)
                size = int(np.prod(shape, dtype=object)) * dtype.itemsize
                if dtype.hasobject or facts.file_size - content.tell() != size:
                    raise zipfile.BadZipFile
                yield content, shape, dtype
    except OSError as error:
        raise UserError(
            f"The file {path} cannot be read ({error.strerror}): check its permissions."
        ) from error
    except (ValueError, RuntimeError, *_DAMAGED):
        raise UserError(
            f"The file {path.name} is damaged, or not an .npz of plain arrays ({name}):"
            " copy it again."
        ) from None


def _header(content: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = npy.read_magic(content)
    read = {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError("an unknown version")
    try:
        shape, columns_first, dtype = read(content, max_header_size=_LONGEST_HEADER)
    except Exception as error:
        # To numpy a header is Python text, and parsing it fails in many ways.
        raise ValueError("no header") from error
    if columns_first or not shape:
        raise ValueError("an unusual order")
    return shape, dtype


def _exactly(path: Path, content: IO[bytes], wanted: int) -> bytes:
    data = content.read(wanted)
    if len(data) < wanted:
        raise EOFError
    return data


def _labels(file: Path, split: str, count: int) -> np.ndarray:
    """int64 [count], one label for each image."""
    try:
        with _member(file, f"{split}_labels") as (content, shape, dtype):
            if len(shape) == 2 and shape[1] > 1:
                raise UserError(
                    f"The images of {file.name} have {shape[1]} labels each (several "
                    "findings in one image), but a synthetic image is made for one "
                    "class: choose a dataset with one label for each image."
                )
            if shape not in ((count,), (count, 1)) or dtype.kind not in "iu":
                raise UserError(
                    f"The labels of {file.name} ({split}) do not match its images: "
                    "copy the file again."
                )
            data = _exactly(file, content, count * dtype.itemsize)
    except KeyError:
        raise UserError(
            f"The file {file.name} has {split}_images but no {split}_labels: copy it "
            "again."
        ) from None
    labels = np.frombuffer(data, dtype).astype(np.int64)
    if labels.size and not 0 <= labels.min() <= labels.max() <= 999:
        raise UserError(
            f"The file {file.name} holds a label outside 0 to 999: copy it again."
        )
    return labels


def _class_names(file: Path, labels: np.ndarray) -> tuple[str, ...]:
    highest = int(labels.max(initial=0))
    for start, names in CLASS_NAMES.items():
        if file.name.lower().startswith(start) and highest < len(names):
            return names
    return tuple(str(number) for number in range(highest + 1))
