from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest

from core.data import Split, inspect, load
from core.errors import UserError

COUNTS = {"train": 30, "val": 9, "test": 12}


def medmnist(file, *, side=28, colour=False, classes=3, extra=None, packed=True):
    """As the `medmnist` package's own files are: numpy's compressed `.npz`."""
    rng = np.random.default_rng(side)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, count in COUNTS.items():
        shape = (count, side, side, 3) if colour else (count, side, side)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        labels = (np.arange(count) % classes).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None]
    arrays |= extra or {}
    (np.savez_compressed if packed else np.savez)(file, **arrays)
    return arrays


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("chosen", ["file", "folder"])
@pytest.mark.parametrize("colour", [True, False])
def test_images_labels_and_splits_come_back(tmp_path, packed, chosen, colour):
    file = tmp_path / "d" / "pneumoniamnist.npz"
    arrays = medmnist(file, colour=colour, classes=2, packed=packed)
    dataset = load(
        file if chosen == "file" else file.parent, tmp_path / "cache", resolution=28
    )
    assert dataset.format_name == "MedMNIST"
    assert dataset.class_names == ("normal", "pneumonia")
    images = np.concatenate([arrays[f"{split}_images"] for split in COUNTS])
    assert np.array_equal(dataset.images, images if colour else images[..., None])
    labels = np.concatenate([arrays[f"{split}_labels"][:, 0] for split in COUNTS])
    assert np.array_equal(dataset.labels, labels)
    assert [len(dataset.official_subset(split)) for split in COUNTS] == [30, 9, 12]
    assert len(dataset.subset(Split.TRAIN)) == 30
    assert not dataset.has_groups


@pytest.mark.parametrize("side", [28, 64, 128, 224])
def test_all_sizes_are_read(tmp_path, side):
    medmnist(tmp_path / "d" / f"bloodmnist_{side}.npz", side=side, colour=True)
    found = inspect(tmp_path / "d")
    assert found.sizes == {f"{side}×{side}": 51}
    assert found.colour


def test_28_pixels_are_padded_to_32(tmp_path):
    file = tmp_path / "d" / "octmnist.npz"
    arrays = medmnist(file)
    dataset = load(file, tmp_path / "cache")
    assert np.array_equal(dataset.images[:30, 2:30, 2:30, 0], arrays["train_images"])


def test_unknown_names_are_called_by_number(tmp_path):
    file = tmp_path / "d" / "retinamnist.npz"
    medmnist(file, classes=5)
    assert load(file, tmp_path / "cache").class_names == tuple("01234")


def test_several_labels_for_an_image_are_refused_with_the_reason(tmp_path):
    extra = {
        f"{split}_labels": np.zeros((count, 14), np.uint8)
        for split, count in COUNTS.items()
    }
    medmnist(tmp_path / "d" / "chestmnist.npz", extra=extra)
    with pytest.raises(UserError, match=r"have 14 labels each .* one class"):
        load(tmp_path / "d", tmp_path / "cache")


def test_volumes_are_refused(tmp_path):
    extra = {"train_images": np.zeros((30, 28, 28, 28), np.uint8)}
    medmnist(tmp_path / "d" / "organmnist3d.npz", extra=extra)
    with pytest.raises(UserError, match="two-dimensional version"):
        load(tmp_path / "d", tmp_path / "cache")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"train_images": np.zeros((30, 28, 28), np.float32)}, "of type float32"),
        ({"train_labels": np.zeros((29, 1), np.uint8)}, "do not match its images"),
        ({"train_labels": np.zeros((30, 1))}, "do not match its images"),
        ({"train_labels": np.full((30, 1), -1)}, "outside 0 to 999"),
        ({"val_images": np.zeros((9, 32, 32), np.uint8)}, "several sizes"),
        ({"train_images": np.zeros((30, 28, 0), np.uint8)}, "more than Sfumato"),
        ({"train_images": np.zeros((30, 1, 5000), np.uint8)}, "more than Sfumato"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, extra, words):
    medmnist(tmp_path / "d" / "octmnist.npz", extra=extra)
    with pytest.raises(UserError, match=words):
        load(tmp_path / "d", tmp_path / "cache")


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    traps = np.array([[Trap()] * 1] * 30, dtype=object)
    for name in ("train_labels", "train_images"):
        medmnist(tmp_path / name / "octmnist.npz", extra={name: traps})
        with pytest.raises(
            UserError, match=r"damaged, or not an \.npz of plain arrays"
        ):
            load(tmp_path / name, tmp_path / "cache")
    assert not (tmp_path / "trapped").exists()


def test_several_files_in_a_folder_have_to_be_chosen_from(tmp_path):
    medmnist(tmp_path / "d" / "octmnist.npz")
    medmnist(tmp_path / "d" / "bloodmnist.npz")
    with pytest.raises(UserError, match="choose one of the files"):
        load(tmp_path / "d", tmp_path / "cache")
    assert len(load(tmp_path / "d" / "octmnist.npz", tmp_path / "cache")) == 51


def test_a_header_that_claims_too_much_allocates_nothing(tmp_path):
    (tmp_path / "d").mkdir()
    text = b"{'descr':'|u1','fortran_order':False,'shape':(9000000,4000,4000)}\n"
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
    with zipfile.ZipFile(tmp_path / "d" / "octmnist.npz", "w") as archive:
        archive.writestr("train_images.npy", header + b"\0" * 100)
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path / "d", tmp_path / "cache")


def test_missing_labels_are_named(tmp_path):
    (tmp_path / "d").mkdir()
    np.savez(
        tmp_path / "d" / "octmnist.npz", train_images=np.zeros((9, 28, 28), np.uint8)
    )
    with pytest.raises(UserError, match="no train_labels"):
        load(tmp_path / "d", tmp_path / "cache")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_files_are_named(tmp_path, share):
    file = tmp_path / "d" / "octmnist.npz"
    medmnist(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"octmnist\.npz is damaged"):
        load(tmp_path / "d", tmp_path / "cache")


def test_flipped_bits_in_the_pixels_are_noticed(tmp_path):
    file = tmp_path / "d" / "octmnist.npz"
    medmnist(file)
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path / "d", tmp_path / "cache")


def test_the_fingerprint_is_of_images_and_labels_only(tmp_path):
    """Packing and the split make no other dataset; a pixel does."""
    prints = set()
    for packed in (True, False):
        file = tmp_path / str(packed) / "octmnist.npz"
        arrays = medmnist(file, packed=packed)
        prints.add(load(file, tmp_path / "cache").fingerprint)
    assert len(prints) == 1
    changed = arrays["val_images"].copy()
    changed[0, 0, 0] ^= 1
    medmnist(file, extra={"val_images": changed})
    assert load(file, tmp_path / "cache").fingerprint not in prints


def test_a_zip_that_is_no_dataset_is_to_be_unpacked(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/0.png", b"x")
    (tmp_path / "d.zip").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="unpack it"):
        load(tmp_path / "d.zip", tmp_path / "cache")
