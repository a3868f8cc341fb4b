from __future__ import annotations

import json
import os

import numpy as np
import pytest

from core import cli
from core.data import ReadOptions, Split, inspect, load, parse_options
from core.errors import UserError
from tests.core.data.fakes import class_folders, idx_pair


def test_only_declared_classes_are_read(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 9, "b": 9, "c": 9})
    options = ReadOptions(classes=("c", "a"))
    dataset = load(root, tmp_path / "cache", options=options)
    assert dataset.class_names == ("a", "c")
    assert np.bincount(dataset.labels).tolist() == [9, 9]
    assert dataset.classes_confirmed
    assert [(p.path, p.kind) for p in dataset.problems] == [("b", "undeclared class")]
    assert "9 images were left out" in dataset.problems[0].message
    assert inspect(root, options=options).total == 18


def test_what_was_found_is_not_taken_for_confirmed(tmp_path):
    root = class_folders(tmp_path / "d")
    assert not load(root, tmp_path / "cache").classes_confirmed
    declared = ReadOptions(classes=("malignant", "benign"))
    assert load(root, tmp_path / "cache", options=declared).classes_confirmed


def test_the_order_of_the_declaration_makes_no_other_dataset(tmp_path):
    """Or else the ledger would take the same images for new ones."""
    root = class_folders(tmp_path / "d", {"a": 9, "b": 9, "c": 9})
    prints = {
        load(root, tmp_path / "cache", options=ReadOptions(classes=names)).fingerprint
        for names in ((), ("a", "b", "c"), ("c", "b", "a"))
    }
    assert len(prints) == 1


@pytest.mark.parametrize("door", [inspect, load])
@pytest.mark.parametrize(
    "names", [("bengin", "malignant"), ("Benign", "malignant"), ("dark", "light")]
)
def test_a_class_that_another_is_called_nearly_like_was_mistyped(tmp_path, door, names):
    root = class_folders(tmp_path / "d")
    cache = {} if door is inspect else {"cache": tmp_path / "cache"}
    with pytest.raises(UserError, match=f"class {names[0]} has no image, and another"):
        door(root, options=ReadOptions(classes=names), **cache)


@pytest.mark.parametrize("door", [inspect, load])
@pytest.mark.parametrize("rare", ["aa", "c", "x8", "z"])
def test_the_only_image_of_a_declared_class_decides_nothing(tmp_path, door, rare):
    """Neither whether there is a release nor what its classes are: one would see it."""
    others = {"a": 9, "b": 9, "x10": 9, "x9": 9}
    declared = ReadOptions(classes=("a", "b", "x10", rare))
    cache = {} if door is inspect else {"cache": tmp_path / "cache"}
    names = []
    for count in (1, 0):
        root = class_folders(tmp_path / f"{count}", others | {rare: count})
        found = door(root, options=declared, **cache)
        names.append(list(found.counts) if door is inspect else list(found.class_names))
        # And that its folder is empty is no fault of it.
        assert "empty class" not in [p.kind for p in found.problems]
    assert names[0] == names[1] and rare in names[0]
    # And where it is the only other one.
    two = ReadOptions(classes=("a", rare))
    for count in (1, 0):
        root = class_folders(tmp_path / f"two {count}", {"a": 9, rare: count})
        assert door(root, options=two, **cache)


@pytest.mark.parametrize("door", [inspect, load])
def test_a_declared_class_that_cannot_be_read_is_repaired_first(tmp_path, door):
    root = class_folders(tmp_path / "d", {"a": 9, "b": 9, "c": 2})
    cache = {} if door is inspect else {"cache": tmp_path / "cache"}
    for file in (root / "c").iterdir():
        file.write_bytes(b"none")
    with pytest.raises(UserError, match="class c has no readable image: repair"):
        door(root, options=ReadOptions(classes=("a", "b", "c")), **cache)


@pytest.mark.parametrize("door", [inspect, load])
def test_of_a_class_that_nothing_is_learnt_of_one_is_warned(tmp_path, door):
    root = class_folders(tmp_path / "d" / "train", {"a": 5, "c": 5}).parent
    class_folders(root / "test", {"a": 2, "b": 3})
    cache = {} if door is inspect else {"cache": tmp_path / "cache"}
    for names in ((), ("a", "b", "c")):
        found = door(root, options=ReadOptions(classes=names), **cache)
        (warning,) = [p for p in found.problems if p.kind == "nothing to learn from"]
        assert warning.message == (
            "Class b has no image to train on (all are held back for testing): its "
            "synthetic images would be noise; add images, or leave the class out if "
            "nobody would look for it here."
        )
        assert not warning.left_out
    found = door(root, options=ReadOptions(classes=("a", "c")), **cache)
    assert "nothing to learn from" not in [p.kind for p in found.problems]


