"""The smallest things that the real engine runs on: network, images, recipe, plan."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from core.checkpoints.cards import CheckpointCard
from core.checkpoints.store import save_checkpoint
from core.data.dataset import ImageDataset, Split
from core.diffusion.networks import DenoisingNetwork, NetworkConfig, build_network
from core.privacy.budget import Budget, PrivacyUnit, Relation, UnitKind
from core.privacy.mechanism import Mechanism
from core.training.central import CentralRelease
from core.training.moments import MomentRelease
from core.training.plan import Plan
from core.training.recipe import Recipe
from core.training.recipe_loading import load_recipe
from core.training.teacher import TeacherRelease

CONFIG = NetworkConfig(
    resolution=8,
    image_channels=3,
    fold=2,
    channels=(8, 16),
    layers=1,
    groups=4,
    head_channels=8,
    classes=3,
)

LATER_FIELDS = {
    "trained", "lora_rank",
    "needs", "network", "parameterisation", "steps_at_epsilon", "crop", "label_dropout",
    "guidance", "churn_amount", "churn_from", "churn_to", "churn_noise",
    "central_share", "central_draws", "central_batch", "central_reduce",
    "central_images", "central_learning_rate", "class_rows",
    "teacher_share", "teacher_steps", "teacher_components", "teacher_learning_rate",
    "teacher_labels", "outer_images", "outer_source", "private_timesteps", "pictures",
    "moment_cells", "moment_cells_share", "moment_cell_size", "moment_cell_rounds",
    "moment_cell_axes", "moment_cell_norm", "moment_cell_edge", "moment_cells_from",
    "refine_sigma", "refine_steps", "moment_features_share", "moment_features_rounds",
    "moment_features_from", "moment_features_cells",
}  # fmt: skip
"""Fields of a recipe that came after the first version."""

RECIPE = """
title = "Tiny: for tests"
batch_size = 4
steps = 3
augmentation_multiplicity = 2
flip = true
timestep_weights = [0.2, 0.8]
timestep_bounds = [0, 500, 1000]
clip_norm = 0.01
learning_rate = 0.001
warmup_steps = 2
ema_decay = 0.99
moment_share = 0.5
moment_means_share = 0.2
moment_frequencies = [2, 1]
moment_mean_norm = 4.0
moment_norm = 4.0
moment_noise_edge = 0.75
moment_residual = true
moment_images = 128
moment_learning_rate = 0.001
sampler = "ddim"
sampler_steps = 2
images_per_class = 3
"""


def make_network(config: NetworkConfig = CONFIG) -> DenoisingNetwork:
    """The same random weights every time; the zero-initialised layers as well."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_network(config)


def make_checkpoint(
    folder: Path, network: DenoisingNetwork | None = None, **changes: object
) -> CheckpointCard:
    card: dict[str, object] = {
        "name": "tiny",
        "title": "Tiny",
        "description": "For tests.",
        "licence": "CC0-1.0",
        "pretraining_data": "nothing",
        "pretraining_licences": "none",
        "parameterisation": "v",
        "steps": 0,
        "batch_size": 1,
        "command": "none",
    }
    return save_checkpoint(
        network or make_network(), folder, dtype=torch.float32, **(card | changes)
    )


def write_recipe(folder: Path, **changes: object) -> Path:
    """The tiny recipe as a file; numbers may be changed."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        line for line in RECIPE.splitlines() if line.split(" = ")[0] not in changes
    ] + [f"{name} = {value}" for name, value in changes.items()]
    path = folder / "tiny.toml"
    path.write_text("\n".join(lines))
    return path


def make_dataset(
    count: int = 20, *, held_out: int = 0, patients: int = 0, seed: int = 0
) -> ImageDataset:
    """`count` training images of two classes, then `held_out` others."""
    rng = np.random.default_rng(seed)
    total = count + held_out
    labels = np.arange(total, dtype=np.int64) % 2
    images = rng.integers(0, 120, (total, 8, 8, 3), dtype=np.uint8)
    images[labels == 1] += 120
    splits = np.full(total, Split.TRAIN, np.uint8)
    splits[count:] = Split.HELD_OUT
    units = np.arange(total, dtype=np.int64)
    return ImageDataset(
        images=images,
        labels=labels,
        class_names=("dark", "bright"),
        units=units % patients if patients else units,
        has_groups=patients > 0,
        splits=splits,
        official_splits=np.zeros(total, np.uint8),
        official_split_names=("train",),
        format_name="class folders",
        fingerprint=hashlib.sha256(images.tobytes()).hexdigest(),
        problems=(),
    )


def make_central(**changes: object) -> CentralRelease:
    """Three draws of half of the 24 declared units."""
    numbers: dict[str, object] = {
        "population": 24,
        "batch_size": 12,
        "noise_multiplier": 50.0,
        "draws": 3,
        "classes": 2,
        "reduce": 2,
    }
    return CentralRelease.poisson(**(numbers | changes))


def make_teacher(**changes: object) -> TeacherRelease:
    """Four releases, for the 24 declared units."""
    numbers: dict[str, object] = {
        "classes": 2,
        "components": 6,
        "steps": 4,
        "learning_rate": 10.0,
        "noise_multiplier": 60.0,
        "declared_count": 24,
    }
    return TeacherRelease(**(numbers | changes))  # type: ignore[arg-type]


def make_plan(
    folder: Path,
    *,
    moments: bool = False,
    central: bool = False,
    teacher: bool = False,
    unit: PrivacyUnit | None = None,
    noise: float = 30.0,
    clip_norm: float = 0.01,
    **changes: object,
) -> Plan:
    """A plan whose noise is given, not calibrated: accounting is tested elsewhere."""
    recipe: Recipe = load_recipe(str(write_recipe(folder)), **changes)
    card = make_checkpoint(folder / "checkpoint")
    release = MomentRelease(
        classes=2,
        frequencies=recipe.moment_frequencies,
        mean_norm=recipe.moment_mean_norm,
        norm=recipe.moment_norm,
        means_noise=40.0,
        squares_noise=20.0,
        noise_edge=recipe.moment_noise_edge,
        residual=recipe.moment_residual,
    )
    return Plan(
        run="run",
        budget=Budget(
            epsilon=1.0,
            delta=1e-3,
            unit=unit or PrivacyUnit(),
            relation=Relation.ADD_OR_REMOVE_ONE,
        ),
        declared_count=24,
        recipe=recipe,
        checkpoint=card,
        class_names=("dark", "bright"),
        image_channels=3,
        resolution=8,
        mechanism=Mechanism.poisson(
            population=24,
            batch_size=recipe.batch_size,
            noise_multiplier=noise,
            clip_norm=clip_norm,
            steps=recipe.steps,
        ),
        moments=release if moments else None,
        central=make_central() if central else None,
        teacher=make_teacher() if teacher else None,
        epsilon=0.9,
    )


def patients(limit: int) -> PrivacyUnit:
    return PrivacyUnit(kind=UnitKind.PATIENT, max_images_per_unit=limit)
