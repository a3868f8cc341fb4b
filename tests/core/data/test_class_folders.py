from __future__ import annotations

import shutil

import numpy as np
import pytest

from core.data import Split, inspect, load
from core.data.splitting import HELD_OUT_SHARE, held_out
from core.errors import UserError
from tests.core.data.fakes import class_folders, image


def test_classes_are_sorted_by_value_not_by_letter(tmp_path):
    root = class_folders(tmp_path / "d", {"grade 10": 8, "grade 2": 8, "grade 1": 8})
    dataset = load(root, tmp_path / "cache")
    assert dataset.class_names == ("grade 1", "grade 2", "grade 10")
    assert np.bincount(dataset.labels).tolist() == [8, 8, 8]
    assert dataset.format_name == "class folders"


def test_images_come_with_the_label_of_their_folder(tmp_path):
    root = tmp_path / "d"
    for name, grey in (("dark", 10), ("light", 240)):
        (root / name / "deep" / "er").mkdir(parents=True)
        for number in range(8):
            picture = image(0, (32, 32)).point(lambda _, g=grey: g)
            picture.save(root / name / "deep" / "er" / f"{number}.png")
    dataset = load(root, tmp_path / "cache")
    assert dataset.images.shape == (16, 32, 32, 3)
    assert (dataset.images[dataset.labels == 0] == 10).all()
    assert (dataset.images[dataset.labels == 1] == 240).all()


def test_top_folders_named_after_splits_are_splits(tmp_path):
    root = tmp_path / "d"
    class_folders(root / "train", {"a": 5, "b": 4})
    class_folders(root / "Validation", {"a": 2, "b": 1})
    class_folders(root / "test", {"a": 3, "b": 2})
    dataset = load(root, tmp_path / "cache")
    assert dataset.class_names == ("a", "b")
    assert len(dataset.subset(Split.TRAIN)) == 9
    assert len(dataset.subset(Split.HELD_OUT)) == 8
    assert len(dataset.official_subset("val")) == 3
    assert len(dataset.official_subset("test")) == 5


@pytest.mark.parametrize("held", ["test", "val"])
def test_the_last_held_out_image_moves_no_other(tmp_path, held):
    """Neighbours: with one held-out image and without it, the others stay put."""
    root = class_folders(tmp_path / "d" / "train", {"a": 20, "b": 20}).parent
    class_folders(root / held, {"a": 1, "b": 0})
    (root / held / "b").mkdir(exist_ok=True)
    with_it = load(root, tmp_path / "with")
    assert len(with_it.subset(Split.TRAIN)) == 40
    next((root / held / "a").iterdir()).unlink()
    without = load(root, tmp_path / "without")
    assert len(without) == len(without.subset(Split.TRAIN)) == 40


def test_a_class_may_be_called_test_when_no_folder_is_called_train(tmp_path):
    root = class_folders(tmp_path / "d", {"test": 6, "control": 6})
    assert load(root, tmp_path / "cache").class_names == ("control", "test")


def test_units_file_keeps_a_patient_on_one_side(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 60, "b": 60})
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
    patient = {file: f"p{number % 24}" for number, file in enumerate(files)}
    lines = [f"{file},{unit}" for file, unit in patient.items()]
    (root / "units.csv").write_text("file,unit\n" + "\n".join(lines))
    dataset = load(root, tmp_path / "cache")
    assert dataset.has_groups
    assert len(np.unique(dataset.units)) == 24
    for unit in range(24):
        assert len(np.unique(dataset.splits[dataset.units == unit])) == 1
    assert 0 < len(dataset.subset(Split.HELD_OUT)) < 60
    assert inspect(root).groups == 24


