"""Drawing the synthetic data set: class by class, to disk, resumable.

Post-processing: it reads what was released with noise and nothing else, so any number
of images costs no privacy.
"""

from __future__ import annotations

import io
import random
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.diffusion.views import to_network, to_pixels
from core.errors import UserError
from core.events import Watcher
from core.files import explained, private_folder, read_json, write_json
from core.parallel import Hardware, workers
from core.synthesis.drawing import Drawing
from core.synthesis.quotas import Batch, Quotas

BATCH = 64
PIXELS_ON_CARD = 256 * 32 * 32
"""Drawn together on a graphics card, which 64 small images would leave idle."""
NAMED = "named.json"

Naming = Callable[[Tensor], Tensor]
"""float32 [n, c, H, W] in [-1, 1] → int64 [n], the class of each image."""


@dataclass(frozen=True, kw_only=True)
class SyntheticSet:
    """Synthetic images on disk.

    Attributes:
        folder: Holds one sub-folder of PNG files per class.
        class_names: Declared labels, in order.
        class_folders: Where each class lies.
        per_class: Images of each class.
        unnamed: Of each class, how many images are there because they were drawn for
            it, although they were named otherwise; None when nobody named them.
    """

    folder: Path
    class_names: tuple[str, ...]
    class_folders: tuple[Path, ...]
    per_class: int
    unnamed: tuple[int, ...] | None = None

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """All images: (uint8 [n, H, W, c], int64 [n])."""
        each = [_read(folder, range(self.per_class)) for folder in self.class_folders]
        labels = np.arange(len(each)).repeat(self.per_class)
        return np.concatenate(each), labels.astype(np.int64)


def locate(folder: Path, class_names: Sequence[str], per_class: int) -> SyntheticSet:
    """The synthetic set in `folder`, whether or not it is complete."""
    return SyntheticSet(
        folder=folder,
        class_names=tuple(class_names),
        # Numbered: a class name may hold what a folder name may not.
        class_folders=tuple(
            folder / f"class-{label:03d}" for label in range(len(class_names))
        ),
        per_class=per_class,
    )


