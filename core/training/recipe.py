"""Every hyper-parameter of a training run, as data.

Recipes are TOML files in `resources/recipes`, each number with its source beside it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from core.diffusion.samplers import check_sampler
from core.diffusion.timesteps import TimestepMixture
from core.errors import UserError
from core.training.bundled import recipe_folder, recipe_names


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete description of what is trained and how; nothing of it is private.

    Attributes:
        name: File name without ending.
        title: For people.
        batch_size: Expected units per step (B).
        steps: DP-SGD steps (T).
        augmentation_multiplicity: Views per unit (K).
        flip: Whether views may be mirrored.
        timestep_weights, timestep_bounds: The mixture of the timesteps.
        clip_norm: C.
        learning_rate: Adam's, constant after a linear rise over `warmup_steps`.
        warmup_steps: See above.
        ema_decay: Of the averaged weights.
        moment_share: Share of ε for the noisy class moments; 0 for none.
        moment_means_share: Of that release's precision, the part for the means.
        moment_frequencies: Low frequencies per axis that the moments describe: of the
            brightness, and of the two colour contrasts.
        moment_mean_norm, moment_norm: Clip norms of the coefficients and of their
            distance from the mean, in units of the pixel range [-1, 1].
        moment_noise_edge: Eigenvalues below this multiple of the noise's spectral edge
            are dropped.
        moment_residual: Whether their variance comes back as independent frequencies,
            which is right for textures.
        moment_images: Pseudo-images trained on, counted with repetition.
        moment_learning_rate: Adam's on them.
        sampler, sampler_steps: How samples are drawn.
        images_per_class: Default size of the synthetic data set.
    """

    name: str
    title: str
    batch_size: int
    steps: int
    augmentation_multiplicity: int
    flip: bool
    timestep_weights: tuple[float, ...]
    timestep_bounds: tuple[int, ...]
    clip_norm: float
    learning_rate: float
    warmup_steps: int
    ema_decay: float
    moment_share: float
    moment_means_share: float
    moment_frequencies: tuple[int, int]
    moment_mean_norm: float
    moment_norm: float
    moment_noise_edge: float
    moment_residual: bool
    moment_images: int
    moment_learning_rate: float
    sampler: str
    sampler_steps: int
    images_per_class: int

    def __post_init__(self) -> None:
        """Refuse a recipe that cannot run.

        Raises:
            UserError: naming the field.
        """
        for name in ("batch_size", "steps", "augmentation_multiplicity", "clip_norm",
                     "learning_rate", "images_per_class"):  # fmt: skip
            if not getattr(self, name) > 0:
                label = name.replace("_", " ")
                raise UserError(f"{label} must be above 0: correct the recipe.")
        if not 0 <= self.moment_share < 1:
            raise UserError("moment share must be at least 0 and below 1.")
        check_sampler(self.sampler, self.sampler_steps)
        _ = self.timesteps

    @property
    def timesteps(self) -> TimestepMixture:
        """The mixture as a type."""
        return TimestepMixture(
            weights=self.timestep_weights, bounds=self.timestep_bounds
        )


def load_recipe(name: str, **changes: Any) -> Recipe:
    """Read a recipe; `changes` that are not None replace its fields.

    Args:
        name: A bundled recipe, or the path of a TOML file.

    Raises:
        UserError: when there is none, a field is missing, unknown or out of range.
    """
    path = Path(name)
    if name in recipe_names():
        path = recipe_folder() / f"{name}.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        known = ", ".join(recipe_names())
        raise UserError(f"There is no recipe {name!r}: use one of {known}.") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(
            f"The recipe {path} is not valid TOML ({error}): correct that line."
        ) from None
    content = {"name": path.stem} | content
    content |= {key: value for key, value in changes.items() if value is not None}
    known_fields = {field.name for field in fields(Recipe)}
    if wrong := sorted(known_fields.symmetric_difference(content)):
        raise UserError(
            f"The recipe {path} has missing or unknown fields: {', '.join(wrong)}."
        )
    return Recipe(
        **{
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.items()
        }
    )
