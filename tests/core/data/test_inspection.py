from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from core.data import ReadOptions, inspect, load
from core.data.duplicates import near_duplicates, thumbnails
from core.data.inspection import describe, group_sizes
from core.data.splitting import held_out
from core.errors import Stopped
from core.events import Watcher
from tests.core.data.fakes import camelyon17, class_folders, idx_pair, image


def smooth(seed: int) -> Image.Image:
    """A picture with large shapes, as photographs have them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB").resize((32, 32)))[None]


def test_a_copy_saved_otherwise_is_found_and_nothing_else():
    originals = [smooth(seed) for seed in range(300)]
    packed = io.BytesIO()
    originals[7].save(packed, "JPEG", quality=60)
    copies = [
        Image.open(packed),
        originals[70].resize((90, 90)),
        originals[123].point(lambda value: min(255, value + 3)),
    ]
    images = np.concatenate([pixels(p) for p in [*originals, *copies]])
    found = near_duplicates(thumbnails(images), np.arange(len(images)))
    assert found.examples == ((7, 300), (70, 301), (123, 302))
    assert found.images == 6


def test_look_alikes_within_a_unit_do_not_count():
    images = np.concatenate([pixels(smooth(1))] * 4)
    thumbs = thumbnails(images)
    assert near_duplicates(thumbs, np.zeros(4, np.int64)).images == 0
    assert near_duplicates(thumbs, np.array([0, 0, 0, 1])).images == 4


def test_flat_images_are_alike_by_their_brightness_only():
    images = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), 32 * 32 * 3)
    images = images.reshape(-1, 32, 32, 3)
    assert near_duplicates(thumbnails(images), np.arange(len(images))).images == 0


def test_very_many_equal_images_take_no_time_and_are_all_found():
    thumbs = np.zeros((50_000, 8, 9), np.uint8)
    found = near_duplicates(thumbs, np.arange(50_000))
    assert found.images == 50_000
    assert len(found.examples) == 20


def test_a_single_image_has_no_look_alike():
    thumbs = thumbnails(pixels(smooth(1)))
    assert near_duplicates(thumbs, np.zeros(1, np.int64)).images == 0


def test_the_search_tells_how_far_it_is_and_stops_when_asked():
    thumbs = thumbnails(np.concatenate([pixels(smooth(seed)) for seed in range(20)]))
    told = []
    watcher = Watcher(report=told.append, stop_requested=lambda: len(told) == 30)
    with pytest.raises(Stopped):
        near_duplicates(thumbs, np.arange(20), watcher)
    assert [progress.done for progress in told] == list(range(1, 31))
    assert {progress.total for progress in told} == {48}


def test_thumbnails_are_means_of_areas():
    images = np.zeros((1, 72, 72, 1), np.uint8)
    images[0, :9, 64:] = 200
    thumbs = thumbnails(images)
    assert thumbs.shape == (1, 8, 9)
    assert thumbs[0, 0].tolist() == [0] * 8 + [200]
    assert not thumbs[0, 1:].any()
    assert (
        thumbnails(np.full((2, 8, 8, 3), 7, np.uint8)).tolist() == [[[7] * 9] * 8] * 2
    )


def test_units_are_counted_by_their_sizes():
    sizes = [1, 1, 2, 3, 5, 6, 1000, 1001]
    units = np.repeat(np.arange(len(sizes)), sizes)
    assert group_sizes(units) == {
        "1": 2,
        "2": 1,
        "3–5": 2,
        "6–10": 1,
        "101–1000": 1,
        "more than 1000": 1,
    }


def test_a_folder_is_described_in_full(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 30, "b": 30})
    smooth(5).save(root / "a" / "one.png")
    smooth(5).save(root / "b" / "two.jpg", quality=90)
    (root / "a" / "bad.png").write_bytes(b"bad")
    files = [p.relative_to(root).as_posix() for p in root.rglob("*.*g")]
    (root / "units.csv").write_text(
        "file,unit\n" + "\n".join(f"{file},p{n // 3}" for n, file in enumerate(files))
    )
    found = inspect(root, options=ReadOptions(classes=("a", "b")))
    assert found.unit_column == "unit"
    assert sum(found.group_sizes.values()) == found.groups
    assert found.largest_group == 3
    assert found.look_alikes == 2
    assert found.look_alike_examples == (("a/one.png", "b/two.jpg"),)
    assert found.problem_counts == {"cannot be decoded": 1}
    assert found.classes_confirmed
    text = found.text()
    assert "62 images" in text and "units (unit)" in text
    assert "a/one.png and b/two.jpg" in text
    assert "left out: a/bad.png" in text
    assert "confirm them" not in text
    assert "confirm them" in inspect(root).text()
    assert "in colour: with --grey" in text
    assert "--grey" not in inspect(root, options=ReadOptions(grey=True)).text()


def test_images_of_array_files_are_named_by_their_place(tmp_path):
    images, _ = idx_pair(tmp_path / "d", "train", 40)
    file = tmp_path / "d" / "train-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[16 + 9 * 784 : 16 + 10 * 784] = images[4].tobytes()
    file.write_bytes(content)
    found = inspect(tmp_path / "d")
    name = "train-images-idx3-ubyte"
    assert found.look_alike_examples == ((f"{name}[4]", f"{name}[9]"),)


def test_hospital_data_name_their_units(tmp_path):
    camelyon17(tmp_path)
    found = inspect(tmp_path)
    assert (found.unit_column, found.group_sizes) == ("patient", {"3–5": 5})
    assert "5 units (patient)" in found.text()


def test_random_images_have_no_look_alikes(tmp_path):
    images = np.stack([np.asarray(image(n, (32, 32))) for n in range(500)])
    assert near_duplicates(thumbnails(images), np.arange(500)).images == 0


def test_a_dataset_that_was_read_says_the_same_as_a_look_at_its_files(tmp_path):
    camelyon17(tmp_path)
    read = describe(load(tmp_path, None))
    looked = inspect(tmp_path)
    assert read.look_alikes is None and looked.look_alikes is not None
    assert not read.sizes and looked.sizes and looked.modes
    of_files = {"look_alikes", "look_alike_examples", "sizes", "modes"}
    for name, value in looked.to_json().items():
        assert name in of_files or read.to_json()[name] == value


@pytest.mark.parametrize("grouped", [True, False])
def test_that_nobody_is_held_back_is_said(tmp_path, grouped):
    root = class_folders(tmp_path / "d", {"a": 4, "b": 4})
    files = sorted(root.rglob("*.png"))
    for file in files:
        if not grouped and held_out(hashlib.sha256(file.read_bytes()).digest()):
            file.unlink()
    kept = next(f"p{n}" for n in range(99) if not held_out(f"p{n}".encode()))
    if grouped:
        (root / "units.csv").write_text(
            "file,unit\n"
            + "\n".join(f"{file.relative_to(root)},{kept}" for file in files)
        )
    found = inspect(root)
    (warning,) = found.problems
    assert found.problems == load(root, None).problems
    assert not warning.left_out and "cannot be measured" in warning.message
    who = "No unit is" if grouped else "No image is"
    assert who in warning.message
    assert f"note: {who}" in found.text()


def test_that_somebody_is_held_back_is_no_news(tmp_path):
    assert not inspect(class_folders(tmp_path / "d", {"a": 30, "b": 30})).problems
