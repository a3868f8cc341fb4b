"""Utility figures: right, internal, and measured on held-out images only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.audience import Audience
from core.errors import UserError
from core.evaluation.report import CHANCE, REAL, SYNTHETIC, UtilityReport, evaluate
from core.events import Watcher
from tests.core.tiny import make_dataset


def measured(dataset, images, labels, updates=25):
    return evaluate(
        dataset, images, labels, flip=True, device="cpu", watcher=Watcher(),
        updates=updates,
    )  # fmt: skip


def test_figures_are_right_and_all_internal():
    dataset = make_dataset(60, held_out=31)
    other = make_dataset(60, seed=9)
    report = measured(dataset, other.images, other.labels)
    assert {figure.audience for figure in report.figures} == {Audience.INTERNAL}
    assert {f.name for f in report.figures} == {SYNTHETIC, REAL, CHANCE}
    assert report.value(CHANCE) == 16 / 31
    assert report.value(SYNTHETIC) > 0.9 and report.value(REAL) > 0.9
    assert UtilityReport.from_json(report.to_json()) == report
    assert "31 real held-out" in report.tested_on


def test_wrong_labels_are_worse_than_chance():
    """The figure follows the synthetic set: a constant would not."""
    dataset = make_dataset(60, held_out=30)
    other = make_dataset(60, seed=9)
    report = measured(dataset, other.images, 1 - other.labels)
    assert report.value(SYNTHETIC) < 0.1 < 0.9 < report.value(REAL)


def test_the_official_test_split_is_taken_where_there_is_one():
    dataset = make_dataset(60, held_out=30)
    official = np.zeros(90, np.uint8)
    official[60:70] = 1
    dataset = replace(
        dataset, official_splits=official, official_split_names=("train", "test")
    )
    report = measured(dataset, dataset.images, dataset.labels, updates=2)
    assert "10 real official test" in report.tested_on


@pytest.mark.parametrize("tested", ["val", "nothing"])
def test_the_report_names_what_it_was_tested_on_where_no_test_images_are(tested):
    """Such as a folder of train and val, of a format that also knows a test split."""
    dataset = make_dataset(60, held_out=30)
    official = np.zeros(90, np.uint8)
    official[60:] = 1 if tested == "val" else 0
    names = ("train", "val", "test")
    dataset = replace(dataset, official_splits=official, official_split_names=names)
    report = measured(dataset, dataset.images, dataset.labels, updates=2)
    assert "30 real held-out images" in report.tested_on


def test_nothing_held_out_is_the_users_to_change():
    dataset = make_dataset(10)
    with pytest.raises(UserError, match="held-out"):
        measured(dataset, dataset.images, dataset.labels)
