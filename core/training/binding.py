"""From a budget and a recipe to noise: one calibration over all that is private."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from core.errors import UserError
from core.privacy.accounting import Charge, calibrate
from core.privacy.budget import Budget
from core.privacy.mechanism import Mechanism
from core.training.cells import CellRelease
from core.training.central import CentralRelease
from core.training.matching import FeatureRelease
from core.training.moments import MomentRelease
from core.training.recipe import MOMENTS, Recipe
from core.training.teacher import TeacherRelease


def charges_of(
    mechanism: Mechanism | None,
    moments: MomentRelease | None,
    central: CentralRelease | None,
    teacher: TeacherRelease | None,
) -> tuple[Charge, ...]:
    """All charges of a run; the steps last, after what the warm-up costs."""
    releases: tuple[Charge, ...] = ()
    if central:
        releases = (central.mechanism.charge(central.mechanism.steps),)
    if moments:
        releases += moments.charges()
    if teacher:
        releases += (teacher.charge(teacher.steps),)
    if mechanism:
        releases += (mechanism.charge(mechanism.steps),)
    return releases


def counted(charges: Iterable[Charge], *kinds: Charge) -> int:
    """How many single charges of these kinds there are among those of a run.

    Args:
        kinds: Whatever their counts.
    """
    single = {replace(kind, count=1) for kind in kinds}
    return sum(c.count for c in charges if replace(c, count=1) in single)


@lru_cache(maxsize=64)
def bind(
    budget: Budget, declared_count: int, recipe: Recipe, classes: int
) -> tuple[
    Mechanism | None,
    MomentRelease | None,
    CentralRelease | None,
    TeacherRelease | None,
]:
    """Calibrate the noise so that everything together keeps the budget.

    Each release alone keeps its share of ε; the steps, or the moments where there are
    none, have what composition leaves, which is more than the rest of ε. Remembered:
    the plan asks again what its preview has just asked.

    Guarantee: the ε of all charges, evaluated together at the fine discretisation, is
    at most `budget.epsilon`.

    Raises:
        UserError: when δ is too large for the count, the batch is not below it, or no
            noise keeps the budget.
    """
    if declared_count < 2:
        raise UserError("The declared number of records must be 2 or more.")
    budget.check_delta(declared_count)
    central = _bind_central(budget, declared_count, recipe, classes)
    teacher = _bind_teacher(budget, declared_count, recipe, classes)
    if recipe.pictures == MOMENTS:
        # PRIVACY: one calibration of the moments together with the teacher.
        moments = _moments_within(
            budget, budget.epsilon, declared_count, recipe, classes, teacher
        )
        return None, moments, central, teacher
    mechanism = Mechanism.poisson(
        population=declared_count,
        batch_size=recipe.batch_size,
        noise_multiplier=1.0,
        clip_norm=recipe.clip_norm,
        steps=recipe.steps,
    )
    moments = _bind_moments(budget, declared_count, recipe, classes)

    def at(noise: float) -> tuple[Charge, ...]:
        louder = replace(mechanism, noise_multiplier=noise)
        return charges_of(louder, moments, central, teacher)

    # PRIVACY: one calibration over all releases and the steps together.
    noise = calibrate(at, budget.epsilon, budget.delta, budget.relation)
    return replace(mechanism, noise_multiplier=noise), moments, central, teacher


def _bind_teacher(
    budget: Budget, declared_count: int, recipe: Recipe, classes: int
) -> TeacherRelease | None:
    if recipe.teacher_share == 0:
        return None

    def of(noise: float) -> TeacherRelease:
        return TeacherRelease(
            classes=classes,
            components=recipe.teacher_components,
            steps=recipe.teacher_steps,
            learning_rate=recipe.teacher_learning_rate,
            noise_multiplier=noise,
            # PRIVACY: the declared number, never how many are there.
            declared_count=declared_count,
        )

    def at(noise: float) -> tuple[Charge, ...]:
        return (of(noise).charge(recipe.teacher_steps),)

    share = budget.epsilon * recipe.teacher_share
    return of(calibrate(at, share, budget.delta, budget.relation))


def _bind_central(
    budget: Budget, declared_count: int, recipe: Recipe, classes: int
) -> CentralRelease | None:
    if recipe.central_share == 0:
        return None

    def of(noise: float) -> CentralRelease:
        return CentralRelease.poisson(
            population=declared_count,
            batch_size=recipe.central_batch,
            noise_multiplier=noise,
            draws=recipe.central_draws,
            classes=classes,
            reduce=recipe.central_reduce,
        )

    def at(noise: float) -> tuple[Charge, ...]:
        return (of(noise).mechanism.charge(recipe.central_draws),)

    share = budget.epsilon * recipe.central_share
    return of(calibrate(at, share, budget.delta, budget.relation))


def _bind_moments(
    budget: Budget, declared_count: int, recipe: Recipe, classes: int
) -> MomentRelease | None:
    if recipe.moment_share == 0:
        return None
    share = budget.epsilon * recipe.moment_share
    return _moments_within(budget, share, declared_count, recipe, classes)


def cells_per_class(recipe: Recipe, declared_count: int, classes: int) -> int:
    """As many as the recipe wants, if so many records could fill them; public."""
    records = declared_count // classes
    if records < recipe.moment_cells_from:
        return 1
    return min(recipe.moment_cells, records // recipe.moment_cell_size)


def feature_cells(recipe: Recipe, declared_count: int, classes: int) -> int:
    """The same of the cells that pictures are moved towards."""
    records = declared_count // classes
    return max(min(recipe.moment_features_cells, records // recipe.moment_cell_size), 1)


def features_share(recipe: Recipe, declared_count: int, classes: int) -> float:
    """Of the moments' precision; none where the records are too few; public."""
    enough = declared_count // classes >= recipe.moment_features_from
    return recipe.moment_features_share if enough else 0.0


