"""PatchCamelyon: HDF5 files of patches, of labels, and tables that name the slides."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from core.data.arrays import ArrayImages, check_shape
from core.data.formats.base import Index
from core.data.hdf5 import Hdf5Array
from core.data.options import ReadOptions, choose_unit
from core.data.paths import leaves
from core.data.tables import read_table
from core.errors import UserError

CLASS_NAMES: Final = ("normal", "tumour")

# "valid" is how the files are called; the splits are called as elsewhere.
_SPLITS: Final = {"train": "train", "valid": "val", "test": "test"}
_STEM: Final = "camelyonpatch_level_2_split"
_FOLDERS: Final = ("", "pcam")


class PatchCamelyon:
    """`[pcam/]camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5`, unpacked.

    The slide (`wsi`) of `…_meta.csv` is the group when every split has its table.
    """

    name = "PatchCamelyon"

    def detect(self, path: Path) -> bool:
        return _root(path) is not None

    def index(self, path: Path, options: ReadOptions) -> Index:
        root = _root(path)
        assert root is not None
        root = root.resolve()
        arrays, labels, splits, slides = [], [], [], []
        for number, split in enumerate(_SPLITS):
            images = root / f"{_STEM}_{split}_x.h5"
            if not images.is_file():
                _refuse_packed(images)
                continue
            array = Hdf5Array.open(_present(images, root), "x")
            check_shape(array.shape, f"The file {images.name}")
            if array.dtype != np.uint8:
                raise UserError(
                    f"The images of {images.name} are of type {array.dtype}, and only "
                    "8-bit images have a public range: choose the original files."
                )
            arrays.append(array)
            labels.append(_labels(images, root, array.count))
            splits.append(np.full(array.count, number, np.uint8))
            slides.append(_slides(images, root, array.count))
        if not (root / f"{_STEM}_train_x.h5").is_file():
            raise UserError(
                f"The folder {path} lacks {_STEM}_train_x.h5: add the training files."
            )
        # PRIVACY: decided by which files there are, whether or not anything is in them.
        named = None not in slides
        if named:
            choose_unit(options, ("wsi",))
        held_out = len(arrays) > 1
        return Index(
            format_name=self.name,
            class_names=CLASS_NAMES,
            images=ArrayImages(
                root=root, arrays=tuple(arrays), colour=len(arrays[0].shape) == 4
            ),
            labels=np.concatenate(labels),
            groups=tuple(name for names in slides for name in names or ())
            if named
            else None,
            unit_column="wsi" if named else "",
            official_splits=np.concatenate(splits) if held_out else None,
            official_split_names=tuple(_SPLITS.values())
            if held_out
            else ("train", "held_out"),
        )


def _root(path: Path) -> Path | None:
    for folder in _FOLDERS:
        for split in _SPLITS:
            for packed in ("", ".gz"):
                if (path / folder / f"{_STEM}_{split}_x.h5{packed}").is_file():
                    return path / folder
    return None


def _refuse_packed(images: Path) -> None:
    if images.with_name(images.name + ".gz").is_file():
        raise UserError(
            f"The file {images.name}.gz is packed: unpack it (gunzip {images.name}.gz) "
            "and its neighbours."
        )


def _present(file: Path, root: Path) -> Path:
    if not file.is_file() or leaves(file, root):
        _refuse_packed(file)
        raise UserError(
            f"The file {file.name} is not there, or is a link that leaves its folder: "
            "copy it there."
        )
    return file


def _labels(images: Path, root: Path, count: int) -> np.ndarray:
    """int64 [count], 0 or 1."""
    file = images.with_name(images.name.replace("_x.h5", "_y.h5"))
    labels = Hdf5Array.load(_present(file, root), "y")
    if len(labels) != count or set(labels.shape[1:]) - {1}:
        raise UserError(
            f"The file {file.name} holds {len(labels)} labels but {images.name} holds "
            f"{count} images: copy both files again from the same source."
        )
    if not np.isin(labels, (0, 1)).all():
        raise UserError(
            f"The file {file.name} holds a label other than 0 and 1: copy it again."
        )
    return labels.ravel().astype(np.int64)


def _slides(images: Path, root: Path, count: int) -> list[str] | None:
    """The slide of every image, in order, or None when there is no table."""
    table = images.with_name(images.name.replace("_x.h5", "_meta.csv"))
    if not table.is_file():
        return None
    slides = [wsi for (wsi,) in read_table(table, root, ("wsi",))]
    if len(slides) != count:
        raise UserError(
            f"The file {table.name} has {len(slides)} rows but {images.name} holds "
            f"{count} images: copy both files again from the same source."
        )
    return slides
