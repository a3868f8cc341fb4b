"""Hundreds of malformed inputs: no crash, no hang, one sentence, nothing outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.data import ReadOptions, inspect
from core.data.formats.idx import Idx
from core.data.formats.imagefolder import ImageFolder
from core.data.formats.manifest import Manifest
from core.data.formats.medmnist import MedMnist
from core.errors import UserError
from tests.core.data import malformed
from tests.core.data.fakes import class_folders, image

SLOWEST = 10.0
"""Seconds that one malformed input may cost, with all else that is to be read."""

OPENED: list[str] = []


def _note(event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[0], str) and _noting:
        OPENED.append(os.path.realpath(arguments[0]))


_noting: list[bool] = []
sys.addaudithook(_note)


@pytest.fixture
def nothing_outside(tmp_path):
    """A folder beside which lies what must not be opened."""
    (tmp_path / "outside.png").write_bytes(b"secret")
    OPENED.clear()
    _noting.append(True)
    yield tmp_path / "d"
    _noting.clear()
    inside = os.path.realpath(tmp_path / "d")
    strangers = [
        path
        for path in OPENED
        if path.startswith(os.path.realpath(tmp_path)) and not path.startswith(inside)
    ]
    assert not strangers
    assert not os.path.exists("/tmp/sfumato-ran")
    assert "/etc/hostname" not in OPENED


def is_one_sentence(text: str) -> bool:
    return text.endswith(".") and text.isprintable() and len(text) < 700


def sentence(path, **options) -> str:
    """The one sentence that `inspect` ends with, or "" when it reads the input."""
    began = time.monotonic()
    try:
        inspect(path, 16, options=ReadOptions(**options))
    except UserError as error:
        assert is_one_sentence(str(error)), str(error)
        return str(error)
    finally:
        assert time.monotonic() - began < SLOWEST
    return ""


def problems_of(root, expected, **options) -> dict[str, str]:
    """Kinds by file of a folder that holds `expected` good images besides."""
    began = time.monotonic()
    found = inspect(root, 16, options=ReadOptions(**options))
    assert time.monotonic() - began < SLOWEST * 3
    assert found.total >= expected
    for problem in found.problems:
        assert is_one_sentence(problem.message), problem
        assert problem.path.isprintable()
    json.dumps(found.to_json(), ensure_ascii=False).encode()
    return {problem.path: problem.kind for problem in found.problems}


def test_malformed_images(nothing_outside):
    root = class_folders(nothing_outside, {"a": 5, "b": 5})
    files = dict(malformed.images())
    assert len(files) > 150
    for name, content in files.items():
        (root / "a" / f"{name}.png").write_bytes(content)
    kinds = problems_of(root, expected=10, window=(0, 65535))
    # A flipped bit may leave an image whole; what is cut or claims too much may not.
    for name in files:
        if name.startswith(("is-", "bomb-8", "bomb-max", "bomb-deep", "no-size")):
            assert f"a/{name}.png" in kinds, name
    assert kinds["a/bomb-max.png"] == "too many pixels"
    assert kinds["a/is-nothing.png"] == "empty file"


def test_malformed_dicom_files(nothing_outside):
    root = class_folders(nothing_outside, {"a": 5, "b": 5})
    files = dict(malformed.dicoms())
    assert len(files) > 40
    for name, content in files.items():
        (root / "b" / f"{name}.dcm").write_bytes(content)
    kinds = problems_of(root, expected=10, missing_unit="own_unit")
    assert len(kinds) > 15


def test_malformed_tables(nothing_outside):
    root = nothing_outside
    root.mkdir()
    for number in range(6):
        image(number).save(root / f"{number}.png")
    tables = dict(malformed.tables())
    assert len(tables) > 30
    for name, content in tables.items():
        (root / "manifest.csv").write_bytes(content)
        assert sentence(root) or name in ("nul",), name


def test_odd_tables_that_are_right(nothing_outside):
    root = nothing_outside
    root.mkdir()
    for number in range(6):
        image(number).save(root / f"{number}.png")
    for name, content in malformed.harmless_tables():
        (root / "manifest.csv").write_bytes(content)
        index = Manifest().index(root, ReadOptions())
        assert len(index) == 6, name
        assert index.groups == ("p0", "p0", "p1", "p1", "p2", "p2")


def test_malformed_idx_files(nothing_outside):
    root = nothing_outside
    root.mkdir()
    pairs = list(malformed.idx_pairs())
    assert len(pairs) > 50
    for name, images, labels in pairs:
        (root / "train-images-idx3-ubyte").write_bytes(images)
        (root / "train-labels-idx1-ubyte").write_bytes(labels)
        assert sentence(root), name


def test_malformed_npz_files(nothing_outside):
    root = nothing_outside
    root.mkdir()
    files = dict(malformed.npz_files())
    assert len(files) > 40
    refused = 0
    for content in files.values():
        (root / "octmnist.npz").write_bytes(content)
        refused += bool(sentence(root))
    # Some bits of a zip file have no meaning; nearly all have.
    assert refused > len(files) - 6


def test_malformed_hdf5_files(nothing_outside):
    root = nothing_outside
    root.mkdir()
    stem = "camelyonpatch_level_2_split_train"
    with h5py.File(root / f"{stem}_x.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((24, 96, 96, 3), np.uint8))
    files = dict(malformed.hdf5_files())
    assert len(files) > 30
    refused = 0
    for content in files.values():
        (root / f"{stem}_y.h5").write_bytes(content)
        refused += bool(sentence(root))
    # Much of an HDF5 file of this size is room that nothing uses yet.
    assert refused > len(files) / 2


def test_malformed_json_indexes(nothing_outside):
    root = nothing_outside
    root.mkdir()
    for number in range(6):
        image(number).save(root / f"{number}.png")
    files = dict(malformed.json_indexes())
    assert len(files) > 25
    for name, content in files.items():
        (root / "dataset.json").write_bytes(content)
        assert sentence(root), name


def test_odd_names_are_read(nothing_outside):
    root = class_folders(nothing_outside, {"a": 3, "b": 3})
    for number, name in enumerate(malformed.NAMES):
        image(100 + number).save(root / "a" / name, format="PNG")
    with open(os.fsencode(root / "b") + b"/\xff\xfe.png", "wb") as file:
        image(1).save(file, format="PNG")
    (root / "b" / "\x1b[2J\nbad.png").write_bytes(b"bad")
    found = inspect(root, 16)
    assert found.total == 6 + len(malformed.NAMES) + 1
    (bad,) = found.problems
    assert bad.path.isprintable() and bad.path.endswith("bad.png")
    assert "\x1b" not in found.text()


@pytest.mark.parametrize("name", ["new\nline", "\x1b[2J", "a\u202eb", "\u200b"])
def test_classes_that_cannot_be_seen_are_refused(nothing_outside, name):
    class_folders(nothing_outside, {"a": 3, name: 3})
    assert "cannot be seen: rename it" in sentence(nothing_outside)


def test_deep_folders_and_loops_end(nothing_outside):
    root = class_folders(nothing_outside, {"a": 3, "b": 3})
    (root / "a" / "/".join(["dd"] * 200)).mkdir(parents=True)
    (root / "b" / "self").symlink_to(root / "b")
    (root / "b" / "up").symlink_to(root)
    (root / "b" / "loop.png").symlink_to(root / "b" / "loop.png")
    (root / "b" / "out.png").symlink_to(root.parent / "outside.png")
    (root / "b" / "device.png").symlink_to("/dev/zero")
    os.mkfifo(root / "b" / "pipe.png")
    try:
        kinds = problems_of(root, expected=6)
    finally:  # Deeper than pytest itself can clear away.
        subprocess.run(["rm", "-r", str(root / "a")], check=True)
    assert sorted(kinds.values()) == ["link"] * 5 + ["not a file", "too deep"]


FUZZED = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def indexed(layout, path) -> None:
    """A layout may refuse anything in a sentence, and raises nothing else."""
    if not layout.detect(path):
        return
    try:
        layout.index(path, ReadOptions())
    except UserError as error:
        assert is_one_sentence(str(error)), str(error)


@FUZZED
@given(content=st.text(alphabet='ab,"\n\r\0.;/\\:é\u202e \t0', max_size=200))
def test_any_text_is_a_manifest_or_a_sentence(tmp_path, content):
    (tmp_path / "manifest.csv").write_bytes(
        b"path,label\n" + content.encode("utf-8", "surrogatepass")
    )
    indexed(Manifest(), tmp_path)


@FUZZED
@given(content=st.binary(max_size=120))
@example(content="\ue000".encode())  # A column whose name cannot be printed.
def test_any_bytes_are_a_manifest_or_a_sentence(tmp_path, content):
    (tmp_path / "manifest.csv").write_bytes(content)
    indexed(Manifest(), tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["file_name", "label", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@FUZZED
@given(entries=st.lists(JSON, max_size=4))
def test_any_json_lines_are_a_table_or_a_sentence(tmp_path, entries):
    text = "\n".join(json.dumps(entry) for entry in entries)
    (tmp_path / "metadata.jsonl").write_text(text)
    indexed(ImageFolder(), tmp_path)


@FUZZED
@given(
    images=st.binary(max_size=60), labels=st.binary(max_size=30), start=st.booleans()
)
def test_any_bytes_are_idx_or_a_sentence(tmp_path, images, labels, start):
    if start:
        images = b"\0\0\x08\x03" + images
        labels = b"\0\0\x08\x01" + labels
    (tmp_path / "train-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    indexed(Idx(), tmp_path)


_, WHOLE = next(malformed.npz_files()), dict(malformed.npz_files())["flip0"]


@FUZZED
@given(
    places=st.lists(st.integers(0, len(WHOLE) - 1), max_size=6),
    values=st.binary(min_size=6, max_size=6),
)
def test_any_changes_of_an_npz_end_in_a_sentence(tmp_path, places, values):
    content = bytearray(WHOLE)
    for place, value in zip(places, values, strict=False):
        content[place] = value
    (tmp_path / "octmnist.npz").write_bytes(content)
    indexed(MedMnist(), tmp_path)
    if MedMnist().detect(tmp_path):
        try:
            for batch in MedMnist().index(tmp_path, ReadOptions()).images.read(8, 1):
                assert all(picture.pixels.dtype == np.uint8 for picture in batch)
        except UserError as error:
            assert is_one_sentence(str(error))
