"""A classifier of the real images, trained with DP-SGD: what synthetic ones rival.

Ghalebikesabi et al. 2023 (arXiv 2302.13861), Table 5, after De et al. 2022. It is
measured and thrown away; like every figure of the evaluation, its own is internal and
never released, so nothing is charged for it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from core.errors import UserError
from core.evaluation.published import build_published, follow, random_views
from core.evaluation.recipe import ClassifierRecipe
from core.events import Watcher
from core.parallel import Hardware
from core.privacy.accounting import Charge, epsilon
from core.privacy.budget import Relation
from core.privacy.gradients.fitness import check_fitness
from core.privacy.gradients.rows import Network, Problem, UnitRows
from core.privacy.gradients.sums import clipped_sums
from core.privacy.gradients.tuner import choose_pace
from core.privacy.mechanism import Mechanism, private_step

MOST_STEPS = 2**20


def train_privately(
    recipe: ClassifierRecipe,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    learning_rate: float,
    weight_decay: float,
    classes: int,
    hardware: Hardware,
    activity: str,
    watcher: Watcher,
) -> nn.Module:
    """The averaged weights when the recipe's budget is reached, ready to answer.

    Guarantee: if the number of images is public, the weights are (ε, δ)-differentially
    private for adding or removing one image, with the recipe's ε and δ. What is
    measured of them on real images is not, nor is a patient with several images
    protected so: the figure is a yardstick, and internal.

    Args:
        recipe: With noise.
        images: uint8 [n, H, W, c].
        labels: int64 [n].

    Raises:
        UserError: when the batch is not below n, or the first step exceeds the budget.
        Stopped: between two steps.
    """
    mechanism = _mechanism(recipe, len(labels))
    steps = steps_within(mechanism.charge, recipe)
    network = build_published(recipe, images.shape[3], classes).to(hardware.device)
    problem = Problem(network=network.eval(), losses=_losses(hardware))
    # Views need not be secret: a generator of their own, seeded afresh.
    generator = torch.Generator()
    generator.seed()

    def rows_of(units: np.ndarray) -> UnitRows:
        return _rows(images[units], labels[units], recipe, generator, hardware)

    def random_rows(count: int) -> UnitRows:
        pixels = np.random.default_rng().integers(
            0, 256, (count, *images.shape[1:]), np.uint8
        )
        return _rows(pixels, np.zeros(count, int), recipe, generator, hardware)

    check_fitness(problem, random_rows(2))
    pace = choose_pace(problem, random_rows, hardware, alike=True)
    parameters = list(problem.trained().values())
    optimiser = torch.optim.SGD(
        parameters, lr=learning_rate, momentum=recipe.momentum,
        nesterov=recipe.nesterov, weight_decay=weight_decay,
    )  # fmt: skip
    average = copy.deepcopy(network)
    with clipped_sums(
        problem,
        pace,
        hardware,
        rows=recipe.augmentation_multiplicity,
        units=recipe.batch_size,
        clip_norm=recipe.clip_norm,
    ) as total_of:
        for step in range(steps):
            gradient = private_step(
                mechanism,
                present=len(labels),
                clipped_sum=lambda units: total_of(units, rows_of),
                commit=lambda _: None,
            )
            _set_gradients(parameters, gradient)
            optimiser.step()
            follow(average, network, recipe, step)
            watcher.progress(activity, step + 1, steps)
            watcher.stop_if_requested()
    return average.eval()


def _mechanism(recipe: ClassifierRecipe, population: int) -> Mechanism:
    """One step of the recipe's.

    Raises:
        UserError: when the batch is not below the population.
    """
    if recipe.batch_size >= population:
        raise UserError(
            f"The recipe {recipe.name} draws {recipe.batch_size:,} images for a step, "
            "and there are not more to learn from: give a copy of its file with a "
            "smaller batch_size."
        )
    return Mechanism.poisson(
        population=population,
        batch_size=recipe.batch_size,
        noise_multiplier=recipe.noise_multiplier,
        clip_norm=recipe.clip_norm,
        steps=1,
    )


def _set_gradients(parameters: list[nn.Parameter], gradient: Tensor) -> None:
    """Deal a flat gradient out to the weights, in their order."""
    parts = gradient.split([weight.numel() for weight in parameters])
    for weight, part in zip(parameters, parts, strict=True):
        weight.grad = part.view_as(weight).to(weight)


def steps_within(charge: Callable[[int], Charge], recipe: ClassifierRecipe) -> int:
    """The most steps whose ε is not above the recipe's.

    Raises:
        UserError: when one step is too many.
    """

    def fits(steps: int) -> bool:
        spent = epsilon([charge(steps)], recipe.delta, Relation.ADD_OR_REMOVE_ONE)
        return spent <= recipe.epsilon

    if not fits(1):
        raise UserError(
            f"One step with the recipe {recipe.name} spends more than its ε of "
            f"{recipe.epsilon:g} on so few images: raise its noise multiplier."
        )
    low, high = 1, 2
    while high < MOST_STEPS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _losses(hardware: Hardware) -> Callable[[Network, tuple[Tensor, ...]], Tensor]:
    def losses(network: Network, inputs: tuple[Tensor, ...]) -> Tensor:
        views, answers = inputs
        with hardware.autocast():
            scores = network(views)
        return cross_entropy(scores.float(), answers, reduction="none")

    return losses


def _rows(
    images: np.ndarray,
    labels: np.ndarray,
    recipe: ClassifierRecipe,
    generator: torch.Generator,
    hardware: Hardware,
) -> UnitRows:
    """Each image is a unit, and its views are the unit's rows."""
    copies = recipe.augmentation_multiplicity
    views = random_views(images, recipe, generator)
    answers = torch.from_numpy(labels).repeat_interleave(copies)
    shape = (len(images), copies)
    return UnitRows(
        inputs=(
            views.reshape(*shape, *views.shape[1:]).to(hardware.device),
            answers.view(shape).to(hardware.device),
        ),
        weights=torch.full(shape, 1 / copies, device=hardware.device),
    )
