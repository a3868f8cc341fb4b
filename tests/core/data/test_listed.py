"""Layouts whose images are listed in a table: manifest, imagefolder, dataset.json."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from core.data import ReadOptions, Split, inspect, load
from core.errors import UserError
from tests.core.data.fakes import class_folders, image


def images(root, count=12, folder=""):
    """Different images `<folder>/<n>.png`; gives back their paths."""
    paths = [f"{folder}/{n}.png" if folder else f"{n}.png" for n in range(count)]
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image(number, (32, 32)).save(root / path)
    return paths


def write_csv(file, rows, encoding="utf-8"):
    with file.open("w", newline="", encoding=encoding) as out:
        csv.writer(out).writerows(rows)


@pytest.fixture
def hospital(tmp_path):
    """A table as a hospital exports it, with columns of its own names."""
    root = tmp_path / "d"
    paths = images(root, 12, "export/deep")
    rows = [["Datei", "Befund", "Fall-Nr", "Satz", "Ort"]]
    for n, path in enumerate(paths):
        split = "Test" if n >= 8 else "Training"
        rows.append([path, ("Ödem", "normal")[n % 2], f"F{n // 2}", split, "x"])
    write_csv(root / "liste.csv", rows, encoding="utf-8-sig")
    return root


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        (1, "1 of the 2 files named in liste.csv is not there (not/there.png): "),
        (2, "2 of the 2 files named in liste.csv are not there (not/there.png): "),
    ],
)
def test_a_table_of_files_that_are_not_there_is_blamed(tmp_path, absent, said):
    paths = ["not/there.png", "neither.png" if absent == 2 else images(tmp_path, 1)[0]]
    rows = [["path", "label"], *zip(paths, "ab", strict=True)]
    write_csv(tmp_path / "liste.csv", rows)
    with pytest.raises(UserError) as caught:
        load(tmp_path / "liste.csv", None)
    assert str(caught.value) == said + "correct the paths."


def test_a_file_that_is_not_there_is_not_blamed_for_the_damaged_ones(tmp_path):
    (tmp_path / "1.png").write_bytes(b"1")
    (tmp_path / "2.png").write_bytes(b"2")
    rows = [["path", "label"], ["1.png", "a"], ["2.png", "b"], ["3.png", "b"]]
    write_csv(tmp_path / "liste.csv", rows)
    with pytest.raises(UserError, match="No readable image was found"):
        load(tmp_path / "liste.csv", None)


MAPPED = ReadOptions(
    path_column="Datei",
    label_column="Befund",
    unit_column="Fall-Nr",
    split_column="Satz",
)


def test_columns_of_any_name_are_mapped(hospital, tmp_path):
    dataset = load(hospital / "liste.csv", tmp_path / "cache", options=MAPPED)
    assert dataset.format_name == "CSV manifest"
    assert dataset.class_names == ("normal", "Ödem")
    assert dataset.labels.tolist() == [1, 0] * 6
    assert dataset.unit_column == "Fall-Nr"
    assert dataset.units.tolist() == [n // 2 for n in range(12)]
    assert dataset.subset(Split.TRAIN).tolist() == list(range(8))
    assert len(dataset.official_subset("test")) == 4
    first = np.asarray(image(0, (32, 32)))
    assert np.array_equal(dataset.images[0], first)
    # Who is held out is another grouping; whose images those are stays the same.
    everybody = load(
        hospital / "liste.csv",
        tmp_path / "other",
        options=replace(MAPPED, split_column=""),
    )
    assert everybody.grouping != dataset.grouping
    assert everybody.membership == dataset.membership


@pytest.mark.parametrize("missing", ["path", "label", "unit", "split"])
def test_a_column_that_is_not_there_is_named_with_those_that_are(hospital, missing):
    declared = {f"{name}_column": getattr(MAPPED, f"{name}_column")
                for name in ("path", "label", "unit", "split")}  # fmt: skip
    options = ReadOptions(**(declared | {f"{missing}_column": "nix"}))
    with pytest.raises(UserError, match=r"no column 'nix'.*Datei, Befund, Fall-Nr"):
        inspect(hospital / "liste.csv", options=options)


def test_undeclared_columns_are_asked_for(hospital):
    with pytest.raises(UserError, match="has no column 'path': say which column"):
        inspect(hospital / "liste.csv")


def test_one_column_cannot_be_two_things(hospital):
    options = ReadOptions(path_column="Datei", label_column="Datei")
    with pytest.raises(UserError, match="declared for two things"):
        inspect(hospital / "liste.csv", options=options)


def test_a_column_called_unit_is_not_taken_for_patients_unasked(tmp_path):
    """It may be the ward; where it is the patient, it can be declared."""
    rows = [["path", "label", "unit"]]
    rows += [
        [path, "ab"[n % 2], f"ward {n % 4}"] for n, path in enumerate(images(tmp_path))
    ]
    write_csv(tmp_path / "manifest.csv", rows)
    assert not load(tmp_path, None).has_groups
    declared = load(tmp_path, None, options=ReadOptions(unit_column="unit"))
    assert declared.has_groups and declared.unit_column == "unit"


def test_a_folder_with_manifest_csv_is_known_by_it(tmp_path):
    root = tmp_path / "d"
    paths = images(root)
    rows = [[path, "ab"[n % 2], n // 3] for n, path in enumerate(paths)]
    write_csv(root / "manifest.csv", [["path", "label", "patient"], *rows])
    dataset = load(root, tmp_path / "cache")
    assert dataset.unit_column == "patient"
    assert len(np.unique(dataset.units)) == 4
    assert len(dataset) == 12


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "/etc/passwd",
        "C:/x.png",
        "c:x.png",
        "\\\\server\\share\\x.png",
        "a\\..\\..\\x.png",
        "a/../../x.png",
        "a.png:stream",
        "CON",
        "nul.png",
        "a/Aux.tar.gz",
        "com1 .png",
        "LPT9.",
        "conin$",
        "x" * 2000,
        "",
    ],
)
def test_paths_that_lead_out_or_to_devices_are_refused(tmp_path, path):
    root = tmp_path / "d"
    paths = images(root)
    rows = [[path, "ab"[n % 2]] for n, path in enumerate(paths)]
    write_csv(root / "manifest.csv", [["path", "label"], *rows[:5], [path, "a"]])
    with pytest.raises(UserError, match=r"Row 7 of manifest\.csv names"):
        inspect(root)


def test_links_in_a_manifest_are_not_followed_out(tmp_path):
    root = tmp_path / "d"
    paths = images(root)
    image(99).save(tmp_path / "secret.png")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "there").symlink_to(tmp_path)
    rows = [[path, "ab"[n % 2]] for n, path in enumerate(paths)]
    rows += [["out.png", "a"], ["there/secret.png", "a"], ["gone.png", "a"]]
    write_csv(root / "manifest.csv", [["path", "label"], *rows])
    found = inspect(root)
    assert found.total == 12
    assert [(p.path, p.kind) for p in found.problems] == [
        ("out.png", "link"),
        ("there/secret.png", "link"),
        ("gone.png", "missing"),
    ]


@pytest.mark.parametrize("table", ["manifest.csv", "units.csv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_stray_quote_takes_no_rows_of_others_with_it(tmp_path, table, end):
    """In a column that nobody asked for: patient 1 more would be 7 patients less."""
    root = class_folders(tmp_path / "d", {"a": 6, "b": 6})
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
    header = {"manifest.csv": "path,label", "units.csv": "file,unit"}[table]
    notes = {1: '"see report', 8: 'of 2019"'}
    lines = [f"{f},{f[0]},{notes.get(n, '')}" for n, f in enumerate(files)]

    def read(rows):
        (root / table).write_bytes(end.join([f"{header},note", *rows]).encode())
        return load(root, None, options=ReadOptions(missing_unit="own_unit"))

    with pytest.raises(UserError, match=r"Line 10 of .* a field of several lines"):
        read(lines)
    with pytest.raises(UserError, match="not a valid CSV"):
        read(lines[:8])
    assert len(read(lines[:1] + lines[2:8])) == {"manifest.csv": 7}.get(table, 12)


def test_lines_without_a_class_and_second_lines_are_left_out(tmp_path):
    root = tmp_path / "d"
    paths = images(root)
    rows = [[path, "ab"[n % 2]] for n, path in enumerate(paths)]
    rows[3][1] = ""
    rows.append(["./" + paths[0], "b"])  # the same file, spelt otherwise
    write_csv(root / "manifest.csv", [["path", "label"], *rows])
    dataset = load(root, tmp_path / "cache")
    assert len(dataset) == 11
    assert dataset.labels[0] == 0
    kinds = {(p.path, p.kind) for p in dataset.problems}
    assert kinds == {("3.png", "no class"), ("0.png", "listed twice")}


def test_an_image_must_not_belong_to_two_patients(tmp_path):
    """Whether it counts for one would depend on whether the other is there."""
    root = tmp_path / "d"
    paths = images(root)
    rows = [[path, "ab"[n % 2], n // 3] for n, path in enumerate(paths)]
    header = ["path", "label", "patient"]
    write_csv(root / "manifest.csv", [header, *rows, [f"./{paths[4]}", "a", 1]])
    assert len(load(root, tmp_path / "cache")) == 12
    write_csv(root / "manifest.csv", [header, *rows, [f"./{paths[4]}", "a", 7]])
    with pytest.raises(UserError, match=r"Row 14 .*4\.png again, for '7' instead"):
        inspect(root)


def test_an_unknown_split_is_named(tmp_path):
    root = tmp_path / "d"
    rows = [[path, "ab"[n % 2], "fold3"] for n, path in enumerate(images(root))]
    write_csv(root / "manifest.csv", [["path", "label", "split"], *rows])
    with pytest.raises(UserError, match="has the split 'fold3'"):
        inspect(root)


def test_missing_patients_need_a_choice(tmp_path):
    root = tmp_path / "d"
    rows = [[p, "ab"[n % 2], "" if n < 4 else "p"] for n, p in enumerate(images(root))]
    write_csv(root / "manifest.csv", [["path", "label", "patient"], *rows])
    with pytest.raises(UserError, match="4 of 12 images name no patient"):
        inspect(root)
    own = load(root, tmp_path / "c", options=ReadOptions(missing_unit="own_unit"))
    assert len(np.unique(own.units)) == 5
    left = load(root, tmp_path / "c", options=ReadOptions(missing_unit="leave_out"))
    assert len(left) == 8


def test_a_unit_that_no_column_names_is_refused(tmp_path):
    root = tmp_path / "d"
    rows = [[path, "ab"[n % 2]] for n, path in enumerate(images(root))]
    write_csv(root / "manifest.csv", [["path", "label"], *rows])
    with pytest.raises(UserError, match="grouped by nothing, not by patient"):
        inspect(root, options=ReadOptions(unit_column="patient"))


# Hugging Face imagefolder


def imagefolder(root, kind, inner="data"):
    """As `datasets` writes and reads it: one table in each split's folder."""
    number = 0
    for split, count in (("train", 10), ("test", 6)):
        folder = root / inner / split
        paths = images(folder, count, "images")
        entries = []
        for n, path in enumerate(paths):
            entry = {"file_name": path, "label": n % 2, "patient_id": f"p{number // 2}"}
            entries.append(entry)
            number += 1
        if kind == "csv":
            rows = [list(entries[0]), *(list(entry.values()) for entry in entries)]
            write_csv(folder / "metadata.csv", rows)
        else:
            text = "\n".join(json.dumps(entry) for entry in entries)
            (folder / "metadata.jsonl").write_text(text + "\n")
    return root


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("inner", ["", "data"])
def test_imagefolders_are_read(tmp_path, kind, inner):
    root = imagefolder(tmp_path / "d", kind, inner)
    dataset = load(root, tmp_path / "cache")
    assert dataset.format_name == "Hugging Face imagefolder"
    assert dataset.class_names == ("0", "1")
    assert [len(dataset.official_subset(s)) for s in ("train", "test")] == [10, 6]
    assert dataset.unit_column == "patient_id"
    assert len(np.unique(dataset.units)) == 8
    assert len(dataset.subset(Split.TRAIN)) == 10


