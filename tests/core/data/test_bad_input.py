from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import pytest

from core.data import inspect, load
from core.data.paths import refuse_among_images
from core.data.tables import read_header
from core.errors import UserError
from tests.core.data.fakes import class_folders, image


def empty(root):
    root.mkdir()


def only_clutter(root):
    root.mkdir()
    (root / ".DS_Store").write_text("x")


def only_files(root):
    root.mkdir()
    image(1).save(root / "a.png")


def no_readable_image(root):
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        (root / name / "0.png").write_bytes(b"not an image")


def no_image(root):
    (root / "a").mkdir(parents=True)
    (root / "a" / "0.txt").write_text("text")


def one_class(root):
    class_folders(root, {"only": 5})


def single_image(root):
    class_folders(root, {"a": 1})


def one_class_unreadable(root):
    class_folders(root, {"a": 5, "b": 5})
    (root / "c").mkdir()
    (root / "c" / "0.png").write_bytes(b"broken")


def nothing_to_train_on(root):
    class_folders(root / "test", {"a": 5, "b": 5})
    (root / "train" / "a").mkdir(parents=True)


def a_file(root):
    root.write_text("hello")


def an_archive(root):
    with zipfile.ZipFile(root, "w") as archive:
        archive.writestr("a/0.png", b"x")


def a_folder_with_an_archive(root):
    root.mkdir()
    an_archive(root / "images.zip")


def nothing(root):
    pass


@pytest.mark.parametrize("door", [inspect, load])
@pytest.mark.parametrize(
    ("make", "words", "remedy"),
    [
        (nothing, "does not exist", "check the path"),
        (a_file, "is a file that is no dataset", "choose the folder"),
        (an_archive, "is a zip archive", "unpack it"),
        (a_folder_with_an_archive, "holds a zip archive", "unpack it"),
        (empty, "is empty", "choose the folder"),
        (only_clutter, "is empty", "choose the folder"),
        (only_files, "no class folder", "move the images into one folder per class"),
        (no_image, "No readable image was found", "choose a folder"),
        (no_readable_image, "No readable image was found", "choose a folder"),
        (one_class, "data belong to one class (only)", "add a second class"),
        (single_image, "data holds a single image", "many images of each"),
        (one_class_unreadable, "class c has no readable image", "repair its files"),
        (nothing_to_train_on, "No image is left to train on", "add images"),
    ],
)
def test_one_clear_sentence(tmp_path, door, make, words, remedy):
    root = tmp_path / "data"
    make(root)
    with pytest.raises(UserError) as caught:
        door(root) if door is inspect else door(root, tmp_path / "cache")
    sentence = str(caught.value)
    assert words in sentence
    assert remedy in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize("resolution", [0, -3, 7, 100_000])
def test_resolutions_out_of_range(tmp_path, resolution):
    with pytest.raises(UserError, match=f"resolution of {resolution} pixels"):
        inspect(class_folders(tmp_path / "d"), resolution)


def test_empty_classes_and_loose_images_are_listed(tmp_path):
    root = class_folders(tmp_path / "d")
    (root / "unused").mkdir()
    image(1).save(root / "loose.png")
    found = inspect(root)
    assert set(found.counts) == {"benign", "malignant"}
    assert {(p.path, p.kind) for p in found.problems} == {
        ("unused", "empty class"),
        ("loose.png", "no class"),
    }


def test_an_inspection_is_plain_json(tmp_path):
    root = class_folders(tmp_path / "d")
    (root / "benign" / "bad.png").write_bytes(b"bad")
    facts = json.loads(json.dumps(inspect(root).to_json()))
    assert facts["total"] == 12
    assert facts["format_name"] == "class folders"
    assert facts["groups"] is None
    assert facts["sizes"] == {"40×40": 12}
    assert facts["modes"] == {"RGB": 12}
    assert facts["problems"][0]["path"] == "benign/bad.png"
    assert facts["problem_counts"] == {"cannot be decoded": 1}
    assert not facts["classes_confirmed"]
    assert sum(facts["counts"]["benign"].values()) == 6


