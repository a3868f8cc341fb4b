"""What other programs write, we read: no table or array here is written by our code.

HDF5 and DICOM, which `h5py` and `pydicom` write, are in `test_pcam` and `test_dicom`.
EDM's `dataset.json` has no writer but EDM's own tool, which is not free: here it is
written by `json` as that tool's documentation has it.
"""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest
from PIL import Image

from core.data import ReadOptions, Split, load
from core.data.formats.medmnist import CLASS_NAMES
from core.errors import UserError

SIDE = 40


def drawn(count, *, side=SIDE, colour=True):
    """uint8 [count, side, side, 3], or without the last: no two alike."""
    rng = np.random.default_rng(count + side)
    shape = (count, side, side, 3) if colour else (count, side, side)
    return rng.integers(0, 256, shape, np.uint8)


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def found(dataset):
    """(image, class name) of each image, in an order of their own."""
    names = [dataset.class_names[label] for label in dataset.labels]
    pixels = [image.tobytes() for image in dataset.images]
    return sorted(zip(pixels, names, strict=True))


def expected(pixels, names):
    pairs = zip(pixels, names, strict=True)
    return sorted((image.tobytes(), str(name)) for image, name in pairs)


def test_class_folders(tmp_path):
    pixels = drawn(12)
    names = [("benign", "malignant")[number % 2] for number in range(12)]
    for number, name in enumerate(names):
        write_png(tmp_path / "d" / name / f"{number}.png", pixels[number])
    ours = load(tmp_path / "d", tmp_path / "cache", resolution=SIDE)
    assert found(ours) == expected(pixels, names)


