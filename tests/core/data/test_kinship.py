from __future__ import annotations

import hashlib
import os
import stat

import numpy as np
import pytest

from core.data import load
from core.data.kinship import SKETCH_SIZE, relatives, shares, sketch
from tests.core.data.fakes import class_folders, image


def digests(numbers) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % n).digest() for n in numbers)


@pytest.mark.parametrize("size", [10, 1000, 40_000])
@pytest.mark.parametrize("kept", [1.0, 0.9, 0.3])
def test_shares_are_estimated(size, kept):
    one = sketch(digests(range(size)))
    start = round(size * (1 - kept))
    other = sketch(digests(range(start, size + start)))
    of_one, of_other = shares(one, other)
    assert of_one == pytest.approx(kept, abs=0.08)
    assert of_other == pytest.approx(kept, abs=0.08)


def test_a_part_of_a_much_larger_dataset_is_wholly_in_it():
    small, large = sketch(digests(range(500))), sketch(digests(range(30_000)))
    assert len(large) == SKETCH_SIZE
    in_large, in_small = shares(small, large)
    assert in_large == 1.0
    assert in_small == pytest.approx(500 / 30_000, abs=0.02)


def test_strangers_share_nothing():
    one, other = sketch(digests(range(5000))), sketch(digests(range(9000, 19_000)))
    assert shares(one, other) == (0.0, 0.0)


def test_copies_and_order_are_not_in_a_sketch():
    numbers = list(range(3000))
    again = sketch(digests(numbers[::-1] + numbers[:50]))
    assert np.array_equal(sketch(digests(numbers)), again)


def related(root, tmp_path):
    dataset = load(root, tmp_path / "cache", known=tmp_path / "known")
    return [p.message for p in dataset.problems if p.kind == "related dataset"]


def test_a_dataset_that_grew_and_shrank_is_told_of(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 40, "b": 40})
    assert related(root, tmp_path) == []
    for number in range(20):
        image(1000 + number).save(root / "a" / f"new{number}.png")
    (told,) = related(root, tmp_path)
    assert "A dataset of 80 images" in told
    assert "grown: about 80% of these and 100% of those" in told
    for number in range(60):
        (root / "ab"[number % 2] / f"{number // 2}.png").unlink()
    # Both earlier ones are relatives now, the closer one first.
    first, second = related(root, tmp_path)
    assert "of 100 images" in first and "(shrunk" in first
    assert "of 80 images" in second and "(overlapping" in second


def test_a_relabelled_dataset_is_told_of(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 10, "b": 10})
    related(root, tmp_path)
    (root / "a" / "0.png").rename(root / "b" / "moved.png")
    (told,) = related(root, tmp_path)
    assert "(relabelled: about 100% of these and 100% of those)" in told


def test_renaming_and_reordering_make_no_relative(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 10, "b": 10})
    related(root, tmp_path)
    for file in list((root / "a").iterdir()):
        file.rename(root / "a" / f"z{file.name}")
    assert related(root, tmp_path) == []
    assert len(list((tmp_path / "known").iterdir())) == 1


def test_strangers_are_not_told_of(tmp_path):
    related(class_folders(tmp_path / "d", {"a": 10, "b": 10}), tmp_path)
    for number in range(20):
        folder = tmp_path / "e" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image(500 + number).save(folder / f"{number}.png")
    assert related(tmp_path / "e", tmp_path) == []


@pytest.mark.parametrize("content", ["", "{", "{}", '{"images": 1, "sketch": [-1]}'])
def test_a_damaged_sketch_hinders_nothing(tmp_path, content):
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "abc.json").write_text(content)
    root = class_folders(tmp_path / "d")
    assert related(root, tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_only_the_owner_may_read_the_sketches(tmp_path):
    related(class_folders(tmp_path / "d"), tmp_path)
    for path in [tmp_path / "known", *(tmp_path / "known").iterdir()]:
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted


def test_the_resolution_is_not_in_the_sketch(tmp_path):
    root = class_folders(tmp_path / "d")
    one = load(root, tmp_path / "cache", resolution=16)
    other = load(root, tmp_path / "cache", resolution=32)
    assert np.array_equal(one.sketch, other.sketch)
    assert relatives(other, tmp_path / "known") == ()
