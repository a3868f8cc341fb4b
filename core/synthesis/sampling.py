"""Drawing the synthetic data set: class by class, to disk, resumable.

Post-processing: it reads the privately trained weights and nothing else, so any number
of images costs no privacy.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.checkpoints.store import load_checkpoint
from core.diffusion.samplers import STILL, Churn, check_sampler, sample
from core.diffusion.views import to_pixels
from core.errors import UserError
from core.events import Watcher
from core.files import explained, private_folder
from core.parallel import choose_hardware, workers

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class SyntheticSet:
    """Synthetic images on disk.

    Attributes:
        folder: Holds one sub-folder of PNG files per class.
        class_names: Declared labels, in order.
        class_folders: Where each class lies.
        per_class: Images of each class.
    """

    folder: Path
    class_names: tuple[str, ...]
    class_folders: tuple[Path, ...]
    per_class: int

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """All images: (uint8 [n, H, W, c], int64 [n])."""
        images, labels = [], []
        for label, folder in enumerate(self.class_folders):
            for index in range(self.per_class):
                with Image.open(_file(folder, index), formats=["PNG"]) as picture:
                    pixels = np.asarray(picture)
                images.append(pixels if pixels.ndim == 3 else pixels[..., None])
                labels.append(label)
        return np.stack(images), np.array(labels, np.int64)


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


def synthesise(
    model: Path,
    folder: Path,
    *,
    class_names: Sequence[str],
    per_class: int,
    grey: bool,
    sampler: str,
    sampler_steps: int,
    device: str,
    watcher: Watcher,
    guidance: float = 0.0,
    churn: Churn = STILL,
    seed: int = 0,
) -> SyntheticSet:
    """Draw `per_class` images of every class; images already on disk are kept.

    Args:
        model: A checkpoint folder.
        grey: Average the colour channels and write one.
        sampler, sampler_steps, guidance, churn: As `diffusion.samplers.sample` has
            them.
        seed: Public; each image depends on it, its class and its number only.

    Raises:
        UserError: for a count below 1, an unknown sampler, guidance that the network
            was not trained for, or a full disk.
        Stopped: between two batches.
    """
    if per_class < 1:
        raise UserError("The number of images per class must be 1 or more.")
    check_sampler(sampler, sampler_steps, guidance, churn)
    target = locate(private_folder(folder), class_names, per_class)
    checkpoint = load_checkpoint(model)
    hardware = choose_hardware(device)
    network = checkpoint.network.to(hardware.device)
    todo = [
        (label, first)
        for label, place in enumerate(target.class_folders)
        for first in range(0, per_class, BATCH)
        if not _all_there(place, first, min(first + BATCH, per_class))
    ]
    total = per_class * len(class_names)
    done = total - sum(min(BATCH, per_class - first) for _, first in todo)

    def draw(job: tuple[int, int]) -> Tensor:
        """One batch: float32 [n, c, H, W]."""
        label, first = job
        count = min(BATCH, per_class - first)
        generator = torch.Generator(hardware.device)
        generator.manual_seed((seed * 1_000 + label) * 10_000_000 + first)
        return sample(
            network,
            torch.full((count,), label, device=hardware.device),
            process=checkpoint.card.predicts,
            sampler=sampler,
            steps=sampler_steps,
            autocast=hardware.autocast(),
            generator=generator,
            guidance=guidance,
            churn=churn,
        ).cpu()

    with workers(hardware) as pool:
        for start in range(0, len(todo), pool.threads):
            group = todo[start : start + pool.threads]
            watcher.stop_if_requested()
            for (label, first), batch in zip(group, pool.map(draw, group), strict=True):
                place = private_folder(target.class_folders[label])
                _write(place, first, batch, grey)
                done += len(batch)
            watcher.progress("Drawing synthetic images", done, total)
    return target


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.png"


def _all_there(folder: Path, first: int, last: int) -> bool:
    return all(_file(folder, index).is_file() for index in range(first, last))


def _write(folder: Path, first: int, batch: Tensor, grey: bool) -> None:
    if grey:
        batch = batch.mean(dim=1, keepdim=True)
    for offset, pixels in enumerate(to_pixels(batch).numpy()):
        buffer = io.BytesIO()
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        picture.save(buffer, format="PNG")
        path = _file(folder, first + offset)
        try:
            # A name appears only with its whole content; the last batch before a power
            # cut may be lost, and is drawn again.
            temporary = path.with_suffix(".part")
            temporary.write_bytes(buffer.getvalue())
            temporary.replace(path)
        except OSError as error:
            raise explained(error, path) from error
