from __future__ import annotations

import os
import struct
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from core.data import inspect, load, reading
from core.data.dataset import Problem
from core.data.formats.class_folders import ClassFolders
from core.data.formats.idx import Idx
from core.data.options import ReadOptions
from core.data.reading import Picture
from core.data.refusals import Refused
from core.data.resampling import windowed
from core.data.sandbox import decoders
from core.errors import UserError
from tests.core.data.fakes import class_folders, idx_pair, image

WHOLE = (0.0, 65535.0)


@pytest.fixture(scope="module")
def pool():
    """One decoder for all tests here, so that they stay fast."""
    with decoders(1) as pool:
        yield pool


@pytest.fixture
def read(pool, monkeypatch):
    @contextmanager
    def shared(count, *, dicom):
        yield pool

    monkeypatch.setattr(reading, "decoders", shared)

    def read(root, name, channels=3, window=None):
        images = reading.FileImages(root=root.resolve(), paths=(name,), window=window)
        ((outcome,),) = images.read(32, channels)
        return outcome

    return read


@pytest.fixture
def problem(read):
    def problem(root, name):
        outcome = read(root, name)
        assert isinstance(outcome, Problem)
        assert outcome.path == name
        return outcome

    return problem


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "a.png"),
        ("L", "a.png"),
        ("LA", "a.png"),
        ("P", "a.png"),
        ("RGB", "a.bmp"),
        ("RGB", "a.jpg"),
        ("L", "a.jpg"),
        ("CMYK", "a.jpg"),
        ("RGBA", "a.png"),
        ("RGBA", "a.tif"),
        ("CMYK", "a.tif"),
        ("YCbCr", "a.tif"),
    ],
)
def test_every_common_mode_becomes_rgb(tmp_path, mode, name, read):
    image(1, (64, 48), mode).save(tmp_path / name)
    outcome = read(tmp_path, name)
    assert isinstance(outcome, Picture)
    assert outcome.pixels.shape == (32, 32, 3)
    assert outcome.pixels.dtype == np.uint8
    assert (outcome.width, outcome.height) == (64, 48)
    assert outcome.mode == mode


def test_sixteen_bits_are_scaled_by_their_public_range(tmp_path, read):
    wide = np.zeros((32, 32), np.uint16)
    wide[:, 4:8], wide[:, 8:16], wide[:, 16:] = 200, 257 * 100, 65535
    Image.fromarray(wide).save(tmp_path / "a.png")
    row = read(tmp_path, "a.png", channels=1, window=WHOLE).pixels[0, :, 0]
    assert row.tolist() == [0] * 4 + [1] * 4 + [100] * 8 + [255] * 16


@pytest.mark.parametrize("kind", [np.float32, np.uint16, np.int32])
def test_deep_pixels_need_a_declared_window(tmp_path, problem, kind):
    Image.fromarray(np.ones((32, 32), kind)).save(tmp_path / "a.tif")
    found = problem(tmp_path, "a.tif")
    assert found.kind == "no window"
    assert "declare a window" in found.message


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_the_window_is_the_declared_one_whatever_the_image_holds(tmp_path, read, kind):
    deep = np.zeros((32, 32), kind)
    deep[:, :8], deep[:, 8:16], deep[:, 16:24], deep[:, 24:] = -900, -100, 0, 300
    Image.fromarray(deep).save(tmp_path / "a.tif")
    row = read(tmp_path, "a.tif", channels=1, window=(-100, 100)).pixels[0, :, 0]
    assert row.tolist() == [0] * 16 + [128] * 8 + [255] * 8


def test_a_window_changes_nothing_in_eight_bits(tmp_path, read):
    image(1, (32, 32), "L").save(tmp_path / "a.png")
    plain = read(tmp_path, "a.png", channels=1).pixels
    assert np.array_equal(read(tmp_path, "a.png", 1, (0, 10)).pixels, plain)


def test_not_a_number_is_black(tmp_path, read):
    Image.fromarray(np.full((32, 32), np.nan, np.float32)).save(tmp_path / "a.tif")
    assert not read(tmp_path, "a.tif", channels=1, window=(-1, 1)).pixels.any()


@pytest.mark.parametrize("window", [(1, 1), (2, 1), (float("nan"), 1), (0, 1e300)])
def test_a_window_must_be_a_range(window):
    with pytest.raises(UserError, match="is no range of values"):
        ReadOptions(window=window)