@pytest.mark.parametrize("last", ["test", "train"])
def test_the_last_row_that_is_held_out_moves_no_other(tmp_path, last):
    """A column that names splits decides, whatever is in it."""
    root = tmp_path / "d"
    rows = [[p, "ab"[n % 2], "train"] for n, p in enumerate(images(root, 60))]
    rows[-1][2] = last
    write_csv(root / "images.csv", [["path", "label", "split"], *rows])
    dataset = load(root / "images.csv", tmp_path / "cache")
    assert set(range(59)) <= set(dataset.subset(Split.TRAIN).tolist())


@pytest.mark.parametrize("last", [0, 1])
def test_the_last_row_of_a_table_of_test_images_moves_no_other(tmp_path, last):
    root = tmp_path / "d"
    for folder, count in (("train", 40), ("test", last)):
        rows = [[f"{n}.png", "ab"[n % 2]] for n in range(count)]
        images(root, count, folder)
        (root / folder).mkdir(exist_ok=True)
        write_csv(root / folder / "metadata.csv", [["file_name", "label"], *rows])
    assert len(load(root, tmp_path / "cache").subset(Split.TRAIN)) == 40


def test_imagefolder_at_the_root_is_split_by_unit(tmp_path):
    root = tmp_path / "d"
    rows = [[p, "ab"[n % 2]] for n, p in enumerate(images(root, 80))]
    write_csv(root / "metadata.csv", [["file_name", "label"], *rows])
    dataset = load(root, tmp_path / "cache")
    assert 0 < len(dataset.subset(Split.HELD_OUT)) < 40


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file_name": "0.png"', "Line 2 of metadata.jsonl is not valid JSON"),
        ('{"file_name": "0.png", "file_name": "1.png"}', "names a field twice"),
        ("[1, 2]", "is no JSON object"),
        ('{"file_name": "0.png", "label": [1, 0]}', "label that is neither text"),
        ('{"file_name": "0.png", "label": true}', "label that is neither text"),
        ('{"file_name": "0.png", "label": NaN}', "is not valid JSON"),
        ('{"file_name": "../0.png", "label": 1}', "not a path below"),
        ("[" * 100_000, "is not valid JSON"),
    ],
)
def test_bad_lines_of_json_are_named(tmp_path, line, words):
    root = tmp_path / "d"
    images(root)
    first = json.dumps({"file_name": "1.png", "label": 0})
    (root / "metadata.jsonl").write_text(first + "\n" + line + "\n")
    with pytest.raises(UserError) as caught:
        inspect(root)
    assert words in str(caught.value)


