"""Settings of a published classifier, by which others have measured synthetic images.

Ghalebikesabi et al. 2023 (arXiv 2302.13861): Table 4 on the synthetic images alone,
Table 5 on the real images with privacy, Table 6 for the choice between models.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from core.bundled import classifier_folder, classifier_names
from core.recipe_files import check_kinds, read_recipe_file, refusal

WIDE_RESNET: Final = "wide-resnet"
NETWORKS: Final = (WIDE_RESNET, "resnet50", "vgg")
CONSTANT, COSINE = "constant", "cosine"
CROP, FLIP, COLOUR = "crop", "flip", "colour"
AUGMENTATIONS: Final = (CROP, FLIP, COLOUR)


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe:
    """How a classifier is trained; with several rates, one for each pair of them.

    Attributes:
        name: Of its file.
        title: For people.
        network: One of `NETWORKS`.
        depth, width: Of a wide ResNet: 6 n + 4 layers, times the usual channels.
        dropout: Between the convolutions of a block of a wide ResNet, in [0, 1).
        iterations: Steps of stochastic gradient descent; 0 with privacy, where the
            budget ends it.
        batch_size: Images per step.
        learning_rates, weight_decays: Each pair of them is trained.
        schedule: "constant", or "cosine" down to 0.
        momentum: In [0, 1).
        nesterov: Whether it looks ahead.
        label_smoothing: In [0, 1).
        augmentation_multiplicity: Copies of each image in a step, changed at random.
        augmentations: How: some of `AUGMENTATIONS`.
        ema_decay: Of the weights that are tested, with min(d, (1 + t) / (10 + t)).
        noise_multiplier: σ of DP-SGD on the real images; 0 for none.
        clip_norm: Of an image's gradient; 0 without privacy.
        epsilon, delta: The budget that ends a training with privacy; else 0.
        needs: What an ordinary computer has not; empty if it will do.
    """

    name: str
    title: str
    network: str
    depth: int
    width: int
    dropout: float
    iterations: int
    batch_size: int
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    schedule: str
    momentum: float
    nesterov: bool
    label_smoothing: float
    augmentation_multiplicity: int
    augmentations: tuple[str, ...]
    ema_decay: float
    noise_multiplier: float = 0.0
    clip_norm: float = 0.0
    epsilon: float = 0.0
    delta: float = 0.0
    needs: str = ""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            UserError: naming the field.
        """
        check_kinds(self)
        wide = self.network == WIDE_RESNET
        layers = self.depth >= 10 and self.depth % 6 == 4
        for name, fits, wanted in (
            ("network", self.network in NETWORKS, f"one of {', '.join(NETWORKS)}"),
            ("depth", layers if wide else self.depth == 0,
             "10, 16, 22, 28 …" if wide else "0, as this network has its own"),
            ("width", self.width >= 1 if wide else self.width == 0,
             "1 or more" if wide else "0, as this network has its own"),
            ("dropout", 0 <= self.dropout < 1 and (wide or self.dropout == 0),
             "0 or more and below 1" if wide else "0 for this network"),
            ("iterations", self.iterations == 0 if self.private
             else self.iterations >= 1,
             "0, as the budget ends it" if self.private else "1 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("learning_rates", bool(self.learning_rates)
             and min(self.learning_rates) > 0, "numbers above 0"),
            ("weight_decays", bool(self.weight_decays)
             and min(self.weight_decays) >= 0, "numbers of 0 or more"),
            ("schedule", self.schedule in (CONSTANT, COSINE), "constant or cosine"),
            ("momentum", 0 <= self.momentum < 1, "0 or more and below 1"),
            ("nesterov", self.momentum > 0 or not self.nesterov,
             "false without momentum"),
            ("label_smoothing", 0 <= self.label_smoothing < 1,
             "0 or more and below 1"),
            ("augmentation_multiplicity", self.augmentation_multiplicity >= 1,
             "1 or more"),
            ("augmentations", set(self.augmentations) <= set(AUGMENTATIONS),
             f"some of {', '.join(AUGMENTATIONS)}"),
            ("ema_decay", 0 <= self.ema_decay < 1, "0 or more and below 1"),
            *self._privacy(),
        ):  # fmt: skip
            if not fits:
                raise refusal(self, name, wanted)

    @property
    def private(self) -> bool:
        """Whether it is trained with DP-SGD."""
        return self.noise_multiplier > 0

    def _privacy(self) -> tuple[tuple[str, bool, str], ...]:
        """Of each field that belongs to privacy: whether it fits, and what would."""
        if not self.private:
            return tuple(
                (name, getattr(self, name) == 0, "0 without noise")
                for name in ("noise_multiplier", "clip_norm", "epsilon", "delta")
            )
        return (
            ("clip_norm", self.clip_norm > 0, "above 0"),
            ("epsilon", self.epsilon > 0, "above 0"),
            ("delta", 0 < self.delta < 1, "above 0 and below 1"),
            ("dropout", self.dropout == 0, "0 with privacy"),
            ("network", self.network == WIDE_RESNET, f"{WIDE_RESNET} with privacy"),
            ("schedule", self.schedule == CONSTANT, f"{CONSTANT} with privacy"),
        )

    def settings(self) -> tuple[tuple[float, float], ...]:
        """Every (learning rate, weight decay) that is trained."""
        return tuple(product(self.learning_rates, self.weight_decays))


def load_classifier(name: str, **changes: Any) -> ClassifierRecipe:
    """A bundled recipe by name, or one of a TOML file; `changes` replace its fields.

    Raises:
        UserError: when there is none, or a field is missing, unknown or out of range.
    """
    return read_recipe_file(
        ClassifierRecipe, name, classifier_folder(), classifier_names(), changes
    )
