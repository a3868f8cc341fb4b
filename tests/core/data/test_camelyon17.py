from __future__ import annotations

import csv

import numpy as np
import pytest

from core.data import ReadOptions, Split, inspect, load
from core.errors import UserError
from tests.core.data.fakes import (
    CAMELYON_HEADER,
    camelyon17,
    camelyon_rows,
    write_metadata,
)


@pytest.mark.parametrize("inside", [False, True])
def test_both_the_folder_and_its_parent_open(tmp_path, inside):
    root = camelyon17(tmp_path / "d")
    dataset = load(root if inside else root.parent, tmp_path / "cache")
    assert dataset.format_name == "WILDS Camelyon17 v1.0"
    assert dataset.class_names == ("normal", "tumour")
    assert dataset.images.shape == (20, 32, 32, 3)
    assert not dataset.problems


def test_hospitals_override_the_split_column(tmp_path):
    root = camelyon17(tmp_path)
    dataset = load(tmp_path, tmp_path.with_name("cache"))
    rows = list(csv.DictReader((root / "metadata.csv").open()))
    center = np.array([int(row["center"]) for row in rows])
    split = np.array([int(row["split"]) for row in rows])
    train = (split == 0) & np.isin(center, (0, 3, 4))
    assert dataset.subset(Split.TRAIN).tolist() == np.flatnonzero(train).tolist()
    for name, where in (
        ("train", train),
        ("id_val", (split == 1) & np.isin(center, (0, 3, 4))),
        ("val", center == 1),
        ("test", center == 2),
    ):
        assert dataset.official_subset(name).tolist() == np.flatnonzero(where).tolist()


def test_patients_are_text_and_are_the_units(tmp_path):
    camelyon17(tmp_path)
    dataset = load(tmp_path, tmp_path.with_name("cache"))
    assert dataset.has_groups
    assert dataset.units.tolist() == np.repeat(np.arange(5), 4).tolist()
    assert inspect(tmp_path).groups == 5


def test_modes_are_reported_as_stored(tmp_path):
    camelyon17(tmp_path)
    found = inspect(tmp_path)
    assert found.modes == {"RGBA": 20}
    assert found.sizes == {"96×96": 20}
    assert found.colour
    assert found.official_counts == {"train": 6, "id_val": 6, "val": 4, "test": 4}
    # Patches of split 1 are of the very patients that are trained on.
    assert found.counts["tumour"] == {"train": 3, "held_out": 4, "unused": 3}


def test_a_missing_patch_is_left_out_and_listed(tmp_path):
    root = camelyon17(tmp_path)
    gone = next(iter(sorted(root.rglob("*.png"))))
    gone.unlink()
    dataset = load(tmp_path, tmp_path.with_name("cache"))
    assert len(dataset) == 19
    assert [(p.path, p.kind) for p in dataset.problems] == [
        (gone.relative_to(root).as_posix(), "missing")
    ]


def test_a_row_that_is_listed_twice_counts_once(tmp_path):
    root = camelyon17(tmp_path)
    rows = camelyon_rows()
    write_metadata(root, [*rows, rows[0]], CAMELYON_HEADER)
    dataset = load(tmp_path, tmp_path.with_name("cache"))
    assert len(dataset) == 20
    assert [p.kind for p in dataset.problems] == ["listed twice"]


@pytest.mark.parametrize("column", ["patient", "tumor", "center", "split"])
def test_missing_columns_are_named(tmp_path, column):
    root = camelyon17(tmp_path)
    header = [name if name != column else "other" for name in CAMELYON_HEADER]
    write_metadata(root, camelyon_rows(), header)
    with pytest.raises(UserError, match=f"metadata.csv lacks the column {column}"):
        load(tmp_path, tmp_path.with_name("cache"))


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("patient", "", "has no patient: fill it in"),
        ("center", " ", "has no center: fill it in"),
        ("patient", "../../../etc/secret", "leads out of the dataset's folder"),
        ("patient", "/etc/secret", "leads out of the dataset's folder"),
        ("node", "..\\..", "leads out of the dataset's folder"),
        ("center", "7", "the value '7' for center"),
        ("x_coord", "-5", "the value '-5' for x_coord"),
        ("tumor", "-1", "no label"),
    ],
)
def test_bad_rows_are_named(tmp_path, column, value, words):
    root = camelyon17(tmp_path)
    rows = camelyon_rows()
    rows[3][CAMELYON_HEADER.index(column)] = value
    write_metadata(root, rows, CAMELYON_HEADER)
    with pytest.raises(UserError, match=r"Row 5 of metadata\.csv") as caught:
        load(tmp_path, tmp_path.with_name("cache"))
    assert words in str(caught.value)


def test_no_split_goes_through_a_patient(tmp_path):
    camelyon17(tmp_path)
    dataset = load(tmp_path, tmp_path.with_name("cache"))
    trained = set(dataset.units[dataset.subset(Split.TRAIN)].tolist())
    held_out = set(dataset.units[dataset.subset(Split.HELD_OUT)].tolist())
    assert trained and held_out
    assert not trained & held_out
    assert len(dataset.subset(Split.UNUSED)) == 6


@pytest.mark.parametrize(
    ("unit", "units"), [("patient", 5), ("slide", 5), ("hospital", 5)]
)
def test_units_may_be_slides_or_hospitals(tmp_path, unit, units):
    camelyon17(tmp_path)
    options = ReadOptions(unit_column=unit)
    dataset = load(tmp_path, tmp_path.with_name("cache"), options=options)
    assert dataset.unit_column == unit
    assert len(np.unique(dataset.units)) == units


def test_slides_of_one_patient_are_one_unit_by_patient_and_two_by_slide(tmp_path):
    root = camelyon17(tmp_path)
    rows = camelyon_rows()
    for row in rows[:2]:
        row[CAMELYON_HEADER.index("slide")] = 7
    write_metadata(root, rows, CAMELYON_HEADER)
    for unit, units in (("patient", 5), ("slide", 6)):
        options = ReadOptions(unit_column=unit)
        dataset = load(tmp_path, tmp_path.with_name("cache"), options=options)
        assert len(np.unique(dataset.units)) == units


def test_unknown_units_are_refused(tmp_path):
    camelyon17(tmp_path)
    with pytest.raises(UserError, match="choose patient or slide or hospital"):
        inspect(tmp_path, options=ReadOptions(unit_column="ward"))
