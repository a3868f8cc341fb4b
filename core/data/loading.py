"""The two doors of the data room: look at a folder, or make it a dataset."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.data.cache import dataset_of, open_or_prepare, read_into_memory
from core.data.dataset import ImageDataset, Problem, Split, shown
from core.data.declared import apply_declarations, untrained_classes
from core.data.duplicates import near_duplicates, thumbnails
from core.data.formats import FORMATS, Index
from core.data.inspection import Inspection, describe
from core.data.kinship import warnings_of
from core.data.options import ReadOptions
from core.data.paths import is_clutter, refuse_aliases, refuse_among_images
from core.data.reading import FileImages, Picture
from core.data.records import Intake, read_records, table_hint
from core.errors import UserError
from core.events import Watcher
from core.files import explained


def inspect(
    path: Path | str,
    resolution: int = 32,
    *,
    options: ReadOptions | None = None,
    watcher: Watcher | None = None,
) -> Inspection:
    """Read every image once and say what was found; writes nothing.

    Args:
        path: The dataset's folder.
        resolution: Side of the working images in pixels.
        options: What the custodian declares about the folder.
        watcher: Told of progress, asked whether to stop.

    Raises:
        UserError: If the folder holds no dataset that can be trained on.
        Stopped: If the watcher asked to stop.
    """
    options = options or ReadOptions()
    index = _index(Path(path), resolution, options)
    channels = 1 if options.grey else index.images.channels()
    survey = _Survey()
    watcher = watcher or Watcher()
    records = read_records(index, resolution, channels, survey, watcher)
    thumbs = np.concatenate(survey.thumbnails)
    alike = near_duplicates(thumbs, records.units, watcher)
    # Only the shape of the pixels is asked for, so none are kept.
    shape = (len(records.labels), resolution, resolution, channels)
    pixels = np.broadcast_to(np.uint8(0), shape)
    dataset = _declared(dataset_of(pixels, records, index), index)
    return replace(
        describe(dataset),
        look_alikes=alike.images,
        look_alike_examples=tuple(
            (_name(index, survey.rows[one]), _name(index, survey.rows[two]))
            for one, two in alike.examples
        ),
        sizes=dict(survey.sizes.most_common()),
        modes=dict(survey.modes.most_common()),
    )


def _name(index: Index, row: int) -> str:
    """What the custodian finds an image by."""
    return shown(index.images.name(row))


class _Survey(Intake):
    """Counts what the files are like."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: Counter[str] = Counter()
        self.modes: Counter[str] = Counter()
        self.thumbnails: list[np.ndarray] = []

    def keep(self, pictures: list[Picture]) -> None:
        self.sizes.update(f"{p.width}×{p.height}" for p in pictures)
        self.modes.update(p.mode for p in pictures)
        if pictures:
            self.thumbnails.append(thumbnails(np.stack([p.pixels for p in pictures])))


def load(
    path: Path | str,
    cache: Path | str | None,
    *,
    resolution: int = 32,
    grey: bool = False,
    options: ReadOptions | None = None,
    known: Path | None = None,
    matters: Callable[[str], bool] = lambda _: True,
    encrypt: bool = False,
    watcher: Watcher | None = None,
) -> ImageDataset:
    """Make a folder an `ImageDataset`; fast when it has not changed since.

    Args:
        path: The dataset's folder. Nothing in it is changed.
        cache: A folder for this dataset only, kept private to its owner. It must not
            lie inside `path`. None keeps the images in memory and writes nothing.
        resolution: Side of the working images in pixels.
        grey: The same as `options.grey`.
        options: What the custodian declares about the folder.
        known: Where sketches of all datasets that were ever read are kept, beside the
            ledger. With it, a dataset that grew or shrank is among the problems.
        matters: Of the fingerprint of such a relative: whether to warn of it.
        encrypt: Whether the cached images are encrypted, with a key that lies in the
            system's keyring.
        watcher: Told of progress, asked whether to stop.

    Raises:
        UserError: If the folder holds no dataset that can be trained on, or the cache
            cannot be written, or encrypted as wished.
        Stopped: If the watcher asked to stop.
    """
    options, watcher = options or ReadOptions(), watcher or Watcher()
    index = _index(Path(path), resolution, options)
    channels = 1 if grey or options.grey else index.images.channels()
    if cache is None:
        dataset = read_into_memory(index, resolution, channels, watcher)
    else:
        refuse_among_images(Path(cache), path)
        dataset = open_or_prepare(
            index, Path(cache), resolution, channels, watcher, encrypt=encrypt
        )
    dataset = _declared(dataset, index)
    related = warnings_of(dataset, known, matters) if known is not None else ()
    return replace(dataset, problems=(*related, *dataset.problems))


def _declared(dataset: ImageDataset, index: Index) -> ImageDataset:
    """With what was declared this time, and warnings of what cannot be learnt or
    measured."""
    tested = (dataset.splits == Split.HELD_OUT).any()
    warnings = (*untrained_classes(dataset), *(() if tested else (_no_tests(dataset),)))
    return replace(
        dataset,
        unit_choices=index.unit_choices,
        several_frames=index.several_frames,
        studies_apart=index.studies_apart,
        classes_confirmed=index.classes_declared,
        problems=(*warnings, *dataset.problems),
    )


def _no_tests(dataset: ImageDataset) -> Problem:
    who = dataset.unit_column or "image"
    more = f"images of more {who}s" if dataset.has_groups else "more images"
    return Problem(
        path=".",
        kind="nothing held back",
        message=f"No {who} is held back for testing, so how useful the synthetic "
        f"images are cannot be measured: add {more}, or name images for testing in a "
        "split column.",
        left_out=False,
    )


def _index(path: Path, resolution: int, options: ReadOptions) -> Index:
    if not 8 <= resolution <= 1024:
        raise UserError(
            f"A resolution of {resolution} pixels cannot be worked at: choose 8 to "
            "1024."
        )
    try:
        if not path.exists():
            raise UserError(
                f"The folder {path} does not exist: check the path, and that the disk "
                "is connected."
            )
        for layout in FORMATS:
            if layout.detect(path):
                index = layout.index(path, options)
                if isinstance(index.images, FileImages):
                    refuse_aliases(index.images.root, index.images.paths)
                return apply_declarations(replace(index, folder=path), options)
        raise _nothing_recognised(path)
    except OSError as error:
        raise explained(error, path) from error


def _nothing_recognised(path: Path) -> UserError:
    if path.is_file():
        if zipfile.is_zipfile(path):
            return UserError(
                f"{path} is a zip archive: unpack it and choose the folder inside."
            )
        return UserError(
            f"{path} is a file that is no dataset by itself: choose the folder that "
            "holds the images."
        )
    if all(is_clutter(entry.name) for entry in path.iterdir()):
        return UserError(
            f"The folder {path} is empty: choose the folder that holds one folder of "
            "images per class."
        )
    packed = sorted(path.glob("*.zip"))
    if packed:
        return UserError(
            f"The folder {path} holds a zip archive ({shown(packed[0].name)}): unpack "
            "it and choose the folder inside."
        )
    return UserError(
        f"The folder {path} holds files but no class folder: move the images into one "
        f"folder per class.{table_hint(path)}"
    )