def test_one_class_alone_is_blamed_on_the_declaration(tmp_path):
    root = class_folders(tmp_path / "d")
    with pytest.raises(UserError) as caught:
        load(root, tmp_path / "cache", options=ReadOptions(classes=("benign",)))
    assert str(caught.value) == (
        "Only one class was declared (benign): name at least two with --classes."
    )


def test_a_class_declared_twice_is_refused():
    with pytest.raises(UserError, match="declared twice"):
        ReadOptions(classes=("a", "a"))


def test_classes_of_array_files_can_be_declared_too(tmp_path):
    images, labels = idx_pair(tmp_path / "d", "train", 60)
    options = ReadOptions(classes=("3", "7"))
    dataset = load(tmp_path / "d", tmp_path / "cache", options=options, resolution=28)
    rows = np.isin(labels, (3, 7))
    assert dataset.class_names == ("3", "7")
    assert np.array_equal(dataset.images[..., 0], images[rows])
    assert dataset.labels.tolist() == (labels[rows] == 7).astype(int).tolist()


@pytest.fixture
def half_named(tmp_path):
    """Twenty images of two classes; patients p0 to p4 for the first ten."""
    root = class_folders(tmp_path / "d", {"a": 10, "b": 10})
    files = [f"{name}/{n}.png" for n in range(10) for name in "ab"]
    rows = [f"{file},p{i // 2}" for i, file in enumerate(files[:10])]
    rows += [f"{file}," for file in files[10:15]]  # and five are not listed at all
    (root / "units.csv").write_text("\n".join(["file,unit", *rows]))
    return root


def test_images_without_a_patient_need_a_choice(half_named, tmp_path):
    with pytest.raises(UserError, match=r"Row 12 of units\.csv has no unit"):
        load(half_named, tmp_path / "cache")


def test_images_without_a_patient_may_be_units_of_their_own(half_named, tmp_path):
    options = ReadOptions(missing_unit="own_unit")
    dataset = load(half_named, tmp_path / "cache", options=options)
    assert len(dataset) == 20
    assert np.bincount(np.bincount(dataset.units)).tolist() == [0, 10, 5]


def test_images_without_a_patient_may_be_left_out(half_named, tmp_path):
    options = ReadOptions(missing_unit="leave_out")
    dataset = load(half_named, tmp_path / "cache", options=options)
    assert len(dataset) == 10
    assert np.bincount(dataset.units).tolist() == [2] * 5
    assert [p.kind for p in dataset.problems] == ["no unit"]
    assert "10 images name no unit" in dataset.problems[0].message


def test_the_choice_must_be_a_known_one():
    with pytest.raises(UserError, match="own_unit or leave_out"):
        ReadOptions(missing_unit="guess")


def test_copies_without_a_patient_are_held_out_together(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 40, "b": 40})
    for file in list((root / "a").iterdir()):
        (root / "a" / f"copy-{file.name}").write_bytes(file.read_bytes())
    (root / "units.csv").write_text("file,unit\nb/0.png,p1")
    options = ReadOptions(missing_unit="own_unit")
    dataset = load(root, tmp_path / "cache", options=options)
    sides: dict[bytes, set[int]] = {}
    for pixels, split in zip(dataset.images, dataset.splits, strict=True):
        sides.setdefault(pixels.tobytes(), set()).add(int(split))
    assert all(len(side) == 1 for side in sides.values())
    assert 0 < len(dataset.subset(Split.HELD_OUT)) < 60


def units_of(root, table, **options):
    (root / "units.csv").write_text("\n".join(["file,unit", *table]), "utf-8")
    return load(root, None, options=ReadOptions(**options))


@pytest.mark.parametrize("nobody", ["unknown", " N/A", "NaN", "-", "ANONYMOUS"])
def test_nobody_is_no_patient(tmp_path, nobody):
    """What two people have in common would move by both of them."""
    root = class_folders(tmp_path / "d", {"a": 4, "b": 4})
    table = [
        f"{c}/{n}.png,{nobody if n > 1 else f'{c}{n}'}" for c in "ab" for n in range(4)
    ]
    with pytest.raises(UserError, match="4 of 8 images name no unit"):
        units_of(root, table)
    apart = units_of(root, table, missing_unit="own_unit")
    assert np.bincount(apart.units).tolist() == [1] * 8
    assert len(units_of(root, table, missing_unit="leave_out")) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [("P123", "p123"), ("0123", "123"), ("a b", "ab"), ("ＭＲＮ2", "MRN2"),
     ("J\u00fcrg", "Ju\u0308rg"), ("x\u00ad1", "x1"), ("P-007", "P-7")],
)  # fmt: skip
def test_one_name_written_in_two_ways_is_refused(tmp_path, one, other):
    """A patient would be two."""
    root = class_folders(tmp_path / "d", {"a": 2, "b": 2})
    rest = ["b/0.png,c", "b/1.png,d"]
    with pytest.raises(UserError, match="seem to be one, written in two ways"):
        units_of(root, [f"a/0.png,{one}", f"a/1.png,{other}", *rest])
    assert len(units_of(root, [f"a/0.png,{one}", f"a/1.png,{one}", *rest])) == 4


