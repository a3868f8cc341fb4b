"""Writes a phantom of lymph-node patches on disk, laid out as WILDS Camelyon17 v1.0.

It stands in for private data in the demo and the tests. Every pixel is drawn by
`core.data.tissue`; no patient, slide or hospital in it exists.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from core.data.tissue import Staining, TissueArtist
from core.errors import UserError
from core.events import Watcher

HEADER: Final = (
    "",
    "patient",
    "node",
    "x_coord",
    "y_coord",
    "tumor",
    "slide",
    "center",
    "split",
)
SLIDES_PER_HOSPITAL: Final = 10

# Share of the patches by hospital, as in the real dataset; hospital 2 is the test one.
_SHARES: Final = (0.24, 0.08, 0.19, 0.24, 0.25)

_NOTICE: Final = """This is a PHANTOM, not Camelyon17 and not medical data.

Every image was drawn by a computer program (sfumato phantom) in the folder layout of
WILDS Camelyon17 v1.0. No patient, slide or hospital named here exists. Use it to learn
and test the software only; nothing medical can be learnt from it.
"""

# The usual stain colours of each hospital, and its scanner.
_HOSPITALS: Final = (
    Staining(
        haematoxylin=(1.20, 1.48, 0.72),
        eosin=(0.16, 0.74, 0.36),
        white=(243, 241, 244),
        blur=0.16,
    ),
    Staining(
        haematoxylin=(1.40, 1.40, 0.62),
        eosin=(0.22, 0.70, 0.28),
        white=(236, 240, 246),
        blur=0.20,
    ),
    Staining(
        haematoxylin=(1.05, 1.52, 0.66),
        eosin=(0.12, 0.92, 0.46),
        white=(246, 238, 240),
        blur=0.12,
    ),
    Staining(
        haematoxylin=(1.34, 1.58, 0.90),
        eosin=(0.24, 0.86, 0.50),
        white=(240, 236, 230),
        blur=0.10,
    ),
    Staining(
        haematoxylin=(0.98, 1.26, 0.56),
        eosin=(0.10, 0.62, 0.26),
        white=(248, 244, 248),
        blur=0.18,
    ),
)


@dataclass(frozen=True, kw_only=True)
class _Slide:
    """One glass slide: whose it is, where it was made and how it was stained."""

    number: int
    patient: int
    node: int
    hospital: int
    staining: Staining


def write_phantom(
    out: Path, *, images: int, seed: int = 0, watcher: Watcher | None = None
) -> None:
    """Write `out/camelyon17_v1.0/` with `images` patches of 96×96 pixels as PNG.

    The same `images` and `seed` give the same files, byte for byte, with one version of
    Pillow. Classes are balanced within every slide; ten patients of each of the five
    hospitals have one slide each.

    Args:
        out: A folder that is new or empty.
        images: How many patches, at least 1.
        seed: Another seed is another dataset.
        watcher: Told of progress, and asked between patches whether to stop. A stopped
            run leaves nothing behind.

    Raises:
        UserError: If `images` is not positive, `out` is not empty or is not writable.
        Stopped: If the watcher asked to stop.
    """
    watcher = watcher or Watcher()
    if images < 1:
        raise UserError(
            f"A phantom needs at least 1 image, not {images}: give --images a "
            "positive number."
        )
    root = _claim(out) / "camelyon17_v1.0"
    try:
        _write_all(root, images, seed, watcher)
    except OSError as error:
        shutil.rmtree(root, ignore_errors=True)
        raise UserError(
            f"The phantom cannot be written to {out} ({error.strerror}): free some "
            "space or choose another folder."
        ) from error
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise


def _claim(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        occupied = any(out.iterdir())
    except OSError as error:
        raise UserError(
            f"The folder {out} cannot be created ({error.strerror}): choose a folder "
            "you may write to."
        ) from error
    if occupied:
        raise UserError(
            f"The folder {out} is not empty: choose a new folder, so that the phantom "
            "does not mix with other files."
        )
    return out


def _write_all(root: Path, images: int, seed: int, watcher: Watcher) -> None:
    artist = TissueArtist(seed)
    slides = _slides(seed)
    root.mkdir()
    (root / "RELEASE_v1.0.txt").write_text(_NOTICE, encoding="utf-8")
    rows = []
    for index, (slide, tumour, held_out, place) in enumerate(_assign(images, slides)):
        watcher.stop_if_requested()
        rng = np.random.default_rng([seed, index])
        patch = artist.paint(tumour=tumour, staining=slide.staining, rng=rng)
        x, y = 32 * (20 + place % 100), 32 * (20 + place // 100)
        path = root / patch_path(slide.patient, slide.node, x, y)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(patch).save(path, compress_level=1)
        rows.append(
            (
                index,
                f"{slide.patient:03d}",
                slide.node,
                x,
                y,
                int(tumour),
                slide.number,
                slide.hospital,
                int(held_out),
            )
        )
        watcher.progress("Drawing the phantom", index + 1, images)
    with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def patch_path(patient: int, node: int, x: int, y: int) -> str:
    """Path of a patch below the dataset's root, as WILDS spells it."""
    slide = f"patient_{patient:03d}_node_{node}"
    return f"patches/{slide}/patch_{slide}_x_{x}_y_{y}.png"


def _slides(seed: int) -> list[_Slide]:
    """Fifty slides, ten for each hospital, each of another patient."""
    rng = np.random.default_rng([seed, 0x5EED])
    slides = []
    for hospital, usual in enumerate(_HOSPITALS):
        first = 20 * hospital
        patients = first + np.sort(rng.choice(20, SLIDES_PER_HOSPITAL, replace=False))
        for patient in patients:
            slides.append(
                _Slide(
                    number=len(slides),
                    patient=int(patient),
                    node=int(rng.integers(0, 5)),
                    hospital=hospital,
                    staining=_varied(usual, rng),
                )
            )
    return slides


def _varied(usual: Staining, rng: np.random.Generator) -> Staining:
    """The hospital's staining on one particular day."""

    def varied(colour: tuple[float, ...], strength: float, tint: float) -> tuple:
        gain = rng.normal(1, strength)
        return tuple(float(c * gain * rng.normal(1, tint)) for c in colour)

    return Staining(
        haematoxylin=varied(usual.haematoxylin, 0.08, 0.03),
        eosin=varied(usual.eosin, 0.10, 0.05),
        white=usual.white,
        blur=float(np.clip(usual.blur + rng.normal(0, 0.02), 0.0, 0.3)),
    )


def _assign(images: int, slides: list[_Slide]) -> list[tuple[_Slide, bool, bool, int]]:
    """Slide, label, whether held out within the train hospitals, and place, per patch.

    Hospitals take turns in proportion to their shares, slides of a hospital take turns,
    and each slide alternates its labels, so that any number of images is balanced.
    """
    given = np.zeros(len(_SHARES), int)
    patches = []
    for index in range(images):
        hospital = int(np.argmax(np.array(_SHARES) * (index + 1) - given))
        turn = int(given[hospital])
        given[hospital] += 1
        slide = slides[hospital * SLIDES_PER_HOSPITAL + turn % SLIDES_PER_HOSPITAL]
        place = turn // SLIDES_PER_HOSPITAL
        tumour = (turn + place) % 2 == 1
        held_out = place % 20 in (8, 9)
        patches.append((slide, tumour, held_out, place))
    return patches
