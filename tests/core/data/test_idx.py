from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data import Split, inspect, load
from core.data.formats.idx import FASHION_CLASSES, parse_header
from core.errors import UserError
from tests.core.data.fakes import idx_bytes, idx_pair


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("inner", ["", "raw", "MNIST/raw"])
def test_pairs_are_read_and_padded(tmp_path, packed, inner):
    root = tmp_path / "d"
    images, labels = idx_pair(root / inner, "train", 30, packed=packed)
    idx_pair(root / inner, "t10k", 12, packed=packed)
    dataset = load(root, tmp_path / "cache")
    assert dataset.format_name == "IDX"
    assert dataset.images.shape == (42, 32, 32, 1)
    assert np.array_equal(dataset.images[:30, 2:30, 2:30, 0], images)
    border = np.pad(np.zeros((28, 28), bool), 2, constant_values=True)
    assert not dataset.images[:, border].any()
    assert np.array_equal(dataset.labels[:30], labels)
    assert dataset.subset(Split.TRAIN).tolist() == list(range(30))
    assert len(dataset.official_subset("test")) == 12
    assert dataset.class_names == tuple("0123456789")
    assert not dataset.has_groups


def test_gzip_is_told_by_its_bytes_not_by_its_name(tmp_path):
    root = tmp_path / "d"
    idx_pair(root, "train", 30, packed=True)
    for file in list(root.iterdir()):
        file.rename(file.with_name(file.name.removesuffix(".gz")))
    assert len(load(root, tmp_path / "cache")) == 30


def test_plain_and_packed_copies_count_once(tmp_path):
    root = tmp_path / "d"
    idx_pair(root, "train", 30)
    idx_pair(root, "train", 30, packed=True)
    assert len(load(root, tmp_path / "cache")) == 30


def test_without_test_files_a_part_is_held_out(tmp_path):
    root = tmp_path / "d"
    idx_pair(root, "train", 400)
    dataset = load(root, tmp_path / "cache")
    assert 40 < len(dataset.subset(Split.HELD_OUT)) < 120
    assert dataset.official_split_names == ("train", "held_out")


@pytest.mark.parametrize("count", [0, 1])
def test_the_last_test_image_moves_no_other(tmp_path, count):
    root = tmp_path / "d"
    idx_pair(root, "train", 60)
    idx_pair(root, "t10k", count)
    assert len(load(root, tmp_path / "cache").subset(Split.TRAIN)) == 60


def test_a_path_that_says_fashion_gets_its_class_names(tmp_path):
    idx_pair(tmp_path / "fashion-mnist", "train", 20)
    found = load(tmp_path / "fashion-mnist", tmp_path / "cache")
    assert found.class_names == FASHION_CLASSES


def test_resolution_28_keeps_the_pixels(tmp_path):
    images, _ = idx_pair(tmp_path / "d", "train", 20)
    dataset = load(tmp_path / "d", tmp_path / "cache", resolution=28)
    assert np.array_equal(dataset.images[..., 0], images)


def test_writers_of_qmnist_are_the_units(tmp_path):
    root = tmp_path / "d"
    idx_pair(root, "qmnist-train", 20)
    (root / "qmnist-train-labels-idx1-ubyte").unlink()
    table = np.zeros((20, 8), np.int32)
    table[:, 0] = np.arange(20) % 10
    table[:, 2] = np.arange(20) // 4 + 2100
    (root / "qmnist-train-labels-idx2-int").write_bytes(idx_bytes(table))
    dataset = load(root, tmp_path / "cache")
    assert dataset.has_groups
    assert dataset.units.tolist() == (np.arange(20) // 4).tolist()
    assert dataset.labels.tolist() == (np.arange(20) % 10).tolist()
    assert inspect(root).groups == 5


def _cut(file, count):
    file.write_bytes(file.read_bytes()[:-count])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("which", ["images-idx3", "labels-idx1"])
def test_truncated_files_are_named(tmp_path, packed, which):
    root = tmp_path / "d"
    idx_pair(root, "train", 20, packed=packed)
    file = next(root.glob(f"*{which}*"))
    _cut(file, 12)
    with pytest.raises(UserError, match=f"{file.name} .*(truncated|breaks off)"):
        load(root, tmp_path / "cache")


def test_a_file_cut_inside_its_header_is_named(tmp_path):
    root = tmp_path / "d"
    idx_pair(root, "train", 20)
    file = root / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:9])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte is no IDX file"):
        load(root, tmp_path / "cache")


@pytest.mark.parametrize("which", ["images-idx3", "labels-idx1"])
def test_trailing_bytes_are_refused(tmp_path, which):
    root = tmp_path / "d"
    idx_pair(root, "train", 20)
    file = root / f"train-{which}-ubyte"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(UserError, match="longer than its header"):
        load(root, tmp_path / "cache")


def test_counts_must_agree(tmp_path):
    root = tmp_path / "d"
    idx_pair(root, "train", 20)
    labels = np.zeros(19, np.uint8)
    (root / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    with pytest.raises(UserError, match=r"holds 19 labels but .* holds 20 images"):
        load(root, tmp_path / "cache")


def test_missing_labels_are_named(tmp_path):
    root = tmp_path / "d"
    idx_pair(root, "train", 20)
    (root / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="put train-labels-idx1-ubyte beside it"):
        load(root, tmp_path / "cache")


def test_test_images_alone_are_refused(tmp_path):
    idx_pair(tmp_path / "d", "t10k", 20)
    with pytest.raises(UserError, match="test images only"):
        load(tmp_path / "d", tmp_path / "cache")


def test_two_datasets_in_one_folder_are_refused(tmp_path):
    idx_pair(tmp_path / "d", "emnist-letters-train", 20)
    idx_pair(tmp_path / "d", "emnist-digits-train", 20)
    with pytest.raises(UserError, match="more than one dataset"):
        load(tmp_path / "d", tmp_path / "cache")


def test_a_huge_declared_size_allocates_nothing(tmp_path):
    root = tmp_path / "d"
    idx_pair(root, "train", 20)
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**31, 2**31)
    file = root / "train-images-idx3-ubyte.gz"
    (root / "train-images-idx3-ubyte").unlink()
    file.write_bytes(gzip.compress(header))
    with pytest.raises(UserError, match="more than Sfumato reads"):
        load(root, tmp_path / "cache")


@given(
    kind=st.sampled_from([0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E]),
    shape=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4),
    rest=st.binary(max_size=20),
)
def test_header_round_trip(kind, shape, rest):
    start = bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    header = parse_header(start + rest)
    assert header.shape == tuple(shape)
    assert header.length == len(start)
    size = {0x08: 1, 0x09: 1, 0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8}[kind]
    assert header.data_length == size * np.prod([int(n) for n in shape], dtype=object)


@given(start=st.binary(max_size=24))
def test_any_bytes_give_a_header_or_a_value_error(start):
    try:
        header = parse_header(start)
    except ValueError:
        return
    assert start[:2] == b"\0\0"
    assert len(header.shape) == start[3]
    assert header.length == 4 + 4 * start[3] <= len(start)