def test_the_window_reaches_the_images_and_the_cache(tmp_path):
    root = tmp_path / "d"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(8):
            deep = np.full((32, 32), 100 + number, np.uint16)
            Image.fromarray(deep).save(root / name / f"{number}.png")
    with pytest.raises(UserError, match="declare a window"):
        load(root, tmp_path / "cache")
    for high, grey in ((100, 255), (200, 128)):
        options = ReadOptions(window=(0, high), grey=True)
        dataset = load(root, tmp_path / "cache", options=options)
        assert dataset.images[0].shape == (32, 32, 1)
        assert (dataset.images[0] == grey).all()


def test_transparency_is_dropped(tmp_path, read):
    Image.new("RGBA", (40, 40), (200, 100, 50, 0)).save(tmp_path / "a.png")
    assert read(tmp_path, "a.png").pixels[0, 0].tolist() == [200, 100, 50]


def test_shrinking_averages_areas(tmp_path, read):
    picture = image(3, (96, 96))
    picture.save(tmp_path / "a.png")
    blocks = np.asarray(picture, float).reshape(32, 3, 32, 3, 3).mean((1, 3))
    # Pillow averages along one axis after the other and rounds both times.
    assert np.abs(read(tmp_path, "a.png").pixels - blocks).max() < 1.0


def test_the_central_square_is_kept(tmp_path, read):
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = 200
    Image.fromarray(wide).save(tmp_path / "a.png")
    assert (read(tmp_path, "a.png").pixels == 200).all()


def test_small_files_are_enlarged_not_padded(tmp_path, read):
    Image.new("RGB", (30, 30), (90, 90, 90)).save(tmp_path / "a.png")
    assert (read(tmp_path, "a.png").pixels == 90).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png"])
def test_orientation_is_applied_once(tmp_path, name, read):
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:20] = 250  # light above
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: rotate by 270 degrees to show it
    stored = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / name, exif=exif)
    outcome = read(tmp_path, name)
    assert (outcome.width, outcome.height) == (60, 40)
    assert outcome.pixels[:12].min() > 200
    assert outcome.pixels[20:].max() < 50


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_a_problem(tmp_path, content, problem):
    (tmp_path / "a.png").write_bytes(content)
    assert problem(tmp_path, "a.png").kind in ("empty file", "cannot be decoded")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_truncated_images_are_problems(tmp_path, name, problem):
    image(1, (200, 200)).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert problem(tmp_path, name).kind == "cannot be decoded"


@pytest.mark.parametrize("form", ["GIF", "PPM", "WEBP", "EPS", "ICO"])
def test_other_decoders_are_never_tried(tmp_path, form, problem):
    image(1).save(tmp_path / "a.png", format=form)
    assert problem(tmp_path, "a.png").kind == "cannot be decoded"


def test_content_counts_and_not_the_ending(tmp_path, read):
    image(1).save(tmp_path / "a.png", format="BMP")
    assert isinstance(read(tmp_path, "a.png"), Picture)


def _png_that_claims(width, height):
    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    start = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8001, 10_000, 60_000])
def test_decompression_bombs_are_problems(tmp_path, side):
    root = class_folders(tmp_path / "d")
    (root / "benign" / "bomb.png").write_bytes(_png_that_claims(side, side))
    found = inspect(root)
    assert [(p.path, p.kind) for p in found.problems] == [
        ("benign/bomb.png", "too many pixels")
    ]


def test_several_frames_are_a_problem(tmp_path, problem):
    image(1).save(tmp_path / "a.tif", save_all=True, append_images=[image(2), image(3)])
    assert problem(tmp_path, "a.tif").kind == "several frames"


def test_large_files_are_not_read(tmp_path, monkeypatch):
    image(1).save(tmp_path / "a.bmp")
    with pytest.raises(Refused) as caught:
        reading.Opener(tmp_path.resolve()).read("a.bmp", limit=1000)
    assert caught.value.kind == "too large"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_block_the_run(tmp_path, problem):
    root = class_folders(tmp_path / "d")
    os.mkfifo(root / "benign" / "pipe.png")
    assert [p.kind for p in inspect(root).problems] == ["not a file"]
    assert problem(root, "benign/pipe.png").kind == "not a file"


