"""A small release: two classes, four noise images each, a cheap mechanism."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.release.dataset import export_release
from core.release.facts import AuditFacts

STEPS = {
    "kind": "truncated_poisson_gaussian",
    "dataset_size": 2000,
    "sampling_probability": 0.05,
    "batch_cap": 159,
    "noise_multiplier": 4.0,
    "count": 20,
    "what": "DP-SGD steps",
}
MOMENTS = {
    "kind": "gaussian",
    "noise_multiplier": 10.0,
    "count": 1,
    "what": "noisy class moments",
}


def make_facts(**changes: object) -> AuditFacts:
    """Facts of the small release; its events compose to ε = 0.402 at δ = 1e-5."""
    facts: dict[str, object] = {
        "title": "Lymph node patches",
        "tool_version": "0.1.0",
        "build_hash": "ef" * 32,
        "versions": {"torch": "2.14.1"},
        "created_utc": "2026-08-14T09:30:00Z",
        "run_id": "7f3a9c12",
        "epsilon_committed": 1.0,
        "delta": 1e-5,
        "epsilon_charged": 0.4018,
        "steps_committed": 20,
        "steps_charged": 20,
        "unit": "image",
        "max_images_per_unit": 1,
        "unit_definition": "every image file is its own unit",
        "relation": "add_or_remove_one",
        "events": (MOMENTS, STEPS),
        "clip_norm": 0.5,
        "divisor": 100.0,
        "expected_batch": 100.0,
        "augmentation_multiplicity": 4,
        "declared_count": 2000,
        "accountant": {"name": "PLD", "version": "0.6.0"},
        "lifetime_epsilon": 0.4018,
        "lifetime_runs": 1,
        "checkpoint": {"name": "starter", "licence": "Apache-2.0", "sha256": "ab" * 32},
        "rng_statement": "Keys come from the operating system.",
        "trainable_parameters": 1_200_000,
        "preprocessing": ("area resampling to 8 × 8",),
        "ema": {"decay": 0.999},
        "learning_rate_schedule": "constant 3e-4",
        "sampler": {"name": "DDIM", "steps": 50, "guidance": 1.0},
        "class_names": ("tumour", "normal"),
        "images_per_class": 4,
        "image_size": (8, 8),
        "colour": "RGB",
    }
    return AuditFacts(**(facts | changes))


@pytest.fixture(scope="session", autouse=True)
def each_mechanism_recomputed_once() -> Iterator[None]:
    """Recomputing ε takes a second; most tests tamper with something else."""
    from core.release import consistency, recheck

    def remembered(real: Callable) -> Callable:
        known: dict[str, object] = {}

        def ask(*arguments: object) -> object:
            key = repr(arguments)
            if key not in known:
                known[key] = real(*arguments)
            return known[key]

        return ask

    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (recheck, "recomputed_epsilon"),
            (consistency, "implied"),
        ):
            patch.setattr(module, name, remembered(getattr(module, name)))
        yield


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """One folder of synthetic images for each class; they carry text on purpose."""
    from PIL.PngImagePlugin import PngInfo

    root = tmp_path_factory.mktemp("synthetic")
    generator = np.random.default_rng(0)
    text = PngInfo()
    text.add_text("Comment", "made on ward 7")
    folders = []
    for name in ("0", "1"):
        folder = root / name
        folder.mkdir()
        for number in range(4):
            pixels = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            image = Image.fromarray(pixels)
            image.save(folder / f"{number:06d}.png", pnginfo=text)
        folders.append(folder)
    return tuple(folders)


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, sources: tuple[Path, ...]
) -> Path:
    """The release, never to be changed."""
    destination = tmp_path_factory.mktemp("exported") / "release"
    return export_release(make_facts(), sources, destination).folder


@pytest.fixture
def release(exported: Path, tmp_path: Path) -> Path:
    """A copy of the release to tamper with."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.fixture
def resummed() -> Callable[[Path], None]:
    """Writes SHA256SUMS anew, as a careful forger would."""
    from core.files import sha256
    from core.release.dataset import SUMS, hash_list

    def write(folder: Path) -> None:
        digests = {
            path.relative_to(folder).as_posix(): sha256(path)
            for path in folder.rglob("*")
            if path.is_file() and path.name != SUMS
        }
        (folder / SUMS).write_text(hash_list(digests))

    return write
