"""Units: an image each, or all of a patient's; held-out images never."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.data.dataset import Split
from core.errors import UserError
from core.privacy.budget import PrivacyUnit
from core.training.units import equal_weights, group_units
from tests.core.tiny import make_dataset, patients


def test_every_training_image_is_a_unit_and_no_held_out_one():
    dataset = make_dataset(9, held_out=4)
    units = group_units(dataset, PrivacyUnit())
    assert units.present == 9
    for unit in range(9):
        pixels, labels = units.draw(unit)
        assert np.array_equal(pixels.numpy()[0], dataset.images[unit])
        assert labels.tolist() == [dataset.labels[unit]]


def test_a_patient_is_all_of_its_training_images():
    dataset = make_dataset(10, held_out=5, patients=3)
    units = group_units(dataset, patients(99))
    assert units.present == 3
    drawn = [units.draw(unit)[0] for unit in range(3)]
    assert [len(pixels) for pixels in drawn] == [4, 3, 3]
    for patient, pixels in enumerate(drawn):
        own = (dataset.units == patient) & (dataset.splits == Split.TRAIN)
        expected = {image.tobytes() for image in dataset.images[own]}
        assert {image.tobytes() for image in pixels.numpy()} == expected


@pytest.mark.parametrize("limit", [1, 2])
def test_at_most_the_limit_and_another_choice_each_time(limit):
    dataset = make_dataset(24, patients=2)
    units = group_units(dataset, patients(limit))
    seen = set()
    for _ in range(30):
        pixels, labels = units.draw(1)
        assert len(pixels) == len(labels) == limit
        images = [image.tobytes() for image in pixels.numpy()]
        assert len(set(images)) == limit
        seen |= set(images)
    assert len(seen) > 2 * limit


def test_patients_are_not_promised_where_the_data_name_none():
    with pytest.raises(UserError, match="patients"):
        group_units(make_dataset(9), patients(2))


@pytest.mark.parametrize("count", [1, 3, 7, 1020, 100_000])
def test_a_units_weights_add_up_to_one_and_no_more(count):
    weights = equal_weights(count)
    assert len(weights) == count and weights.unique().numel() == 1
    assert abs(math.fsum(weights.tolist()) - 1) <= 1e-12