def test_links_out_of_the_folder_are_listed_and_not_followed(tmp_path, problem):
    outside = class_folders(tmp_path / "outside", {"secret": 3})
    root = class_folders(tmp_path / "d")
    (root / "benign" / "file.png").symlink_to(outside / "secret" / "0.png")
    (root / "benign" / "folder").symlink_to(outside / "secret")
    (root / "third").symlink_to(outside / "secret")
    (root / "benign" / "loop").symlink_to(root)
    found = inspect(root)
    assert found.total == 12
    assert sorted(p.path for p in found.problems) == [
        "benign/file.png",
        "benign/folder",
        "benign/loop",
        "third",
    ]
    assert {p.kind for p in found.problems} == {"link"}
    assert problem(root, "benign/file.png").kind == "link"
    assert problem(root, "third/1.png").kind == "link"


def test_links_within_the_folder_are_read(tmp_path):
    root = class_folders(tmp_path / "d")
    (root / ".store").mkdir()
    file = (root / "benign" / "0.png").rename(root / ".store" / "x.png")
    (root / "benign" / "0.png").symlink_to(file)
    assert inspect(root).total == 12


def test_one_corrupt_file_among_many_is_listed_and_left_out(tmp_path):
    root = class_folders(tmp_path / "d", {"a": 150, "b": 150})
    (root / "a" / "77.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (root / "b" / "notes.txt").write_text("hello")
    dataset = load(root, tmp_path / "cache")
    assert len(dataset) == 299
    assert np.bincount(dataset.labels).tolist() == [149, 150]
    assert sorted((p.path, p.kind) for p in dataset.problems) == [
        ("a/77.png", "cannot be decoded"),
        ("b/notes.txt", "other file"),
    ]
    # The columns stay in step with the pixels after the file that was left out.
    last = np.asarray(Image.open(root / "b" / "149.png").resize((32, 32), 4))
    assert np.array_equal(dataset.images[-1], last)


@pytest.mark.parametrize("modes", [("L", "L"), ("1", "L"), ("L", "RGB")])
def test_colour_is_declared_and_never_found_out(tmp_path, modes):
    root = class_folders(tmp_path / "d", {"a": 4}, mode=modes[0])
    class_folders(root, {"b": 4}, mode=modes[1])
    assert inspect(root).colour
    assert load(root, tmp_path / "colour").images.shape[3] == 3
    assert load(root, tmp_path / "grey", grey=True).images.shape[3] == 1


def test_the_cache_is_read_anew_when_the_colour_changes(tmp_path):
    root = class_folders(tmp_path / "d")
    assert load(root, tmp_path / "cache").images.shape[3] == 3
    assert load(root, tmp_path / "cache", grey=True).images.shape[3] == 1


def test_mixed_sizes_are_counted(tmp_path):
    root = class_folders(tmp_path / "d")
    image(50, (100, 60)).save(root / "benign" / "wide.png")
    assert inspect(root).sizes == {"40×40": 12, "100×60": 1}


def test_idx_is_grey(tmp_path):
    idx_pair(tmp_path / "d", "train", 20)
    assert inspect(tmp_path / "d").colour is False


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_large_working_images_come_a_few_at_a_time(tmp_path, kind):
    root = tmp_path / "d"
    if kind == "files":
        class_folders(root, {"a": 20, "b": 20})
        layout = ClassFolders()
    else:
        idx_pair(root, "train", 40)
        layout = Idx()
    images = layout.index(root, ReadOptions()).images
    small = [len(batch) for batch in images.read(16, 3)]
    large = [len(batch) for batch in images.read(1024, 3)]
    assert sum(small) == sum(large) == 40
    assert len(small) == 1
    assert max(large) == 2


@pytest.mark.parametrize("kind", ["u1", "i1", "<u2", ">u2", "<i2", ">i2", "<i4", "<f4"])
@pytest.mark.parametrize("window", [(0.0, 4095.0), (-160.0, 240.0), (9.5, 10.0)])
def test_a_window_is_the_same_for_many_pixels_as_for_one(kind, window):
    """Many pixels are looked up in a table, or gone through in blocks."""
    bits = np.random.default_rng(0).bytes(700 * 500 * np.dtype(kind).itemsize)
    values = np.frombuffer(bits, kind).reshape(700, 500)
    wanted = [windowed(values[row : row + 1, :90], window)[0] for row in range(700)]
    assert np.array_equal(windowed(values, window)[:, :90], wanted)
    assert np.array_equal(
        windowed(values[::2, ::-1], window)[:, -90:][:, ::-1], wanted[::2]
    )
