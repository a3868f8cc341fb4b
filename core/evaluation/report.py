"""Utility evidence: what a classifier learns from the synthetic images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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

Trained = Iterable[tuple[str, nn.Module]]
"""Classifiers, each with what tells it from the others in a figure's name."""


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


def stamp(
    *, per_class: int, run: str, recipe: ClassifierRecipe | None = None
) -> dict[str, Any]:
    """What a report that is kept is of: so many images of this run, this classifier."""
    images = {"per_class": per_class, "run": run}
    return images | ({"classifier": str(recipe)} if recipe else {})


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
    tests, which = held_out(dataset)
    if len(tests) == 0:
        raise UserError(
            "The data set has no held-out images to test on: add a test folder, or "
            "more images."
        )
    hardware = choose_hardware(device)
    asked, answers = dataset.images[tests], dataset.labels[tests]
    training = dataset.subset(Split.TRAIN)
    real = dataset.images[training], dataset.labels[training]
    sources = [(SYNTHETIC, synthetic_images, synthetic_labels), (REAL, *real)]
    if recipe is not None and recipe.private:
        sources = [(PRIVATE, *real)]
    figures = []
    for name, images, labels in sources:
        source = "synthetic images" if name == SYNTHETIC else "the real images"
        shared: dict[str, Any] = {
            "classes": len(dataset.class_names),
            "hardware": hardware,
            "activity": f"Training a classifier on {source}",
            "watcher": watcher,
        }
        if recipe is None:
            shared |= {"updates": updates or _updates(len(training)), "flip": flip}
            trained: Trained = [("", train_classifier(images, labels, **shared))]
        else:
            trained = _published(recipe, learn, images, labels, shared)
        for setting, network in trained:
            found = accuracy(network, asked, answers, hardware)
            figures.append(_internal(name + setting, found))
    commonest = float(np.bincount(answers).max() / len(answers))
    return UtilityReport(
        tested_on=f"{len(tests):,} real {which} images ({dataset.format_name})",
        figures=(*figures, _internal(CHANCE, commonest)),
    )


def _published(
    recipe: ClassifierRecipe,
    learn: Callable[..., nn.Module],
    images: np.ndarray,
    labels: np.ndarray,
    shared: dict[str, Any],
) -> Trained:
    """One classifier for each of the recipe's settings, when it is asked for."""
    for rate, decay in recipe.settings():
        rates = {"learning_rate": rate, "weight_decay": decay}
        network = learn(recipe, images, labels, **rates, **shared)
        yield _setting(recipe, rate, decay), network


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


def held_out(dataset: ImageDataset) -> tuple[np.ndarray, str]:
    """The images to test on, and what they are called.

    Returns:
        Positions, int64 [n], of the official test split where it has any, else of all
        that is held out; and "official test" or "held-out".
    """
    everything = dataset.subset(Split.HELD_OUT)
    if "test" in dataset.official_split_names:
        official = np.intersect1d(everything, dataset.official_subset("test"))
        if len(official):
            return official, "official test"
    return everything, "held-out"