def test_camelyon17_with_the_table_of_pandas(tmp_path):
    """As the benchmark's own table was written: with the index as nameless column."""
    root = tmp_path / "camelyon17_v1.0"
    pixels, rows = drawn(20, side=96), []
    for number in range(20):
        rows.append(
            {
                "patient": 20 * (number // 4) + 4, "node": 4, "x_coord": 32 * number,
                "y_coord": 64, "tumor": number % 2, "slide": 10 * (number // 4),
                "center": number // 4, "split": number // 2 % 2,
            }
        )  # fmt: skip
        slide = f"patient_{rows[-1]['patient']:03d}_node_4"
        patch = f"patch_{slide}_x_{32 * number}_y_64.png"
        write_png(root / "patches" / slide / patch, pixels[number])
    table = pandas.DataFrame(rows)
    table["patient"] = table["patient"].map("{:03d}".format)
    table.to_csv(root / "metadata.csv")
    ours = load(root, tmp_path / "cache", resolution=96)
    names = [("normal", "tumour")[number % 2] for number in range(20)]
    assert found(ours) == expected(pixels, names)
    assert ours.unit_column == "patient" and len(set(ours.units.tolist())) == 5


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_imagefolder_with_the_table_of_datasets(tmp_path, kind):
    from datasets import Dataset

    pixels = drawn(16)
    names = [("normal", "with, comma")[number % 2] for number in range(16)]
    for number in range(16):
        write_png(tmp_path / "d" / "train" / "sub" / f"{number}.png", pixels[number])
    table = Dataset.from_dict(
        {
            "file_name": [f"sub/{number}.png" for number in range(16)],
            "label": names,
            "patient_id": [f"p{number // 4}" for number in range(16)],
        }
    )
    path = tmp_path / "d" / "train" / f"metadata.{kind}"
    if kind == "csv":
        table.to_csv(path)
    else:
        table.to_json(path)
    ours = load(tmp_path / "d", tmp_path / "cache", resolution=SIDE)
    assert found(ours) == expected(pixels, names)
    assert len(set(ours.units.tolist())) == 4


@pytest.mark.parametrize(
    "dialect",
    [
        {},
        {"sep": ";", "encoding": "utf-8-sig"},
        {"sep": "\t", "quoting": 1, "lineterminator": "\r\n"},
    ],
)
def test_a_manifest_of_pandas_in_the_dialects_of_spreadsheets(tmp_path, dialect):
    pixels = drawn(12)
    names = [('says "yes"', "naïve, 2 mm")[number % 2] for number in range(12)]
    for number in range(12):
        write_png(tmp_path / "scans" / f"bild {number}.png", pixels[number])
    table = pandas.DataFrame(
        {
            "Datei": [f"scans/bild {number}.png" for number in range(12)],
            "Befund": names,
            "Fall": [f"{number // 3:04d}" for number in range(12)],
            "Teil": ["train"] * 9 + ["test"] * 3,
        }
    )
    table.to_csv(tmp_path / "liste.csv", index=False, **dialect)
    options = ReadOptions(
        path_column="Datei", label_column="Befund", unit_column="Fall",
        split_column="Teil",
    )  # fmt: skip
    ours = load(
        tmp_path / "liste.csv", tmp_path / "cache", resolution=SIDE, options=options
    )
    assert found(ours) == expected(pixels, names)
    assert len(ours.subset(Split.TRAIN)) == 9 and len(set(ours.units.tolist())) == 4


def medmnist_file(folder, count=30):
    """An npz file as MedMNIST's are: numpy's, uint8, one column of labels."""
    folder.mkdir(parents=True)
    arrays = {}
    for number, split in enumerate(("train", "val", "test")):
        arrays[f"{split}_images"] = drawn(count + number, side=28)
        labels = np.arange(count + number)[:, None] % 8
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    np.savez_compressed(folder / "bloodmnist.npz", **arrays)
    return arrays


def test_medmnist_in_the_file_of_numpy(tmp_path):
    arrays = medmnist_file(tmp_path / "d")
    ours = load(tmp_path / "d", tmp_path / "cache", resolution=28)
    pixels = np.concatenate([arrays[f"{s}_images"] for s in ("train", "val", "test")])
    labels = np.concatenate([arrays[f"{s}_labels"] for s in ("train", "val", "test")])
    names = [CLASS_NAMES["bloodmnist"][label] for label in labels[:, 0]]
    assert found(ours) == expected(pixels, names)


def saved_by_medmnist(tmp_path):
    """The pictures and the table that `medmnist` writes of its own file."""
    from medmnist import BloodMNIST

    arrays = medmnist_file(tmp_path / "theirs")
    for split in ("train", "test"):
        theirs = BloodMNIST(split, root=str(tmp_path / "theirs"))
        theirs.save(str(tmp_path / "saved"))
    return arrays, tmp_path / "saved"


def test_the_pictures_that_medmnist_saves_with_a_heading_for_its_table(tmp_path):
    arrays, folder = saved_by_medmnist(tmp_path)
    table = next(folder.rglob("*.csv"))
    for png in folder.rglob("*.png"):
        png.rename(table.parent / png.name)
    table.write_text("split,path,label\n" + table.read_text())
    ours = load(table, tmp_path / "cache", resolution=28)
    pixels = np.concatenate([arrays["train_images"], arrays["test_images"]])
    labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    assert found(ours) == expected(pixels, labels[:, 0])
    assert len(ours.subset(Split.TRAIN)) == len(arrays["train_images"])


def test_the_table_that_medmnist_saves_has_no_heading_and_is_refused(tmp_path):
    _, folder = saved_by_medmnist(tmp_path)
    table = next(folder.rglob("*.csv"))
    with pytest.raises(UserError) as refused:
        load(table, tmp_path / "cache", resolution=28)
    assert "names no columns, but an image already" in str(refused.value)


def test_idx_in_the_files_of_idx2numpy(tmp_path):
    import idx2numpy

    pixels = drawn(60, side=28, colour=False)
    labels = (np.arange(60) % 10).astype(np.uint8)
    (tmp_path / "d").mkdir()
    for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        path = tmp_path / "d" / f"train-{name}-ubyte"
        idx2numpy.convert_to_file(str(path), array)
    ours = load(tmp_path / "d", tmp_path / "cache", resolution=28)
    assert found(ours) == expected(pixels, labels)


def test_edm_by_the_description_of_its_tool(tmp_path):
    pixels, labels = drawn(12), [number % 2 for number in range(12)]
    entries = []
    for number, label in enumerate(labels):
        name = f"00000/img{number:08d}.png"
        write_png(tmp_path / "d" / name, pixels[number])
        entries.append([name, label])
    (tmp_path / "d" / "dataset.json").write_text(json.dumps({"labels": entries}))
    ours = load(tmp_path / "d", tmp_path / "cache", resolution=SIDE)
    assert found(ours) == expected(pixels, labels)
