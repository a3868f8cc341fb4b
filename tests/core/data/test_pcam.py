from __future__ import annotations

import gzip

import h5py
import numpy as np
import pytest

from core.data import ReadOptions, Split, inspect, load
from core.data.hdf5 import Hdf5Array
from core.errors import UserError

STEM = "camelyonpatch_level_2_split"
COUNTS = {"train": 24, "valid": 6, "test": 8}


def pcam(root, *, meta=True, counts=COUNTS, **settings):
    """As the authors' files are: uint8 [N, 96, 96, 3] in x, [N, 1, 1, 1] in y."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    images, labels = {}, {}
    for split, count in counts.items():
        images[split] = rng.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
        labels[split] = (np.arange(count) % 2).astype(np.uint8)
        with h5py.File(root / f"{STEM}_{split}_x.h5", "w") as file:
            file.create_dataset("x", data=images[split], **settings)
        with h5py.File(root / f"{STEM}_{split}_y.h5", "w") as file:
            file.create_dataset("y", data=labels[split].reshape(-1, 1, 1, 1))
        if meta:
            rows = [
                f"{i},{i},{i},{bool(i % 2)},{bool(i % 2)},{split}_{i // 4}"
                for i in range(count)
            ]
            header = ",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"
            table = root / f"{STEM}_{split}_meta.csv"
            table.write_text("\n".join([header, *rows]) + "\n")
    return images, labels


@pytest.mark.parametrize(
    ("inner", "settings"),
    [
        ("", {}),
        ("pcam", {"compression": "gzip", "chunks": (5, 96, 96, 3)}),
        ("", {"compression": "lzf"}),
    ],
    ids=str,
)
def test_patches_labels_splits_and_slides_come_back(tmp_path, inner, settings):
    root = tmp_path / "d"
    images, labels = pcam(root / inner, **settings)
    dataset = load(root, tmp_path / "cache", resolution=96)
    assert dataset.format_name == "PatchCamelyon"
    assert np.array_equal(dataset.images, np.concatenate(list(images.values())))
    assert np.array_equal(dataset.labels, np.concatenate(list(labels.values())))
    assert dataset.class_names == ("normal", "tumour")
    assert dataset.official_split_names == ("train", "val", "test")
    assert [len(dataset.subset(split)) for split in Split] == [24, 14, 0]
    assert dataset.unit_column == "wsi"
    assert len(np.unique(dataset.units)) == 6 + 2 + 2


def test_without_tables_there_are_no_slides(tmp_path):
    pcam(tmp_path / "d", meta=False)
    found = load(tmp_path / "d", tmp_path / "cache")
    assert not found.has_groups
    assert len(found) == 38


def test_training_files_alone_are_split_by_slide(tmp_path):
    pcam(tmp_path / "d", counts={"train": 80})
    found = load(tmp_path / "d", tmp_path / "cache")
    held_out = set(found.units[found.subset(Split.HELD_OUT)].tolist())
    assert held_out
    assert not held_out & set(found.units[found.subset(Split.TRAIN)].tolist())


@pytest.mark.parametrize("count", [0, 1])
def test_the_last_image_of_a_split_does_not_say_whether_there_are_slides(
    tmp_path, count
):
    """Else this one record would take the patients from all others."""
    pcam(tmp_path / "d", counts=COUNTS | {"valid": count})
    found = load(tmp_path / "d", None)
    assert found.unit_column == "wsi" and len(found) == 32 + count


def test_patients_are_not_known(tmp_path):
    pcam(tmp_path / "d")
    with pytest.raises(UserError, match="choose wsi"):
        inspect(tmp_path / "d", options=ReadOptions(unit_column="patient"))


def test_packed_files_are_to_be_unpacked(tmp_path):
    pcam(tmp_path / "d")
    file = tmp_path / "d" / f"{STEM}_train_x.h5"
    (tmp_path / "d" / f"{file.name}.gz").write_bytes(gzip.compress(b"x"))
    file.unlink()
    with pytest.raises(UserError, match=r"train_x\.h5\.gz is packed: unpack it"):
        inspect(tmp_path / "d")


@pytest.mark.parametrize("lost", ["train_x", "train_y", "valid_y"])
def test_missing_files_are_named(tmp_path, lost):
    pcam(tmp_path / "d")
    (tmp_path / "d" / f"{STEM}_{lost}.h5").unlink()
    with pytest.raises(UserError, match=rf"{lost}\.h5"):
        inspect(tmp_path / "d")


def write(file, name, array, **settings):
    with h5py.File(file, "w") as content:
        content.create_dataset(name, data=array, **settings)


@pytest.mark.parametrize(
    ("part", "array", "words"),
    [
        ("x", np.zeros((24, 96, 96, 3), np.float32), "is damaged, or is no HDF5"),
        ("x", np.zeros((24, 96, 96, 3), np.int16), "of type int16"),
        ("x", np.zeros((24, 8, 8, 4), np.uint8), "two-dimensional"),
        ("x", np.zeros((24, 1, 5000), np.uint8), "more than Sfumato reads"),
        ("y", np.zeros(23, np.uint8), "holds 23 labels"),
        ("y", np.full(24, 2, np.uint8), "other than 0 and 1"),
        ("y", np.zeros((24, 2), np.uint8), "holds 24 labels"),
        ("y", np.array(["a"] * 24, "S1"), "is damaged, or is no HDF5"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, part, array, words):
    pcam(tmp_path / "d")
    write(tmp_path / "d" / f"{STEM}_train_{part}.h5", part, array)
    with pytest.raises(UserError, match=words):
        inspect(tmp_path / "d")


def test_a_table_of_another_length_is_named(tmp_path):
    pcam(tmp_path / "d")
    table = tmp_path / "d" / f"{STEM}_test_meta.csv"
    table.write_text(table.read_text() + "8,8,8,True,True,test_9\n")
    with pytest.raises(UserError, match="has 9 rows"):
        inspect(tmp_path / "d")


def test_a_damaged_file_is_one_sentence(tmp_path):
    pcam(tmp_path / "d", compression="gzip")
    file = tmp_path / "d" / f"{STEM}_train_x.h5"
    whole = file.read_bytes()
    for damage in (
        whole[: len(whole) // 2],
        whole[:4],
        b"no HDF5 at all",
        b"",
        whole[:1000] + bytes(3000) + whole[4000:],
        whole[:-4000] + b"\xff" * 4000,
    ):
        file.write_bytes(damage)
        with pytest.raises(UserError, match=r"_train_x\.h5 is damaged"):
            inspect(tmp_path / "d")


def test_no_link_inside_the_file_leads_to_another_file(tmp_path):
    """The reader cannot open a second file, so that no link can be followed."""
    write(tmp_path / "secret.h5", "x", np.arange(10, dtype=np.uint8))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "x")
        layout = h5py.VirtualLayout((10,), np.uint8)
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (10,))
        file.create_virtual_dataset("v", layout)
        (tmp_path / "raw").write_bytes(b"secret byte")
        file.create_dataset("e", (10,), np.uint8, external=str(tmp_path / "raw"))
    assert Hdf5Array.open(tmp_path / "secret.h5", "x").count == 10
    for name in ("x", "e"):
        with pytest.raises(UserError, match="damaged"):
            list(Hdf5Array.open(tmp_path / "a.h5", name).blocks())
    # A virtual array is filled with zeros where its source cannot be opened.
    (virtual,) = Hdf5Array.open(tmp_path / "a.h5", "v").blocks()
    assert not virtual.any()


def test_arrays_come_in_bounded_blocks(tmp_path, monkeypatch):
    array = np.random.default_rng(0).integers(0, 256, (300, 200, 200), dtype=np.uint8)
    write(tmp_path / "a.h5", "x", array)
    blocks = list(Hdf5Array.open(tmp_path / "a.h5", "x").blocks())
    assert len(blocks) > 2
    assert np.array_equal(np.concatenate(blocks), array)