def write_lines(root, entries):
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (root / "metadata.jsonl").write_text(lines)


def trained_paths(dataset, root, paths):
    """Which of the files may be trained on, whatever else is in the dataset."""
    train = {dataset.images[row].tobytes() for row in dataset.subset(Split.TRAIN)}
    read = {path: np.asarray(Image.open(root / path)).tobytes() for path in paths}
    return {path for path in paths if read[path] in train}


@pytest.mark.parametrize("place", [0, 40], ids=["first", "last"])
@pytest.mark.parametrize(
    ("others", "line", "fits"),
    [
        ({"patient_id": "p"}, {}, False),
        ({}, {"patient_id": "new"}, False),
        ({"patient_id": "p"}, {"patient_id": None}, True),
        ({}, {}, True),
    ],
)
def test_one_more_line_of_json_moves_no_other(tmp_path, place, others, line, fits):
    """Without splits, units are held out, and no line decides what the units are.

    A refusal gives nothing away.
    """
    paths = images(tmp_path, 41)
    options = ReadOptions(missing_unit="own_unit")
    entries = [
        {"file_name": path, "label": "ab"[n % 2]}
        | {key: f"{value}{n // 4}" for key, value in others.items()}
        for n, path in enumerate(paths[:40])
    ]
    write_lines(tmp_path, entries)
    before = trained_paths(load(tmp_path, None, options=options), tmp_path, paths)
    assert 20 < len(before) < 40
    more = {"file_name": paths[40], "label": "a", **line}
    write_lines(tmp_path, [*entries[:place], more, *entries[place:]])
    if fits:
        after = load(tmp_path, None, options=options)
        assert trained_paths(after, tmp_path, paths) - {paths[40]} == before
        return
    with pytest.raises(UserError, match="has the key 'patient_id' and line"):
        load(tmp_path, None, options=options)