def test_another_table_of_units_makes_another_grouping(tmp_path):
    """Other file names do not."""
    root = class_folders(tmp_path / "d", {"a": 6, "b": 6})

    def grouping(tables: dict[str, str]) -> tuple[str, str]:
        for file in list((root / "a").iterdir()):
            file.rename(file.with_name("x" + file.name))
        files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
        lines = [f"{file},{tables[file[-5]]}" for file in files]
        (root / "units.csv").write_text("file,unit\n" + "\n".join(lines))
        loaded = load(root, tmp_path / "cache")
        assert load(root, tmp_path / "cache").grouping == loaded.grouping
        assert load(root, tmp_path / "cache").membership == loaded.membership
        fingerprints.add(loaded.fingerprint)
        return loaded.grouping, loaded.membership

    fingerprints: set[str] = set()
    pairs = dict(zip("012345", "ppqqrr", strict=True))
    found = [grouping(pairs), grouping(pairs), grouping(pairs | {"0": "q"})]
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[0], found[2], strict=True))
    assert len(fingerprints) == 1


def test_copies_in_two_classes_that_change_owners_make_another_grouping(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 6, "b": 6})
    shutil.copy(root / "a" / "0.png", root / "b" / "copy.png")

    def grouping(first: str, second: str) -> str:
        owners = {"a/0.png": first, "b/copy.png": second}
        files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
        rest = {file: "pq"[number % 2] for number, file in enumerate(files)}
        lines = [f"{file},{unit}" for file, unit in (rest | owners).items()]
        (root / "units.csv").write_text("file,unit\n" + "\n".join(lines))
        return load(root, tmp_path / "cache").grouping

    assert grouping("p", "q") != grouping("q", "p")


def test_without_units_every_image_is_its_own(tmp_path):
    dataset = load(class_folders(tmp_path / "d"), tmp_path / "cache")
    assert not dataset.has_groups
    assert dataset.units.tolist() == list(range(12))


def test_copies_of_an_image_are_held_out_together(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 40, "b": 40})
    shutil.copytree(root / "a", root / "a" / "copies")
    dataset = load(root, tmp_path / "cache")
    sides: dict[bytes, set[int]] = {}
    for pixels, split in zip(dataset.images, dataset.splits, strict=True):
        sides.setdefault(pixels.tobytes(), set()).add(int(split))
    assert len(sides) == 80
    assert all(len(side) == 1 for side in sides.values())


def test_about_a_fifth_of_the_units_is_held_out():
    share = np.mean([held_out(b"%d" % number) for number in range(20_000)])
    assert share == pytest.approx(HELD_OUT_SHARE, abs=0.01)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file,unit\na/0.png,\n", "Row 2 of units.csv has no unit"),
        ("file,unit\n,p1\n", "Row 2 of units.csv has no file"),
        ("file,patient\na/0.png,p1\n", "lacks the column unit"),
        ("file,unit\n../x.png,p1\n", "Row 2 of units.csv names '../x.png'"),
        ("file,unit\n/etc/x.png,p1\n", "Row 2 of units.csv names '/etc/x.png'"),
        ("file,unit\nC:/x.png,p1\n", "Row 2 of units.csv names 'C:/x.png'"),
        ("file,unit\na/0.png,p1\n", "The image a/1.png is not in units.csv"),
        ("file,unit\na/0.png,1\na/0.png,1\n", "Row 3 of units.csv names a/0.png a"),
        ("file,unit\na/0.png,p1,x\n", "Line 2 of units.csv has 3 fields"),
        ("file,unit,unit\na/0.png,p1,p1\n", "names the column unit twice"),
        ("file,unit\na/0.png,p\u202e1\n", "invisible characters"),
        ('file,unit\n"a/0.png,p1\n', "not a valid CSV table"),
    ],
)
def test_bad_units_file(tmp_path, table, words):
    root = class_folders(tmp_path / "d", {"a": 2, "b": 2})
    (root / "units.csv").write_text(table, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(root, tmp_path / "cache")
    assert words in str(caught.value)


def test_units_of_absent_images_are_listed(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 9, "b": 9})
    files = [p.relative_to(root).as_posix() for p in root.rglob("*.png")]
    rows = [f"{file},{file}" for file in [*files, "a/gone.png"]]
    (root / "units.csv").write_text("\n".join(["file,unit", *rows]))
    dataset = load(root, tmp_path / "cache")
    assert [(p.path, p.kind) for p in dataset.problems] == [("a/gone.png", "missing")]
