"""Utility evidence: what a classifier learns from the synthetic images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from core.audience import Audience, Figure
from core.data.dataset import ImageDataset, Split
from core.errors import UserError
from core.evaluation.classifier import BATCH, accuracy, train_classifier
from core.evaluation.published import train_published
from core.evaluation.recipe import ClassifierRecipe
from core.events import Watcher
from core.parallel import choose_hardware

EPOCHS, FEWEST_UPDATES, MOST_UPDATES = 12, 400, 1200
"""Length of a classifier's training, counted on the real images; the same for both."""

SYNTHETIC = "accuracy after training on synthetic images only"
REAL = "accuracy after training on the real images"
PRIVATE = "accuracy after training on the real images with privacy for each image"
CHANCE = "accuracy of always naming the commonest class"


@dataclass(frozen=True, kw_only=True)
class UtilityReport:
    """Figures with their audiences.

    Attributes:
        figures: All of them.
        tested_on: What the accuracies were measured on, in words.
    """

    figures: tuple[Figure, ...]
    tested_on: str

    def value(self, name: str) -> float:
        """The figure of this name."""
        return next(figure.value for figure in self.figures if figure.name == name)

    def to_json(self) -> dict:
        """The report as JSON types."""
        return {
            "tested_on": self.tested_on,
            "figures": [
                {
                    "name": figure.name,
                    "value": figure.value,
                    "audience": figure.audience.value,
                    "note": figure.note,
                }
                for figure in self.figures
            ],
        }

    @classmethod
    def from_json(cls, content: dict) -> UtilityReport:
        """The inverse of `to_json`."""
        return cls(
            tested_on=content["tested_on"],
            figures=tuple(
                Figure(**(entry | {"audience": Audience(entry["audience"])}))
                for entry in content["figures"]
            ),
        )


def evaluate(
    dataset: ImageDataset,
    synthetic_images: np.ndarray,
    synthetic_labels: np.ndarray,
    *,
    flip: bool,
    device: str,
    watcher: Watcher,
    updates: int | None = None,
    recipe: ClassifierRecipe | None = None,
    learn: Callable[..., nn.Module] = train_published,
) -> UtilityReport:
    """Train one classifier on synthetic and one on real images; test both on real ones.

    All figures are computed on private images, so all are internal. With a `recipe` the
    classifiers are those, one for each of its settings, and none is preferred; one with
    privacy learns from the real images only, which is what it is compared for.

    Args:
        flip, updates: Of our own classifier: whether images may be mirrored, and its
            length where it is not to follow from the number of images.
        learn: Trains by a recipe: `train_published`, or the same with privacy.

    Raises:
        UserError: when the data set has no held-out images.
        Stopped: between two updates.
    """
    tests = _held_out(dataset)
    if len(tests) == 0:
        raise UserError(
            "The data set has no held-out images to test on: add a test folder, or "
            "more images."
        )
    hardware = choose_hardware(device)
    held_out, answers = dataset.images[tests], dataset.labels[tests]
    training = dataset.subset(Split.TRAIN)
    real = dataset.images[training], dataset.labels[training]
    sources = [(SYNTHETIC, synthetic_images, synthetic_labels), (REAL, *real)]
    if recipe is not None and recipe.private:
        sources = [(PRIVATE, *real)]

    def learners(
        images: np.ndarray, labels: np.ndarray, activity: str
    ) -> Iterator[tuple[str, nn.Module]]:
        """What tells a classifier from the others, and the classifier."""
        shared: dict[str, Any] = {
            "classes": len(dataset.class_names),
            "hardware": hardware,
            "activity": activity,
            "watcher": watcher,
        }
        if recipe is None:
            length = updates or _updates(len(training))
            yield (
                "",
                train_classifier(images, labels, updates=length, flip=flip, **shared),
            )
            return
        for rate, decay in recipe.settings():
            yield (
                _setting(recipe, rate, decay),
                learn(
                    recipe,
                    images,
                    labels,
                    learning_rate=rate,
                    weight_decay=decay,
                    **shared,
                ),
            )

    figures = []
    for name, images, labels in sources:
        which = "synthetic images" if name == SYNTHETIC else "the real images"
        for setting, network in learners(
            images, labels, f"Training a classifier on {which}"
        ):
            found = accuracy(network, held_out, answers, hardware)
            figures.append(_internal(name + setting, found))
    commonest = float(np.bincount(answers).max() / len(answers))
    return UtilityReport(
        tested_on=_tested_on(dataset, len(tests)),
        figures=(*figures, _internal(CHANCE, commonest)),
    )


def _updates(training: int) -> int:
    """The length of our own classifier's training, for so many real images."""
    return min(max(EPOCHS * training // BATCH, FEWEST_UPDATES), MOST_UPDATES)


def _setting(recipe: ClassifierRecipe, rate: float, decay: float) -> str:
    """What is added to a figure's name: the recipe, and its rates if it has several."""
    if len(recipe.settings()) == 1:
        return f" ({recipe.name})"
    return f" ({recipe.name}, learning rate {rate:g}, weight decay {decay:g})"


def _internal(name: str, value: float) -> Figure:
    return Figure(
        name=name,
        value=value,
        audience=Audience.INTERNAL,
        note="Computed on private images: do not publish.",
    )


def _held_out(dataset: ImageDataset) -> np.ndarray:
    """The official test split where there is one, else everything held out."""
    held_out = dataset.subset(Split.HELD_OUT)
    if "test" in dataset.official_split_names:
        official = np.intersect1d(held_out, dataset.official_subset("test"))
        return official if len(official) else held_out
    return held_out


def _tested_on(dataset: ImageDataset, count: int) -> str:
    official = "test" in dataset.official_split_names
    which = "official test" if official else "held-out"
    return f"{count:,} real {which} images ({dataset.format_name})"