def batch_size(hardware: Hardware, resolution: int) -> int:
    """How many images are drawn together."""
    if hardware.device.type != "cuda":
        return BATCH
    return max(1, PIXELS_ON_CARD // max(32, resolution) ** 2)


def synthesise(
    folder: Path,
    *,
    class_names: Sequence[str],
    per_class: int,
    draw: Drawing,
    hardware: Hardware,
    watcher: Watcher,
    name: Naming | None = None,
    batch: int | None = None,
) -> SyntheticSet:
    """Draw `per_class` images of every class; images already on disk are kept.

    Those that an earlier call made and that are too many now are deleted.

    Args:
        draw: What they are drawn from (`synthesis.drawing`).
        name: Says of which class an image is: it then goes there, instead of to the
            class that it was drawn for (`quotas`). Post-processing too, as long as
            whoever names them is.
        batch: How many are drawn together where nobody names them; None for what a
            processor takes best. Named ones are drawn as many as are named at once.

    Raises:
        UserError: for a count below 1, or a full disk.
        Stopped: between two batches.
    """
    if per_class < 1:
        raise UserError("The number of images per class must be 1 or more.")
    target = locate(private_folder(folder), class_names, per_class)
    if name is None:
        _forget_names(target)
        _draw_all(target, batch or BATCH, draw, hardware, watcher)
        _delete_own(target, beyond=per_class)
        return target
    return _draw_and_name(target, draw, name, hardware, watcher)


def _forget_names(target: SyntheticSet) -> None:
    """Delete what was placed by its name: it must not pass for images as drawn.

    What tells that there is any goes last, so that after a crash it is done again.
    """
    named = sorted(target.folder.glob("drawn-*"))
    record = target.folder / NAMED
    if named or record.is_file():
        _delete_own(target, beyond=0)
        record.unlink(missing_ok=True)
        for folder in named:
            shutil.rmtree(folder)


def _delete_own(target: SyntheticSet, *, beyond: int) -> None:
    """Delete the images from this number on; what somebody else put there is left."""
    for folder in target.class_folders:
        for path in folder.glob("*.png"):
            if re.fullmatch(r"\d{6,}", path.stem) and int(path.stem) >= beyond:
                path.unlink(missing_ok=True)


def _draw_all(
    target: SyntheticSet,
    batch: int,
    draw: Drawing,
    hardware: Hardware,
    watcher: Watcher,
) -> None:
    jobs = [
        (label, first)
        for label in range(len(target.class_names))
        for first in range(0, target.per_class, batch)
    ]
    total = target.per_class * len(target.class_names)

    def size(first: int) -> int:
        return min(batch, target.per_class - first)

    _draw_missing(target, jobs, size, draw, hardware, watcher, total)


def _draw_missing(
    target: SyntheticSet,
    jobs: Sequence[Batch],
    size: Callable[[int], int],
    draw: Drawing,
    hardware: Hardware,
    watcher: Watcher,
    total: int,
) -> None:
    """Draw those of the batches that are not on disk.

    Args:
        size: Of the batch that begins with this number.
        total: Images that there will be, for the progress.
    """
    folders = target.class_folders
    todo = [
        (label, first)
        for label, first in jobs
        if not _all_there(folders[label], first, first + size(first))
    ]
    done = total - sum(size(first) for _, first in todo)

    def drawn(job: Batch) -> Tensor:
        """One batch: float32 [n, c, H, W]."""
        return draw(*job, size(job[1]))

    with workers(hardware) as pool:
        for start in range(0, len(todo), pool.threads):
            group = todo[start : start + pool.threads]
            watcher.stop_if_requested()
            for (label, first), batch in zip(
                group, pool.map(drawn, group), strict=True
            ):
                _write(private_folder(folders[label]), first, batch)
                done += len(batch)
            watcher.progress("Drawing synthetic images", done, total)


def _draw_and_name(
    target: SyntheticSet,
    draw: Drawing,
    name: Naming,
    hardware: Hardware,
    watcher: Watcher,
) -> SyntheticSet:
    """Draw in rounds until every class is full, or has been drawn for long enough.

    All that is drawn stays on disk, so that a run that was stopped comes to the same
    end: it names the same images again.
    """
    size = min(BATCH, target.per_class)
    record = target.folder / NAMED
    stamp = {"per_class": target.per_class, "size": size}
    if record.is_file():
        kept = read_json(record)
        if {key: kept[key] for key in stamp} == stamp:
            return replace(target, unnamed=tuple(kept["unnamed"]))
        record.unlink()
    # Of a size of batch of its own: an image depends on that, too.
    every = private_folder(target.folder / f"drawn-{size:02d}")
    drawn = locate(every, target.class_names, target.per_class)
    quotas = Quotas(
        classes=len(target.class_names), per_class=target.per_class, size=size
    )
    total = 0
    while batches := quotas.next_round():
        total += len(batches) * size
        _draw_missing(drawn, batches, lambda _: size, draw, hardware, watcher, total)
        for done, (label, first) in enumerate(batches):
            watcher.progress("Sorting the images into classes", done, len(batches))
            pixels = _read(drawn.class_folders[label], range(first, first + size))
            names = name(to_network(torch.from_numpy(pixels)))
            quotas.arrived((label, first), names.tolist())
            watcher.stop_if_requested()
    # They arrive by the class they were drawn for; whoever browses wants any of them.
    shuffle = random.Random(0)
    for place, held in zip(target.class_folders, quotas.places, strict=True):
        shuffle.shuffle(held)
        for old in private_folder(place).glob("*.png"):
            old.unlink()
        for index, (label, number) in enumerate(held):
            content = _file(drawn.class_folders[label], number).read_bytes()
            _write_whole(_file(place, index), content)
    write_json(record, stamp | {"unnamed": quotas.unnamed})
    return replace(target, unnamed=tuple(quotas.unnamed))


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.png"


def _all_there(folder: Path, first: int, last: int) -> bool:
    return all(_file(folder, index).is_file() for index in range(first, last))


def _read(folder: Path, indices: Iterable[int]) -> np.ndarray:
    """uint8 [n, H, W, c]"""
    images = []
    for index in indices:
        with Image.open(_file(folder, index), formats=["PNG"]) as picture:
            pixels = np.asarray(picture)
        images.append(pixels if pixels.ndim == 3 else pixels[..., None])
    return np.stack(images)


def _write(folder: Path, first: int, batch: Tensor) -> None:
    for offset, pixels in enumerate(to_pixels(batch).numpy()):
        buffer = io.BytesIO()
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        picture.save(buffer, format="PNG")
        _write_whole(_file(folder, first + offset), buffer.getvalue())


def _write_whole(path: Path, content: bytes) -> None:
    try:
        # A name appears only with its whole content; the last batch before a power
        # cut may be lost, and is drawn again.
        temporary = path.with_suffix(".part")
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise explained(error, path) from error