@pytest.mark.parametrize("key", ["file_name", "label", "subject", "fold"])
def test_a_key_that_one_line_lacks_is_named(tmp_path, key):
    entries = [
        {"file_name": path, "label": "ab"[n % 2], "subject": n // 2, "fold": "train"}
        for n, path in enumerate(images(tmp_path, 4))
    ]
    del entries[2][key]
    write_lines(tmp_path, entries)
    with pytest.raises(UserError) as caught:
        inspect(tmp_path, options=ReadOptions(split_column="fold"))
    assert str(caught.value) == (
        f"Line 1 of metadata.jsonl has the key {key!r} and line 3 has not: write it "
        "into every line, with null where nothing is known, or into none."
    )


def test_keys_that_decide_nothing_may_come_and_go(tmp_path):
    """As `datasets` reads them; a null is a value that is missing, and no column."""
    entries = [
        {"file_name": path, "label": "ab"[n % 2], **({"text": "x"} if n else {})}
        for n, path in enumerate(images(tmp_path, 8))
    ]
    entries[3]["label"] = None
    write_lines(tmp_path, entries)
    found = inspect(tmp_path)
    assert found.total == 7
    assert [problem.kind for problem in found.problems] == ["no class"]


def test_imagefolder_without_labels_says_what_is_missing(tmp_path):
    root = tmp_path / "d"
    write_csv(root.mkdir() or root / "metadata.csv", [["file_name", "text"]])
    with pytest.raises(UserError, match=r"no column 'label'.*it has file_name, text"):
        inspect(root)


# EDM


def edm(root, labels=True):
    """As `dataset_tool.py` writes it: 00000/img00000000.png and dataset.json."""
    entries = []
    for number in range(12):
        path = f"00000/img{number:08d}.png"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image(number, (32, 32)).save(root / path, compress_level=0, optimize=False)
        entries.append([path, number % 3])
    content = {"labels": entries if labels else None}
    (root / "dataset.json").write_text(json.dumps(content))
    return entries


def test_edm_folders_are_read(tmp_path):
    edm(tmp_path / "d")
    dataset = load(tmp_path / "d", tmp_path / "cache")
    assert dataset.format_name == "EDM dataset.json"
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.labels.tolist() == [0, 1, 2] * 4
    assert np.array_equal(dataset.images[5], np.asarray(image(5, (32, 32))))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"labels": null}', "has no labels"),
        ("[]", "has no labels"),
        ('{"labels": [["a.png", [0.0, 1.0]]]}', "has a list as its label"),
        ('{"labels": [["a.png", 0.5]]}', "no pair of a path and a whole number"),
        ('{"labels": [["a.png"]]}', "no pair of a path and a whole number"),
        ('{"labels": [["../a.png", 1]]}', "not a path below"),
        ('{"labels": [["a\u202e.png", 1]]}', "invisible characters"),
        ("{", "is not valid JSON"),
        ('{"labels": [], "labels": []}', "names a field twice"),
        ('{"labels": []}', "No readable image was found"),
    ],
)
def test_bad_dataset_json(tmp_path, content, words):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "dataset.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        inspect(tmp_path / "d")
    assert words in str(caught.value)


def test_the_same_images_are_the_same_dataset_in_every_listed_layout(tmp_path):
    """Names, tables and folders are not in the fingerprint."""
    edm(tmp_path / "edm")
    for layout in ("manifest", "hf", "folders"):
        root = tmp_path / layout
        rows = []
        for number in range(12):
            path = f"{number % 3}/{number}.png"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            original = tmp_path / "edm" / f"00000/img{number:08d}.png"
            (root / path).write_bytes(original.read_bytes())
            rows.append([path, number % 3])
        if layout == "manifest":
            write_csv(root / "manifest.csv", [["path", "label"], *rows])
        if layout == "hf":
            write_csv(root / "metadata.csv", [["file_name", "label"], *rows])
    found = {
        layout: load(tmp_path / layout, tmp_path / "cache")
        for layout in ("edm", "manifest", "hf", "folders")
    }
    assert len({dataset.format_name for dataset in found.values()}) == 4
    assert len({dataset.fingerprint for dataset in found.values()}) == 1