def _moments_within(
    budget: Budget,
    target: float,
    declared_count: int,
    recipe: Recipe,
    classes: int,
    teacher: TeacherRelease | None = None,
) -> MomentRelease:
    """Noisy moments that keep ε within `target`, together with this teacher."""
    cells = cells_per_class(recipe, declared_count, classes)
    # Gaussian sums whose precisions add up to 1 are one Gaussian of precision 1.
    within = recipe.moment_cells_share if cells > 1 else 0.0
    seen = features_share(recipe, declared_count, classes)
    within, rest = (1 - seen) * within, (1 - seen) * (1 - within)
    means, squares = recipe.moment_means_share, 1 - recipe.moment_means_share
    rounds = recipe.moment_cell_rounds

    def cell_release(noise: float) -> CellRelease:
        return CellRelease(
            classes=classes,
            per_class=cells,
            size=recipe.moment_cell_size,
            axes=recipe.moment_cell_axes,
            rounds=rounds,
            mean_norm=recipe.moment_norm,
            norm=recipe.moment_cell_norm,
            means_noise=noise / (within * means / rounds) ** 0.5,
            squares_noise=noise / (within * squares) ** 0.5,
            noise_edge=recipe.moment_cell_edge,
        )

    def feature_release(noise: float) -> FeatureRelease:
        inner = feature_cells(recipe, declared_count, classes)
        return FeatureRelease(
            classes=classes,
            rounds=recipe.moment_features_rounds,
            cells=inner,
            noise_multiplier=noise / (seen / (2 if inner > 1 else 1)) ** 0.5,
        )

    def of(noise: float) -> MomentRelease:
        return MomentRelease(
            classes=classes,
            frequencies=recipe.moment_frequencies,
            mean_norm=recipe.moment_mean_norm,
            norm=recipe.moment_norm,
            means_noise=noise / (rest * means) ** 0.5,
            squares_noise=noise / (rest * squares) ** 0.5,
            noise_edge=recipe.moment_noise_edge,
            residual=recipe.moment_residual,
            cells=cell_release(noise) if within else None,
            features=feature_release(noise) if seen else None,
        )

    def at(noise: float) -> tuple[Charge, ...]:
        return charges_of(None, of(noise), None, teacher)

    return of(calibrate(at, target, budget.delta, budget.relation))