def test_the_data_room_imports_no_torch():
    code = "import sys, core.data, core.data.phantom; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_folder_beside_a_table_is_told_of_the_table(tmp_path):
    image(1).save(tmp_path / "1.png")
    with pytest.raises(UserError, match=r"one folder per class\.$"):
        inspect(tmp_path)
    (tmp_path / "labels.csv").write_text("file,class\n1.png,a\n")
    with pytest.raises(UserError, match=r"If labels\.csv names the classes, choose"):
        inspect(tmp_path)


def test_classes_one_folder_further_down_are_pointed_at(tmp_path):
    class_folders(tmp_path / "d" / "export", {"a": 3, "b": 3})
    with pytest.raises(UserError, match="or choose the folder export in it"):
        inspect(tmp_path / "d")
    class_folders(tmp_path / "e", {"a": 3})
    with pytest.raises(UserError, match="or choose the folder above"):
        inspect(tmp_path / "e")


@pytest.mark.parametrize("sign", [",", ";", "\t"], ids=["commas", "semicolons", "tabs"])
def test_the_first_line_of_a_table_tells_its_separator(tmp_path, sign):
    for number in range(4):
        image(number).save(tmp_path / f"{number}.png")
    lines = [f"{n}.png{sign}{'ab'[n % 2]}{sign}1,5; left" for n in range(4)]
    if sign != "\t":
        lines = [line.replace("1,5; left", '"1,5; left"') for line in lines]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join([f"path{sign}label{sign}note", *lines]))
    assert set(inspect(table).counts) == {"a", "b"}


@pytest.mark.parametrize(
    "heading",
    [
        'path,label,"dx (benign; malignant; other; unknown)"',
        "path,label,dx (benign; malignant; other; unknown)",
        "path;label;dx, as the pathologist wrote",
        "path;label;thumb.png",
    ],
)
def test_other_separators_within_a_name_part_nothing(tmp_path, heading):
    for number in range(4):
        image(number).save(tmp_path / f"{number}.png")
    sign = heading[4]
    lines = [f"{n}.png{sign}{'ab'[n % 2]}{sign}x" for n in range(4)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join([heading, *lines]))
    assert read_header(table, tmp_path)[:2] == ["path", "label"]
    assert set(inspect(table).counts) == {"a", "b"}


def test_an_endless_line_of_a_table_is_refused_before_it_is_taken_apart(tmp_path):
    image(1).save(tmp_path / "1.png")
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n1.png,a" + "," * 2**20)
    with pytest.raises(UserError, match=r"A line of labels\.csv is overlong"):
        inspect(table)


def test_half_a_character_in_a_table_is_refused(tmp_path):
    """JSON can write what no file name and no text in UTF-8 can be."""
    folder = tmp_path / "train"
    folder.mkdir()
    entry = '{"file_name": "\\ud800.png", "label": "a"}\n'
    (folder / "metadata.jsonl").write_text(entry)
    image(1).save(folder / "1.png")
    with pytest.raises(UserError, match="invisible characters"):
        inspect(tmp_path)


def test_a_class_whose_folder_may_not_be_read_is_named(tmp_path, monkeypatch):
    """Two classes are no single class because one of them is locked."""
    root = class_folders(tmp_path / "data", {"a": 8, "locked": 8})
    scan = os.scandir

    def locked(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("core.data.paths.os.scandir", locked)
    with pytest.raises(UserError, match=r"locked: .* \(Permission denied\): check its"):
        inspect(root)


@pytest.mark.parametrize("project", ["scans", "scans/p", "scans/a/../p", "link/p"])
def test_a_project_among_the_images_is_refused(tmp_path, project):
    (tmp_path / "scans" / "a").mkdir(parents=True)
    (tmp_path / "list.csv").write_text("path,label")
    (tmp_path / "link").symlink_to(tmp_path / "scans")
    with pytest.raises(UserError) as caught:
        refuse_among_images(tmp_path / project, tmp_path / "scans")
    assert str(caught.value) == (
        "The project folder lies inside the folder of images: choose one outside it, "
        "such as ~/Sfumato/scans."
    )
    for outside in ("p", "scans2", "."):
        refuse_among_images(tmp_path / outside, tmp_path / "scans")
        refuse_among_images(tmp_path / outside, tmp_path / "list.csv")