@pytest.mark.parametrize("name", ["a10", "a1", "10", "1", "100", "a-1-0", "b"])
def test_names_that_differ_are_taken(tmp_path, name):
    root = class_folders(tmp_path / "d", {"a": 2, "b": 2})
    table = [f"a/0.png,{name}", "a/1.png,a01-x", "b/0.png,1001", "b/1.png,b1"]
    assert len(units_of(root, table)) == 4


@pytest.mark.parametrize("spelt", ["./a/0.png", "a//0.png", "a/./0.png"])
def test_a_row_finds_its_file_however_the_path_is_spelt(tmp_path, spelt):
    root = class_folders(tmp_path / "d", {"a": 3, "b": 3})
    dataset = units_of(root, [f"{spelt},p", "a/1.png,p"], missing_unit="own_unit")
    assert sorted(np.bincount(dataset.units).tolist()) == [1, 1, 1, 1, 2]
    assert not dataset.problems


def test_a_row_that_finds_no_file_is_refused_where_others_have_none(tmp_path):
    """Those of one patient, spelt otherwise, would be a unit each."""
    root = class_folders(tmp_path / "d", {"a": 3, "b": 3})
    table = ["A/0.png,p", "A/1.png,p"]
    with pytest.raises(UserError, match=r"names A/0\.png, which is not there"):
        units_of(root, table, missing_unit="own_unit")
    assert len(units_of(root, [*table, "a/2.png,q", "b/0.png,r"],
                        missing_unit="leave_out")) == 2  # fmt: skip


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_under_two_names_is_refused(tmp_path, link):
    """It would count for two patients, and be missing for both without one of them."""
    root = class_folders(tmp_path / "d", {"a": 3, "b": 3})
    link(root / "a" / "1.png", root / "b" / "l.png")
    with pytest.raises(UserError, match=r"a/1\.png and b/l\.png are one file"):
        load(root, None)
    (root / "a" / "1.png").rename(tmp_path / "1.png")
    assert len(load(root, None)) == (6 if link is os.link else 5)


def test_another_name_of_the_column_is_not_the_one_that_was_cached(tmp_path):
    """Whom it stands for is told by its name."""
    root = class_folders(tmp_path / "d", {"a": 3, "b": 3})
    rows = [f"{p.relative_to(root).as_posix()},{p.parent.name},{p.stem}"
            for p in sorted(root.rglob("*.png"))]  # fmt: skip
    for column in ("patient", "slide"):
        table = [f"path,label,{column}", *rows]
        (root / "manifest.csv").write_text("\n".join(table))
        options = ReadOptions(unit_column=column)
        assert load(root, tmp_path / "c", options=options).unit_column == column


def test_a_folder_split_through_a_patient_holds_out_nobody_who_is_trained_on(tmp_path):
    root = tmp_path / "d"
    class_folders(root / "train", {"a": 6, "b": 6})
    class_folders(root / "test", {"a": 4, "b": 4})
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
    # Patient p0 is in both; all others are in one.
    rows = [f"{file},{'p0' if file.endswith('/0.png') else file}" for file in files]
    (root / "units.csv").write_text("\n".join(["file,unit", *rows]))
    dataset = load(root, tmp_path / "cache")
    assert [len(dataset.subset(split)) for split in Split] == [12, 6, 2]
    assert len(dataset.official_subset("test")) == 8


def test_declarations_can_be_written_as_text():
    assert parse_options() == ReadOptions()
    assert parse_options(
        grey=True, window=" -160, 240", classes="a; b;", unit_column="Fall-Nr"
    ) == ReadOptions(
        grey=True, window=(-160, 240), classes=("a", "b"), unit_column="Fall-Nr"
    )


@pytest.mark.parametrize("window", ["1", "1,2,3", "a,b", "1;2", "2,1", "nan,1"])
def test_a_window_that_is_none_is_one_sentence(window):
    with pytest.raises(UserError, match=r"The window .* (two numbers|no range)"):
        parse_options(window=window)


def test_the_command_line_takes_declarations(tmp_path, capsys):
    root = class_folders(tmp_path / "d", {"a": 9, "b": 9, "c": 9})
    arguments = ["inspect", str(root), "--classes", "c;a", "--grey", "--json"]
    assert cli.main(arguments) == cli.DONE
    found = json.loads(capsys.readouterr().out)
    assert (found["total"], found["colour"]) == (18, False)
    assert cli.main(arguments[:-1]) == cli.DONE
    assert "left" in (shown := capsys.readouterr().out) and "18 images" in shown
    assert cli.main([*arguments, "--window", "5"]) == cli.MISTAKE
