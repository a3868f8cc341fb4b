"""How long the private teacher will take: counted, and timed on random numbers only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.privacy.gradients.sums import Pace
from core.synthesis.quotas import Quotas
from core.training import forecast, preview
from core.training.forecast import NAMED_DRAWS, matching_seconds, teaching_seconds
from core.training.recipe_loading import load_recipe
from core.workspace import Project
from tests.core.tiny import make_checkpoint, write_recipe

TEACHER = {"teacher_share": 0.2, "teacher_steps": 7, "images_per_class": 100}


def seconds(recipe) -> float:
    return teaching_seconds(
        recipe, images=500, resolution=8, channels=3, classes=4, device="cpu"
    )


@pytest.fixture
def timed(monkeypatch):
    """What was timed, at a pace that is easy to count with."""
    asked = []

    def rate(of: str, value: float):
        def found(*arguments: object) -> float:
            asked.append((of, *arguments))
            return value

        return found

    monkeypatch.setattr(forecast, "images_per_second", rate("images", 100.0))
    monkeypatch.setattr(forecast, "rows_per_second", rate("rows", 1000.0))
    return asked


def test_the_teacher_sees_each_image_once_and_goes_through_all_in_every_release(
    tmp_path, timed
):
    recipe = load_recipe(str(write_recipe(tmp_path)), **TEACHER)
    assert seconds(recipe) == pytest.approx((6000 + 500) / 100 + 7 * 500 / 1000)
    assert timed == [("images", 8, 3, "cpu"), ("rows", 400, 4)]
    naming = load_recipe(str(write_recipe(tmp_path)), **TEACHER, teacher_labels=True)
    more = seconds(naming) - seconds(recipe)
    assert more == pytest.approx(100 * 4 * NAMED_DRAWS / 100)


def test_pictures_are_moved_round_by_round_and_private_images_seen_once(
    tmp_path, timed
):
    wishes = {"moment_features_share": 0.3, "moment_features_rounds": 3}
    recipe = load_recipe(str(write_recipe(tmp_path)), images_per_class=100, **wishes)
    named = load_recipe(str(write_recipe(tmp_path)), **TEACHER, **wishes)
    plain, taught = (
        matching_seconds(
            each, images=500, resolution=8, channels=3, classes=4, device="cpu"
        )
        for each in (recipe, named)
    )
    assert plain == pytest.approx((500 + (12000 + (12000 + 400) * 1.4) * 3) / 100)
    assert taught - plain == pytest.approx(6000 * 3 * 1.4 / 100)
    inner = matching_seconds(
        replace(recipe, moment_features_cells=4),
        images=500, resolution=8, channels=3, classes=4, device="cpu",
    )  # fmt: skip
    assert inner == pytest.approx((1000 + (12000 + (12000 + 400) * 1.4) * 9) / 100)


def test_without_a_teacher_nothing_is_timed(tmp_path, timed):
    assert seconds(load_recipe(str(write_recipe(tmp_path)))) == 0
    assert timed == []


def test_the_preview_counts_the_declared_number(tmp_path, timed, monkeypatch):
    make_checkpoint(tmp_path / "checkpoint")
    pace = Pace(strategy="one by one", rows_at_once=1, threads=1, rows_per_second=1e12)
    monkeypatch.setattr(forecast, "find_pace", lambda work: pace)
    path = write_recipe(tmp_path, teacher_share=0.2, teacher_steps=7)
    project = Project(
        resolution=8, declared_count=80, epsilon=0.5, delta=1e-3, recipe=str(path),
        checkpoint=str(tmp_path / "checkpoint"), unit="patient", max_images_per_unit=3,
    )  # fmt: skip
    found = preview.preview(project).forecast_seconds
    assert found == pytest.approx((6000 + 240) / 100 + 7 * 240 / 1000, rel=1e-3)
    assert timed[0] == ("images", 8, 3, "auto")


def test_the_machine_is_timed_once(monkeypatch):
    forecast.images_per_second.cache_clear()
    forecast.rows_per_second.cache_clear()
    first = (forecast.images_per_second(8, 1, "cpu"), forecast.rows_per_second(6, 2))
    assert min(first) > 0

    def never(*_: object) -> None:
        raise AssertionError("timed again")

    monkeypatch.setattr(forecast.time, "perf_counter", never)
    assert first == (
        forecast.images_per_second(8, 1, "cpu"), forecast.rows_per_second(6, 2),
    )  # fmt: skip


def draws_for_each(agreement: float, rng: np.random.Generator) -> float:
    """Images drawn for one that is kept, by a teacher that names so many as drawn."""
    names = np.zeros((10, 10))
    for label in range(10):
        others = [other for other in range(10) if other != label]
        names[label, others] = (1 - agreement) * rng.dirichlet(np.full(9, 0.3))
        names[label, label] = agreement
    quotas, drawn = Quotas(classes=10, per_class=1000, size=64), 0
    while batches := quotas.next_round():
        for label, first in batches:
            drawn += 64
            quotas.arrived((label, first), rng.choice(10, 64, p=names[label]).tolist())
    return drawn / 10_000


def test_the_number_of_draws_is_what_the_quotas_need():
    rng = np.random.default_rng(0)
    good, poor = (
        [draws_for_each(agreement, rng) for _ in range(4)] for agreement in (0.95, 0.65)
    )
    assert 1 < np.mean(good) < np.mean(poor) < NAMED_DRAWS < 1.2 * np.mean(poor)
