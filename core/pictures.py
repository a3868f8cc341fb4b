"""Where a plan's images come from: a trained network, or the noisy moments."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from core.parallel import Hardware
from core.synthesis.drawing import Drawing, from_moments, from_network, refined
from core.synthesis.sampling import Naming
from core.training.moments import load_moments
from core.training.plan import Plan
from core.training.recipe import MOMENTS
from core.training.teacher import load_teacher
from core.training.trainer import MODEL
from core.training.warmup import (
    MOMENTS_FILE,
    TEACHER,
    public_checkpoint,
    public_rows,
)


def drawing_of(plan: Plan, training: Path, hardware: Hardware) -> Drawing:
    """How the plan's images are drawn; post-processing of what training released.

    Args:
        plan: What was trained.
        training: The folder that training left.
        hardware: What computes.
    """
    recipe = plan.recipe
    if recipe.pictures == MOMENTS:
        moments = load_moments(training / MOMENTS_FILE)
        # What looks like another class goes there: it gets the features of that one.
        pseudo = partial(moments.draw, name=naming_of(plan, training, hardware))
        drawing = from_moments(pseudo)
        if not recipe.refine_sigma:
            return drawing
        return refined(
            drawing,
            public_checkpoint(plan),
            rows=partial(public_rows, plan, pseudo, hardware),
            sigma=recipe.refine_sigma,
            steps=recipe.refine_steps,
            hardware=hardware,
        )
    return from_network(
        training / MODEL,
        grey=plan.image_channels == 1,
        sampler=recipe.sampler,
        sampler_steps=recipe.sampler_steps,
        guidance=recipe.guidance,
        churn=recipe.churn,
        hardware=hardware,
    )


def naming_of(plan: Plan, training: Path, hardware: Hardware) -> Naming | None:
    """The private teacher, when the recipe asks for it and it was not lost."""
    path = training / TEACHER
    if not plan.recipe.teacher_labels or not path.is_file():
        return None
    return partial(load_teacher(path).name, hardware=hardware)
