"""What happens to the public network before DP-SGD: private labels, then a warm-up.

The warm-up trains on what was released with noise already, so that it costs nothing
beyond that release, however long it takes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from core.checkpoints.cards import refuse_exchanged
from core.checkpoints.scratch import is_scratch
from core.checkpoints.store import Checkpoint, load_checkpoint
from core.diffusion.adapters import check_fit
from core.diffusion.networks import DenoisingNetwork, adapt_classes
from core.diffusion.timesteps import UNIFORM
from core.events import Progress, Watcher
from core.parallel import Hardware
from core.training.central import (
    draw_central,
    finished,
    load_central,
    save_central,
)
from core.training.moments import (
    ClassMoments,
    load_moments,
    release_moments,
    save_moments,
)
from core.training.plan import Plan, started_from
from core.training.public import PublicTraining, train
from core.training.purse import Purse, refuse_unpaid
from core.training.rows import (
    NEAREST,
    PseudoImages,
    Rows,
    check_rows,
    choose_rows,
)
from core.training.sums import NoisySums
from core.training.teacher import (
    Lessons,
    load_teacher,
    new_teacher,
    read_lessons,
    save_teacher,
    teach,
)
from core.training.units import UnitImages

WARMUP_BATCH = 64
MOMENTS_FILE = "moments.safetensors"
SUMS_FILE = "sums.safetensors"
TEACHER = "teacher.safetensors"
LEARNED_SPREAD, RANDOM_SPREAD = 0.1, 1.0
"""Of fresh label rows, in parts of the public rows' own: a trained network expects rows
near those that it knows; one that starts from nothing has no use for rows alike."""


def public_checkpoint(plan: Plan) -> Checkpoint:
    """The checkpoint that the plan names.

    Raises:
        UserError: when it was replaced by another since the plan was made, or is
            damaged.
    """
    card = started_from(plan)
    found = load_checkpoint(card.folder)
    if not is_scratch(card.name):
        refuse_exchanged(found.card, card.sha256, card.config_sha256)
    return found


def public_network(plan: Plan, rows: Rows = ()) -> DenoisingNetwork:
    """The public network with a label for every private class.

    Args:
        rows: The public classes that each begins as; without, every label is fresh.
    """
    public = public_checkpoint(plan)
    return adapt_classes(
        public.network,
        len(plan.class_names),
        generator=torch.Generator().manual_seed(0),
        public_rows=rows,
        spread=RANDOM_SPREAD if is_scratch(started_from(plan).name) else LEARNED_SPREAD,
        null_class=plan.recipe.label_dropout > 0,
    )


def public_rows(plan: Plan, pseudo: PseudoImages, hardware: Hardware) -> list[int]:
    """For each class, the public network's own that its pseudo-images are most like.

    Post-processing of the release that they come from.
    """
    public = public_checkpoint(plan)
    network = public.network.to(hardware.device).eval()
    classes = len(plan.class_names)
    if not network.config.classes:
        return [0] * classes
    rows = choose_rows(
        NEAREST, network, public.card.predicts, classes, pseudo, hardware
    )
    return [row for (row,) in rows]


@dataclass(frozen=True, kw_only=True)
class _Lesson:
    """Pseudo-images to train on: post-processing of a release.

    Attributes:
        draw: Gives them, by class.
        images, learning_rate: How many, counted with repetition, and Adam's rate.
        crop: How many pixels they may be shifted.
        activity: For people.
        state: Name of the file to go on from.
    """

    draw: PseudoImages
    images: int
    learning_rate: float
    crop: int
    activity: str
    state: str


def warmed_up(
    plan: Plan, units: UnitImages, purse: Purse, folder: Path, hardware: Hardware,
    watcher: Watcher,
) -> DenoisingNetwork:  # fmt: skip
    """The public network, trained on the releases that the plan holds.

    Guarantee: the private images are read by the releases only, each charged first and
    made at most once; all else is post-processing.
    """
    card, public = started_from(plan), public_checkpoint(plan).network
    check_rows(plan.recipe.class_rows, public)
    # Before anything is spent on the releases.
    check_fit(public_network(plan), plan.recipe.trained, plan.recipe.lora_rank)
    lessons = _central(plan, units, purse, folder, watcher)
    if moments := release(plan, units, purse, folder, hardware, watcher):
        lessons.append(_of_moments(plan, moments))
    rows = choose_rows(
        plan.recipe.class_rows,
        public.to(hardware.device),
        card.predicts,
        len(plan.class_names),
        lessons[-1].draw if lessons else None,
        hardware,
    )
    network = public_network(plan, rows).to(hardware.device)
    for lesson in lessons:
        telling = _telling(watcher, epsilon=purse.epsilon())
        _learn(plan, network, lesson, folder, hardware, telling)
    return network


def release(
    plan: Plan, units: UnitImages, purse: Purse, folder: Path, hardware: Hardware,
    watcher: Watcher,
) -> ClassMoments | None:  # fmt: skip
    """The noisy moments and the private teacher, or what is left of them to do.

    Guarantee: the private images are read by the releases that the plan holds, each
    charged first and made at most once.
    """
    if moments := _released_moments(plan, units, purse, folder, watcher):
        _fit_teacher(plan, moments, units, purse, folder, hardware, watcher)
    return moments


def _telling(watcher: Watcher, **figures: float) -> Watcher:
    """The same watcher; every report also carries these public figures."""

    def report(progress: Progress) -> None:
        watcher.report(replace(progress, figures=figures))

    return replace(watcher, report=report)


def _central(
    plan: Plan, units: UnitImages, purse: Purse, folder: Path, watcher: Watcher
) -> list[_Lesson]:
    """The central images; draws that are left are made now."""
    recipe, path = plan.recipe, folder / "central.safetensors"
    made = list(load_central(path)) if path.is_file() else []
    if plan.central is not None:
        charged = plan.central.mechanism.steps - purse.central_left()
        refuse_unpaid(len(made), charged, folder)
    # PRIVACY: a draw that was begun is paid for; it is never made twice.
    while plan.central is not None and (left := purse.central_left()) > 0:
        draws = plan.central.mechanism.steps
        watcher.progress("Measuring central images", draws - left, draws)
        made.append(draw_central(plan.central, units, commit=purse.commit))
        save_central(torch.stack(made), path)
        watcher.stop_if_requested()
    if not made:
        return []
    images = finished(torch.stack(made), plan.resolution)

    def draw(labels: Tensor, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(images), (len(labels),), generator=generator)
        return images[which, labels]

    return [
        _Lesson(
            draw=draw,
            images=recipe.central_images,
            learning_rate=recipe.central_learning_rate,
            # A few images are soon known by heart: shifts stand in for the paper's
            # random augmentation.
            crop=max(recipe.crop, plan.resolution // 8),
            activity="Learning from the central images",
            state="central-warm-up.safetensors",
        )
    ]


def _of_moments(plan: Plan, moments: ClassMoments) -> _Lesson:
    return _Lesson(
        draw=moments.draw,
        images=plan.recipe.moment_images,
        learning_rate=plan.recipe.moment_learning_rate,
        crop=plan.recipe.crop,
        activity="Learning from the noisy moments",
        state="warm-up.safetensors",
    )


def _fit_teacher(
    plan: Plan, moments: ClassMoments, units: UnitImages, purse: Purse, folder: Path,
    hardware: Hardware, watcher: Watcher,
) -> None:  # fmt: skip
    """Teach the private teacher, release by release; kept after each."""
    release, path = plan.teacher, folder / TEACHER
    if release is None:
        return
    charged = release.steps - purse.teacher_left()
    if path.is_file():
        teacher = load_teacher(path)
        refuse_unpaid(int(teacher.lessons), charged, folder)
    if charged == release.steps:
        return
    if not path.is_file():
        teacher = new_teacher(release, moments, hardware)
    kept: list[Lessons] = []

    def read() -> Lessons:
        if not kept:
            shown = read_lessons(units, teacher, release.classes, hardware, watcher)
            kept.append(shown)
        return kept[0]

    # PRIVACY: a release that was begun is paid for; it is never made twice.
    while (left := purse.teacher_left()) > 0:
        done = release.steps - left
        watcher.progress("Teaching the private teacher", done, release.steps)
        teacher = teach(release, teacher, read, step=done, commit=purse.commit)
        save_teacher(teacher, path)
        watcher.stop_if_requested()


def _released_moments(
    plan: Plan, units: UnitImages, purse: Purse, folder: Path, watcher: Watcher
) -> ClassMoments | None:
    path, kept = folder / MOMENTS_FILE, folder / SUMS_FILE
    if plan.moments is None:
        return None
    charged = purse.sums_charged()
    if path.is_file():
        every = sum(charge.count for charge in plan.moments.charges())
        refuse_unpaid(every, charged, folder)
    else:
        sums = NoisySums(purse.commit, kept, run=plan.run)
        refuse_unpaid(sums.kept, charged, folder)
        # PRIVACY: a sum that was begun is paid for; it is never made twice.
        if charged > sums.kept:
            return None
        moments = release_moments(plan.moments, units, sums=sums, watcher=watcher)
        save_moments(moments, path)
    with suppress(OSError):  # What is left of them says no more than the moments do.
        kept.unlink(missing_ok=True)
    return load_moments(path)


def _learn(
    plan: Plan,
    network: DenoisingNetwork,
    lesson: _Lesson,
    folder: Path,
    hardware: Hardware,
    watcher: Watcher,
) -> None:
    """Train on pseudo-images: post-processing of what was released."""
    channels = network.config.image_channels

    def batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(len(plan.class_names), (count,), generator=generator)
        images = lesson.draw(labels, generator)
        return images.expand(-1, channels, -1, -1), labels

    train(
        network,
        batch,
        PublicTraining(
            steps=max(1, lesson.images // WARMUP_BATCH),
            batch_size=WARMUP_BATCH,
            learning_rate=lesson.learning_rate,
            warmup_steps=50,
            ema_decay=0.995,
            timesteps=UNIFORM,
            flip=plan.recipe.flip,
            crop=lesson.crop,
            label_dropout=plan.recipe.label_dropout,
        ),
        process=started_from(plan).predicts,
        hardware=hardware,
        activity=lesson.activity,
        watcher=watcher,
        state=folder / lesson.state,
    )
