"""Every hyper-parameter of a training run, as data.

Recipes are TOML files in `resources/recipes`, each number with its source beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.diffusion.adapters import ALL, LABELS, check_choice
from core.diffusion.presets import PRESETS
from core.diffusion.process import Process
from core.diffusion.samplers import LAST_SIGMA, STILL, Churn, check_sampler
from core.diffusion.schedules import TIMESTEPS
from core.diffusion.timesteps import TimestepMixture
from core.errors import UserError
from core.recipe_files import check_kinds, refusal
from core.training.rows import CLASS_ROWS, FRESH, NEAREST

NETWORK, MOMENTS = "network", "moments"
PICTURES = (NETWORK, MOMENTS)
UNTRAINED: dict[str, Any] = {
    "batch_size": 0, "steps": 0, "augmentation_multiplicity": 0, "clip_norm": 0.0,
    "timestep_weights": (), "timestep_bounds": (), "learning_rate": 0.0,
    "warmup_steps": 0, "ema_decay": 0.0, "moment_images": 0,
    "moment_learning_rate": 0.0, "sampler": "", "sampler_steps": 0,
}  # fmt: skip
"""The fields that a recipe without a network leaves out, and what they then are."""

PROCEDURAL = "procedural"
SOURCES = (PROCEDURAL, MOMENTS)
"""Of the public images that join the steps: drawn by rule, or the pseudo-images of the
noisy moments."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete description of what is trained and how; nothing of it is private.

    A field that is added later has a default that keeps older recipes and plans as
    they were.

    Attributes:
        name: File name without ending.
        title: For people.
        pictures: What the synthetic images are drawn from: "network", or "moments",
            the noisy class moments themselves. Then no network is trained, there are
            no steps, and none of the fields that speak of them needs to be given.
        refine_sigma: Noise that pictures from the moments are given, for the public
            network of the checkpoint to take away again with all else that is not
            like its own (`diffusion.samplers.refine`); 0 for no network at all.
        refine_steps: Network calls for it.
        batch_size: Expected units per step (B).
        steps: DP-SGD steps (T).
        augmentation_multiplicity: Views per unit (K).
        flip: Whether views may be mirrored.
        timestep_weights, timestep_bounds: The mixture of the timesteps.
        clip_norm: C.
        learning_rate: Adam's, constant after a linear rise over `warmup_steps`.
        warmup_steps: See above.
        ema_decay: Of the averaged weights.
        moment_share: Share of ε for the noisy class moments; 0 for none. Without steps
            it is what the teacher's share leaves of 1, and the moments have what
            composition leaves, which is more.
        moment_means_share: Of that release's precision, the part for the means.
        moment_frequencies: Low frequencies per axis that the moments describe: of the
            brightness, and of the two colour contrasts.
        moment_mean_norm, moment_norm: Clip norms of the coefficients and of their
            distance from the mean, in units of the pixel range [-1, 1].
        moment_noise_edge: Eigenvalues below this multiple of the noise's spectral edge
            are dropped.
        moment_residual: Whether their variance comes back as independent frequencies,
            which is right for textures.
        moment_cells: Cells within each class, at most (`training.cells`); 1 for none.
        moment_cells_from: Declared records per class from which on there are any.
        moment_cells_share: Of that release's precision, the part for the cells.
        moment_cell_size: Records that there must be for each cell, on average.
        moment_cell_rounds: Releases of the cells' means.
        moment_cell_axes: Directions of a class that its cells are described in.
        moment_cell_norm, moment_cell_edge: As `moment_norm` and `moment_noise_edge`,
            of the distance from a cell's mean.
        moment_features_share: Of that release's precision, the part for the features
            that pictures are moved towards (`training.matching`); 0 for none.
        moment_features_rounds: Steps that each picture is moved by towards its class's.
        moment_features_cells: Cells within each class, at most, whose features it is
            then moved towards (`training.cell_matching`); 1 for none. With cells, the
            classes' sum and theirs share alike.
        moment_features_from: Declared records per class from which on there are any.
        moment_images: Pseudo-images trained on, counted with repetition.
        moment_learning_rate: Adam's on them.
        sampler, sampler_steps: How samples are drawn.
        images_per_class: Default size of the synthetic data set.
        trained: Parts of the network that DP-SGD trains (`diffusion.adapters.PARTS`).
            The warm-up, which costs nothing more, always trains all.
        lora_rank: Rank of the adapters trained beside every attention; 0 for none.
        needs: What it takes to run it, in words for people; "" for nothing special.
        network: A network to train from nothing (`diffusion.presets.PRESETS`); "" to
            start from the checkpoint that the project names.
        parameterisation: How the network must have been trained, or is to be when it
            starts from nothing, as `Process.parse` reads it; "" for whatever the
            checkpoint's card says.
        steps_at_epsilon: The ε for which `steps` is meant; for another ε they grow and
            shrink with it (Ghalebikesabi et al. 2023, sec. 5.5). 0: whatever ε is.
        crop: How many pixels a view may be shifted, each way.
        label_dropout: Share of the images whose views are shown without their class.
        guidance: Of the sampler, away from no class; 0 for none.
        churn_amount, churn_from, churn_to, churn_noise: Noise that the sampler "heun"
            adds back (`diffusion.samplers.Churn`).
        central_share: Share of ε for central images, noisy mean images of the classes
            (`training.central`); 0 for none.
        central_draws, central_batch: How many, and the units expected in each.
        central_reduce: By how much an image's sides are reduced for them.
        central_images, central_learning_rate: Images trained on, counted with
            repetition, and Adam's rate on them.
        class_rows: How a private class's label starts (`training.rows.CLASS_ROWS`).
        teacher_share: Share of ε for a private teacher, a classifier that sees the
            images as the moments' pseudo-images let it (`training.teacher`); 0 for
            none. The shares of all releases add up to less than 1, and noise composes
            better than ε adds up, so that more than the rest is left for the steps; for
            pictures from the moments they add up to 1.
        teacher_steps: Releases of its gradient, T.
        teacher_components: Principal components of the features that it sees.
        teacher_learning_rate: Of its gradient descent.
        teacher_labels: Whether a synthetic image goes to the class that the teacher
            names, instead of the one that it was drawn for (`synthesis.quotas`).
        outer_images: Public images that join each step, at the timesteps that the
            private ones then leave to them (`training.outer`); 0 for none.
        outer_source: What they are (`SOURCES`).
        private_timesteps: From which on and below which private images are shown,
            where public ones join them.
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
    pictures: str = NETWORK
    refine_sigma: float = 0.0
    refine_steps: int = 8
    trained: tuple[str, ...] = (ALL,)
    lora_rank: int = 0
    needs: str = ""
    network: str = ""
    parameterisation: str = ""
    steps_at_epsilon: float = 0.0
    crop: int = 0
    label_dropout: float = 0.0
    guidance: float = 0.0
    churn_amount: float = STILL.amount
    churn_from: float = STILL.from_sigma
    churn_to: float = STILL.to_sigma
    churn_noise: float = STILL.noise
    central_share: float = 0.0
    central_draws: int = 5
    central_batch: int = 6000
    central_reduce: int = 2
    central_images: int = 25_600
    central_learning_rate: float = 0.001
    class_rows: str = FRESH
    teacher_share: float = 0.0
    teacher_steps: int = 40
    teacher_components: int = 400
    teacher_learning_rate: float = 100.0
    teacher_labels: bool = False
    moment_cells: int = 1
    moment_cells_from: int = 5000
    moment_cells_share: float = 0.5
    moment_cell_size: int = 300
    moment_cell_rounds: int = 4
    moment_cell_axes: int = 80
    moment_cell_norm: float = 10.0
    moment_cell_edge: float = 0.4
    moment_features_share: float = 0.0
    moment_features_rounds: int = 8
    moment_features_cells: int = 1
    moment_features_from: int = 5000
    outer_images: int = 0
    outer_source: str = PROCEDURAL
    private_timesteps: tuple[int, int] = (30, 600)

    def __post_init__(self) -> None:
        """Refuse a recipe that cannot run.

        Raises:
            UserError: naming the field.
        """
        check_kinds(self)
        if self.pictures not in PICTURES:
            raise self._refused("pictures", f"one of {', '.join(PICTURES)}")
        positive = ["images_per_class", *self._check_shares(), *self._check_teacher()]
        if self.pictures == NETWORK:
            positive += self._check_training()
        else:
            self._check_without_network()
        for name in positive:
            if not getattr(self, name) > 0:
                raise self._refused(name, "above 0")
        if self.moment_noise_edge < 0:
            raise self._refused("moment_noise_edge", "0 or more")

    def _check_shares(self) -> list[str]:
        """The fields of the releases that must be above 0."""
        for name in ("moment_share", "central_share", "teacher_share"):
            if not 0 <= getattr(self, name) < 1 and self.pictures == NETWORK:
                raise self._refused(name, "at least 0 and below 1")
        if self.moment_share + self.central_share >= 1 and self.pictures == NETWORK:
            raise self._refused("central_share", "below 1 with the moment share")
        positive = []
        if self.moment_share:
            positive += ["moment_mean_norm", "moment_norm"]
            if not 0 < self.moment_means_share < 1:
                raise self._refused("moment_means_share", "above 0 and below 1")
            brightness, contrasts = self.moment_frequencies
            if brightness < 1 or contrasts < 0:
                raise self._refused("moment_frequencies", "at least 1 and at least 0")
            positive += self._check_cells()
            if self.pictures == NETWORK:
                positive += ["moment_images", "moment_learning_rate"]
        if self.central_share:
            positive += ["central_draws", "central_batch", "central_reduce",
                         "central_images", "central_learning_rate"]  # fmt: skip
        return positive

    def _check_cells(self) -> list[str]:
        """The fields of the cells, and of the features, that must be above 0."""
        if not 0.01 <= self.moment_cells_share <= 0.99:
            raise self._refused("moment_cells_share", "between 0.01 and 0.99")
        for name, most in (("moment_cells", 256), ("moment_cell_rounds", 100),
                           ("moment_features_cells", 256),
                           ("moment_cell_norm", 1e6)):  # fmt: skip
            if getattr(self, name) > most:
                raise self._refused(name, f"at most {most:g}")
        if self.moment_cells > 1 and self.moment_residual:
            raise self._refused(
                "moment_cells", "1 with a moment residual, which is of whole classes"
            )
        if not 0 <= self.moment_features_share <= 0.99:
            raise self._refused("moment_features_share", "between 0 and 0.99")
        if not 1 <= self.moment_features_rounds <= 100:
            raise self._refused("moment_features_rounds", "between 1 and 100")
        for name in ("moment_cell_edge", "moment_cells_from", "moment_features_from"):
            if getattr(self, name) < 0:
                raise self._refused(name, "0 or more")
        return ["moment_cells", "moment_cell_size", "moment_cell_rounds",
                "moment_cell_axes", "moment_cell_norm",
                "moment_features_cells"]  # fmt: skip

    def _check_training(self) -> list[str]:
        """The fields of DP-SGD and of the sampler that must be above 0."""
        if self.refine_sigma:
            raise self._refused("refine_sigma", "0 for pictures from a network")
        for name in ("warmup_steps", "crop", "steps_at_epsilon"):
            if getattr(self, name) < 0:
                raise self._refused(name, "0 or more")
        if not 0 <= self.ema_decay <= 1:
            raise self._refused("ema_decay", "between 0 and 1")
        self._check_network()
        self._check_labels()
        self._check_outer()
        check_sampler(self.sampler, self.sampler_steps, self.guidance, self.churn)
        check_choice(self.trained, self.lora_rank)
        self._check_classes_differ()
        _ = self.timesteps
        return ["batch_size", "steps", "augmentation_multiplicity", "clip_norm",
                "learning_rate"]  # fmt: skip

    def _check_without_network(self) -> None:
        """Pictures from the moments: all of ε is theirs and the teacher's."""
        if self.refine_sigma and not 2 * LAST_SIGMA <= self.refine_sigma <= 80:
            raise self._refused("refine_sigma", f"0, or {2 * LAST_SIGMA:g} to 80")
        if not 2 <= self.refine_steps <= TIMESTEPS:
            raise self._refused("refine_steps", f"between 2 and {TIMESTEPS}")
        if not 0 <= self.teacher_share < 1:
            raise self._refused("teacher_share", "at least 0 and below 1")
        if abs(self.moment_share + self.teacher_share - 1) > 1e-9:
            raise self._refused(
                "moment_share", f"{1 - self.teacher_share:g}, what the teacher's share "
                "leaves of 1, for pictures from the moments",
            )  # fmt: skip
        for name in (*UNTRAINED, "network", "central_share", "lora_rank", "guidance",
                     "outer_images"):  # fmt: skip
            if getattr(self, name):
                raise self._refused(
                    name,
                    "left out for pictures from the moments: no network is trained",
                )

    def _check_teacher(self) -> list[str]:
        """The fields that must be above 0."""
        if self.teacher_labels and not self.teacher_share:
            raise self._refused("teacher_labels", "false without a teacher share")
        if not self.teacher_share:
            return []
        if not self.moment_share:
            raise self._refused("teacher_share", "0 without noisy moments")
        shares = self.moment_share + self.central_share + self.teacher_share
        if shares >= 1 and self.pictures == NETWORK:
            raise self._refused("teacher_share", "below 1 with the other shares")
        return ["teacher_steps", "teacher_components", "teacher_learning_rate"]

    def _check_network(self) -> None:
        if self.network not in ("", *PRESETS):
            raise self._refused("network", f"empty or one of {', '.join(PRESETS)}")
        if self.parameterisation:
            Process.parse(self.parameterisation)
        elif self.network:
            raise self._refused(
                "parameterisation", "named (eps, v, vp, ve, edm) for a network that "
                "starts from nothing",
            )  # fmt: skip
        if self.network and (ALL not in self.trained):
            raise self._refused("trained", '["all"] for a network that starts from '
                                "nothing")  # fmt: skip

    def _check_labels(self) -> None:
        if self.class_rows not in CLASS_ROWS:
            raise self._refused("class_rows", f"one of {', '.join(CLASS_ROWS)}")
        if self.class_rows == NEAREST and not self.moment_share + self.central_share:
            raise self._refused(
                "class_rows", f"{FRESH} without noisy moments or central images, from "
                "which the nearest rows are told",
            )  # fmt: skip
        if not 0 <= self.label_dropout < 1:
            raise self._refused("label_dropout", "at least 0 and below 1")
        if self.guidance and not self.label_dropout:
            raise self._refused(
                "label_dropout", "above 0 for a sampler with guidance, so that the "
                "network learns to draw without a class",
            )  # fmt: skip

    def _check_classes_differ(self) -> None:
        """Rows of the label table start all but alike: something must move them."""
        warms_up = self.moment_share + self.central_share > 0
        if not warms_up and not {ALL, LABELS} & set(self.trained):
            raise self._refused(
                "trained", f'a list with "{LABELS}" where nothing is trained before '
                "the private steps, so that the classes come to differ",
            )  # fmt: skip

    def _check_outer(self) -> None:
        if self.outer_images < 0:
            raise self._refused("outer_images", "0 or more")
        if self.outer_source not in SOURCES:
            raise self._refused("outer_source", f"one of {', '.join(SOURCES)}")
        lower, upper = self.private_timesteps
        if not 0 <= lower < upper <= TIMESTEPS:
            raise self._refused("private_timesteps", f"rising, from 0 to {TIMESTEPS}")
        if self.outer_images:
            if self.outer_source == MOMENTS and not self.moment_share:
                raise self._refused("outer_source", "another without noisy moments")
            _ = self.shown_timesteps, self.outer_timesteps

    def _refused(self, name: str, wanted: str) -> UserError:
        return refusal(self, name, wanted)

    @property
    def starts_from_checkpoint(self) -> bool:
        """Whether the project names a public network that takes part."""
        return not self.network and (self.pictures == NETWORK or self.refine_sigma > 0)

    @property
    def churn(self) -> Churn:
        """The sampler's churn as a type."""
        return Churn(
            amount=self.churn_amount,
            from_sigma=self.churn_from,
            to_sigma=self.churn_to,
            noise=self.churn_noise,
        )

    @property
    def timesteps(self) -> TimestepMixture:
        """The mixture as a type."""
        return TimestepMixture(
            weights=self.timestep_weights, bounds=self.timestep_bounds
        )

    @property
    def shown_timesteps(self) -> TimestepMixture:
        """Those of the private images."""
        if not self.outer_images:
            return self.timesteps
        return self.timesteps.within(*self.private_timesteps)

    @property
    def outer_timesteps(self) -> TimestepMixture:
        """Those of the public images that join them."""
        return self.timesteps.outside(*self.private_timesteps)
