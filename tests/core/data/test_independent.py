"""What the layouts' own libraries read of a folder is what we read of it.

Their code, not ours, says here what a folder means: which image is which, what it is
labelled, and which split it belongs to.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from torchvision import datasets as torchvision_datasets

from core.data import ReadOptions, load
from core.data.formats.medmnist import CLASS_NAMES
from tests.core.data.fakes import camelyon17, class_folders, idx_pair
from tests.core.data.test_listed import imagefolder
from tests.core.data.test_medmnist import medmnist
from tests.core.data.test_pcam import COUNTS, pcam


def rows(dataset):
    """(image, class name, official split) of each image, in an order of their own."""
    splits = dataset.official_split_names
    return sorted(
        (image.tobytes(), dataset.class_names[label], splits[split])
        for image, label, split in zip(
            dataset.images, dataset.labels, dataset.official_splits, strict=True
        )
    )


@pytest.fixture
def read_by_wilds(monkeypatch):
    # Without this module, wilds does not ask the network for a newer version.
    monkeypatch.setitem(sys.modules, "outdated", None)
    from wilds.datasets.camelyon17_dataset import Camelyon17Dataset

    return lambda folder: Camelyon17Dataset(root_dir=str(folder))


def test_camelyon17_as_wilds_reads_it(tmp_path, read_by_wilds):
    root = camelyon17(tmp_path / "d")
    theirs = read_by_wilds(root.parent)
    names = {number: name for name, number in theirs.split_dict.items()}
    ours = load(root.parent, tmp_path / "cache", resolution=96)
    assert rows(ours) == sorted(
        (
            np.asarray(theirs.get_input(index)).tobytes(),
            ("normal", "tumour")[int(theirs.y_array[index])],
            names[int(theirs.split_array[index])],
        )
        for index in range(len(theirs))
    )


@pytest.mark.parametrize("unit", ["slide", "hospital"])
def test_units_of_camelyon17_as_wilds_names_them(tmp_path, unit, read_by_wilds):
    root = camelyon17(tmp_path / "d")
    theirs = read_by_wilds(root.parent)
    column = theirs.metadata_array[:, theirs.metadata_fields.index(unit)].tolist()
    ours = load(
        root.parent, tmp_path / "cache", options=ReadOptions(unit_column=unit)
    ).units.tolist()
    together = [[one == other for other in column] for one in column]
    assert [[one == other for other in ours] for one in ours] == together


@pytest.mark.parametrize(
    ("flag", "colour"), [("BloodMNIST", True), ("OCTMNIST", False)]
)
def test_medmnist_as_its_package_reads_it(tmp_path, flag, colour):
    import medmnist as package

    name = flag.lower()
    medmnist(tmp_path / "d" / f"{name}.npz", colour=colour, classes=4)
    ours = load(tmp_path / "d", tmp_path / "cache", resolution=28)
    expected = []
    for split in ("train", "val", "test"):
        theirs = getattr(package, flag)(split, root=str(tmp_path / "d"))
        for index in range(len(theirs.imgs)):
            picture, label = theirs[index]
            meaning = CLASS_NAMES[name][int(label[0])]
            expected.append((np.asarray(picture).tobytes(), meaning, split))
    assert rows(ours) == sorted(expected)


def test_the_classes_of_medmnist_are_those_of_its_package():
    from medmnist import INFO

    single = {
        name: facts
        for name, facts in INFO.items()
        if facts["task"] in ("binary-class", "multi-class") and "3d" not in name
    }
    assert set(CLASS_NAMES) == set(single)
    for name, facts in single.items():
        meanings = [facts["label"][str(n)] for n in range(len(facts["label"]))]
        for ours, theirs in zip(CLASS_NAMES[name], meanings, strict=True):
            assert words(theirs) & words(ours), (name, ours, theirs)


def words(text):
    return set(text.lower().replace(",", " ").replace("-", " ").split())


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_imagefolder_as_datasets_reads_it(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    root = imagefolder(tmp_path / "d", kind, "")
    theirs = load_dataset(
        "imagefolder", data_dir=str(root), cache_dir=str(tmp_path / "theirs")
    )
    ours = load(root, tmp_path / "cache")
    assert rows(ours) == sorted(
        (np.asarray(row["image"].convert("RGB")).tobytes(), str(row["label"]), split)
        for split in ("train", "test")
        for row in theirs[split]
    )


def test_class_folders_as_datasets_and_torchvision_read_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    root = class_folders(tmp_path / "d")
    theirs = load_dataset(
        "imagefolder", data_dir=str(root), cache_dir=str(tmp_path / "theirs")
    )["train"]
    names = theirs.features["label"].names
    others = torchvision_datasets.ImageFolder(str(root))
    ours = load(root, tmp_path / "cache", resolution=40)
    found = [row[:2] for row in rows(ours)]
    assert found == sorted(
        (np.asarray(row["image"].convert("RGB")).tobytes(), names[row["label"]])
        for row in theirs
    )
    assert found == sorted(
        (np.asarray(image).tobytes(), others.classes[label]) for image, label in others
    )


def test_idx_as_torchvision_reads_it(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    idx_pair(raw, "train", 30)
    idx_pair(raw, "t10k", 20)
    ours = load(raw, tmp_path / "cache", resolution=28)
    expected = []
    for train, split in ((True, "train"), (False, "test")):
        theirs = torchvision_datasets.MNIST(str(tmp_path), train=train)
        expected += [
            (np.asarray(image).tobytes(), str(label), split) for image, label in theirs
        ]
    assert rows(ours) == sorted(expected)


def test_pcam_as_torchvision_reads_it(tmp_path):
    pcam(tmp_path / "pcam")
    ours = load(tmp_path / "pcam", tmp_path / "cache", resolution=96)
    expected = []
    for split in COUNTS:
        name = "val" if split == "valid" else split
        theirs = torchvision_datasets.PCAM(str(tmp_path), split=name)
        expected += [
            (np.asarray(image).tobytes(), ("normal", "tumour")[label], name)
            for image, label in theirs
        ]
    assert rows(ours) == sorted(expected)
