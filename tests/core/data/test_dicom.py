"""DICOM files, written by pydicom and shown as its reference functions show them."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from core.data import ReadOptions, Split, inspect, load
from core.data.decoding import Wanted, decode
from core.data.dicom import describe
from core.data.refusals import Refused
from core.errors import UserError
from tests.core.data.fakes import class_folders, image


def dicom(pixels: np.ndarray, patient="p1", **tags) -> Dataset:
    """A Secondary Capture of one frame [rows, columns] or several [n, …]."""
    file = Dataset()
    file.SOPClassUID = SecondaryCaptureImageStorage
    file.SOPInstanceUID = generate_uid()
    file.StudyInstanceUID = file.SeriesInstanceUID = generate_uid()
    file.PatientID, file.PatientName = patient, "Doe^Jane"
    file.BurnedInAnnotation = "NO"
    colour = pixels.shape[-1] == 3
    frames = pixels if pixels.ndim == 3 + colour else pixels[None]
    file.NumberOfFrames = len(frames)
    file.Rows, file.Columns = frames.shape[1:3]
    file.SamplesPerPixel = 3 if colour else 1
    file.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        file.PlanarConfiguration = 0
    file.BitsAllocated = file.BitsStored = 8 * pixels.dtype.itemsize
    file.HighBit = file.BitsStored - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.PixelData = pixels.tobytes()
    file["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in tags.items():
        setattr(file, name, value)
    return file


def as_bytes(file: Dataset) -> bytes:
    content = io.BytesIO()
    pydicom.dcmwrite(content, file, enforce_file_format=True)
    return content.getvalue()


def save(file: Dataset, path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_bytes(file))


def shown(file: Dataset, window=None, channels=1) -> np.ndarray:
    """The frames at full size, as this program shows them."""
    wanted = Wanted(resolution=file.Rows, channels=channels, window=window)
    pictures = decode(as_bytes(file), wanted)
    return np.stack([picture.pixels for picture in pictures])


def ramp(low, high, kind=np.int16):
    return np.linspace(low, high, 32 * 32).reshape(32, 32).astype(kind)


def by_pydicom(file: Dataset, low: float, high: float) -> np.ndarray:
    """What the reference functions give, with their public range mapped to 0…255."""
    values = apply_voi_lut(apply_modality_lut(file.pixel_array, file), file)
    return np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_modality_then_window_as_the_standard_says(function):
    """Hounsfield units: slope and intercept come before the window."""
    file = dicom(
        ramp(0, 4095, np.uint16),
        BitsStored=12,
        HighBit=11,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=40,
        WindowWidth=400,
        VOILUTFunction=function,
    )
    expected = by_pydicom(file, -1024, 4095 - 1024)
    assert np.abs(shown(file)[0, :, :, 0] - expected).max() <= 1
    # In the other order all of it would be white.
    assert 20 < shown(file).mean() < 235


def test_the_first_of_several_windows_counts():
    one = dicom(ramp(0, 4000), WindowCenter=1000, WindowWidth=500)
    two = dicom(ramp(0, 4000), WindowCenter=[1000, 3000], WindowWidth=[500, 10])
    assert np.array_equal(shown(one), shown(two))


def test_a_declared_window_goes_before_that_of_the_file():
    file = dicom(
        ramp(-1000, 1000),
        RescaleSlope=2,
        RescaleIntercept=10,
        WindowCenter=40,
        WindowWidth=400,
    )
    values = file.pixel_array * 2.0 + 10
    expected = np.clip((values + 500) / 1000, 0, 1) * 255
    found = shown(file, window=(-500, 500))[0, :, :, 0]
    assert np.abs(found - expected).max() <= 1


def test_tables_of_values_are_looked_up():
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = (np.arange(256, dtype=np.uint16)[::-1] * 257).tolist()
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    file = dicom(ramp(0, 255, np.uint8), VOILUTSequence=Sequence([table]))
    expected = 255 - file.pixel_array
    assert np.abs(shown(file)[0, :, :, 0].astype(int) - expected).max() <= 1


def test_monochrome1_is_inverted():
    plain, inverted = (
        dicom(ramp(0, 255, np.uint8), PhotometricInterpretation=f"MONOCHROME{n}")
        for n in (2, 1)
    )
    assert np.array_equal(shown(plain)[0, :, :, 0], plain.pixel_array)
    assert np.array_equal(shown(inverted), 255 - shown(plain))


def test_deep_pixels_without_any_window_need_a_declared_one():
    file = dicom(ramp(0, 4095, np.uint16))
    with pytest.raises(Refused) as caught:
        shown(file)
    assert caught.value.kind == "no window"
    assert shown(file, window=(0, 4095))[0, -1, -1, 0] == 255


def test_eight_bits_with_an_idle_slope_keep_their_values():
    file = dicom(ramp(0, 255, np.uint8), RescaleSlope=1, RescaleIntercept=0)
    assert np.array_equal(shown(file)[0, :, :, 0], file.pixel_array)


def test_signed_values_are_signed():
    file = dicom(ramp(-1000, 1000), WindowCenter=0, WindowWidth=2000)
    found = shown(file)[0, :, :, 0]
    assert found[0, 0] == 0 and found[-1, -1] == 255
    assert 120 < found[15, 31] < 135


def test_colour_comes_as_it_is():
    pixels = np.asarray(image(1, (32, 32)))
    assert np.array_equal(shown(dicom(pixels), channels=3)[0], pixels)


def test_palettes_are_coloured():
    file = dicom(ramp(0, 255, np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour, values in (("Red", 1), ("Green", 0), ("Blue", -1)):
        setattr(file, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        line = np.arange(256)[:: values or 1] * 257 * abs(values)
        data = line.astype("<u2").tobytes()
        setattr(file, f"{colour}PaletteColorLookupTableData", data)
    found = shown(file, channels=3)[0].astype(int)
    assert found[..., 1].max() == 0
    assert np.abs(found[..., 0] - file.pixel_array).max() <= 1
    assert np.abs(found[..., 2] - (255 - file.pixel_array.astype(int))).max() <= 1


def test_frames_have_tables_of_their_own():
    pixels = np.stack([ramp(0, 1000), ramp(0, 1000)])
    file = dicom(pixels)
    groups = []
    for centre in (250, 750):
        window = Dataset()
        window.WindowCenter, window.WindowWidth = centre, 500
        group = Dataset()
        group.FrameVOILUTSequence = Sequence([window])
        groups.append(group)
    file.PerFrameFunctionalGroupsSequence = Sequence(groups)
    first, second = shown(file)[..., 0]
    assert first[16, 0] > 250 and second[16, 0] < 5


def test_packed_pixels_are_unpacked():
    pixels = ramp(0, 255, np.uint8)
    packed = dicom(pixels)
    packed.compress(RLELossless)
    assert np.array_equal(shown(packed)[0, :, :, 0], pixels)
    smooth = io.BytesIO()
    Image.fromarray(pixels).save(smooth, "JPEG", quality=95)
    jpeg = dicom(pixels)
    jpeg.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    jpeg.PixelData = pydicom.encaps.encapsulate([smooth.getvalue()])
    jpeg["PixelData"].is_undefined_length = True
    assert np.abs(shown(jpeg)[0, :, :, 0].astype(int) - pixels).max() < 8


def test_a_syntax_that_nothing_reads_is_named():
    file = dicom(ramp(0, 255, np.uint8))
    file.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    file.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7" + bytes(100)])
    file["PixelData"].is_undefined_length = True
    with pytest.raises(Refused) as caught:
        shown(file)
    assert caught.value.kind == "compressed"


@pytest.fixture
def clinic(tmp_path):
    """Two classes of folders, five patients with two files each, endings of all sorts.

    One file has three frames.
    """
    root = tmp_path / "d"
    endings = [".dcm", "", ".IMA", ".123", ".dcm"]
    for patient in range(5):
        for number in range(2):
            shape = (3, 32, 32) if (patient, number) == (4, 1) else (32, 32)
            pixels = np.full(shape, 40 * patient + number, np.uint8)
            file = dicom(pixels, patient=f"MRN2{patient}")
            name = f"IM{patient}{number}{endings[patient]}"
            save(file, root / ("healthy", "ill")[number] / "study" / name)
    return root


def test_patients_and_frames_come_from_the_files(clinic, tmp_path):
    dataset = load(clinic, tmp_path / "cache", options=ReadOptions(grey=True))
    assert dataset.format_name == "DICOM folders"
    assert dataset.class_names == ("healthy", "ill")
    assert len(dataset) == 12
    assert dataset.unit_column == "patient"
    assert sorted(np.bincount(dataset.units).tolist()) == [2, 2, 2, 2, 4]
    assert not dataset.problems
    values = dataset.images[:, 5, 5, 0]
    assert (values // 40 == dataset.units).all()
    assert (values % 40 == dataset.labels).all()
    assert inspect(clinic).modes == {"MONOCHROME2 8 bit": 12}


def test_reopening_gives_the_same(clinic, tmp_path):
    first = load(clinic, tmp_path / "cache")
    second = load(clinic, tmp_path / "cache")
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.images, second.images)


@pytest.mark.parametrize(("unit", "units"), [("study", 10), ("series", 10)])
def test_other_units_can_be_declared(clinic, tmp_path, unit, units):
    dataset = load(clinic, tmp_path / "c", options=ReadOptions(unit_column=unit))
    assert dataset.unit_column == unit
    assert len(np.unique(dataset.units)) == units


def test_files_without_a_patient_need_a_choice(clinic, tmp_path):
    save(dicom(ramp(0, 255, np.uint8), patient=""), clinic / "ill" / "x.dcm")
    with pytest.raises(UserError, match=r"the first of them ill/x\.dcm"):
        load(clinic, tmp_path / "cache")
    own = ReadOptions(missing_unit="own_unit")
    assert len(np.unique(load(clinic, tmp_path / "cache", options=own).units)) == 6


@pytest.mark.parametrize("said", ["YES", ""])
def test_burned_in_text_is_warned_of(clinic, tmp_path, said):
    file = dicom(ramp(0, 255, np.uint8), BurnedInAnnotation=said)
    save(file, clinic / "ill" / "x.dcm")
    dataset = load(clinic, tmp_path / "cache")
    (warning,) = dataset.problems
    assert (warning.path, warning.kind) == ("ill/x.dcm", "burned-in")
    assert not warning.left_out
    assert "1 of 11 DICOM files" in warning.message
    assert len(dataset) == 13


def test_a_face_is_warned_of(clinic, tmp_path):
    file = dicom(ramp(0, 255, np.uint8), RecognizableVisualFeatures="YES")
    save(file, clinic / "ill" / "x.dcm")
    assert [p.kind for p in inspect(clinic).problems] == ["recognisable"]


def test_the_only_dicom_file_moves_no_other(tmp_path):
    """With it there are patients; what names none goes by the image, as before."""
    root = class_folders(tmp_path / "d", {"a": 20, "b": 20})
    options = ReadOptions(missing_unit="own_unit", classes=("a", "b"))
    before = load(root, None, options=options)
    save(dicom(np.full((32, 32), 9, np.uint8)), root / "b" / "z.dcm")
    after = load(root, None, options=options)
    assert after.has_groups and not before.has_groups
    assert len(after) == 41 and 0 < before.splits.sum() < 40
    assert after.splits[:40].tolist() == before.splits.tolist()


def test_folders_of_patients_are_not_taken_for_classes(tmp_path):
    for patient in range(4):
        for number in range(3):
            file = dicom(ramp(0, 200, np.uint8), patient=f"p{patient}")
            save(file, tmp_path / "d" / f"PAT{patient}" / f"{number}.dcm")
    with pytest.raises(UserError, match="seem to be patients and not classes"):
        inspect(tmp_path / "d")


def test_a_manifest_labels_an_archive_of_patients(tmp_path):
    root = tmp_path / "d"
    rows = ["path,label"]
    for patient in range(4):
        for number in range(3):
            pixels = np.full((32, 32), 10 * patient + number, np.uint8)
            path = f"PAT{patient}/{number}"
            save(dicom(pixels, patient=f"p{patient}"), root / path)
            rows.append(f"{path},{'ab'[patient % 2]}")
    (root / "manifest.csv").write_text("\n".join(rows))
    dataset = load(root, tmp_path / "cache", options=ReadOptions(grey=True))
    assert dataset.unit_column == "patient"
    assert (dataset.images[:, 0, 0, 0] // 10 == dataset.units).all()
    assert (dataset.units % 2 == dataset.labels).all()


def test_what_is_no_image_is_listed(clinic, tmp_path):
    report = dicom(ramp(0, 255, np.uint8))
    del report.PixelData, report.Rows, report.Columns
    save(report, clinic / "ill" / "report.dcm")
    huge = dicom(ramp(0, 255, np.uint8), Rows=60000, Columns=60000)
    save(huge, clinic / "ill" / "huge.dcm")
    many = dicom(ramp(0, 255, np.uint8), NumberOfFrames=2_000_000_000)
    save(many, clinic / "ill" / "many.dcm")
    (clinic / "ill" / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 90)
    short = as_bytes(dicom(ramp(0, 255, np.uint8), patient="MRN21"))
    (clinic / "ill" / "short.dcm").write_bytes(short[:-100])
    dataset = load(clinic, tmp_path / "cache")
    assert len(dataset) == 12
    assert {p.path.split("/")[1]: p.kind for p in dataset.problems} == {
        "report.dcm": "no pixels",
        "huge.dcm": "too many pixels",
        "many.dcm": "too many pixels",
        "broken.dcm": "no pixels",
        "short.dcm": "cannot be decoded",
    }


def test_another_dicom_file_does_not_make_misnamed_ones_be_read(tmp_path):
    """Decoders learn to read them only where a file is known to be DICOM."""
    root = class_folders(tmp_path / "d", {"a": 5, "b": 5})
    for number in range(4):
        file = dicom(np.full((32, 32), number, np.uint8), patient=f"p{number}")
        save(file, root / "a" / f"scan{number}.png")
    options = ReadOptions(missing_unit="own_unit", classes=("a", "b"))
    before = load(root, None, options=options)
    save(dicom(np.full((32, 32), 9, np.uint8)), root / "b" / "z.dcm")
    after = load(root, None, options=options)
    assert (len(before), len(after)) == (10, 11)
    assert [p.kind for p in after.problems] == ["misnamed"] * 4


def test_the_frames_of_a_file_without_a_patient_are_one_unit(tmp_path):
    """On one side of the split, where copies of the file go as well."""
    root = class_folders(tmp_path / "d", {"a": 2, "b": 2})
    for number in range(12):
        pixels = np.full((5, 32, 32), number // 2, np.uint8)
        pixels += np.arange(5, dtype=np.uint8)[:, None, None] * 9
        file = dicom(pixels, patient="", SOPInstanceUID=f"1.2.{number // 2}",
                     StudyInstanceUID="", SeriesInstanceUID="")  # fmt: skip
        save(file, root / "a" / f"{number:02d}.dcm")
    dataset = load(root, None, options=ReadOptions(missing_unit="own_unit"))
    assert dataset.several_frames
    assert sorted(np.bincount(dataset.units).tolist()) == [1] * 4 + [5] * 12
    sides = [set(dataset.splits[dataset.units == unit]) for unit in range(16)]
    assert {len(side) for side in sides} == {1} and len(set.union(*sides)) == 2
    copies: dict[bytes, set[int]] = {}
    for pixels, split in zip(dataset.images, dataset.splits, strict=True):
        copies.setdefault(pixels.tobytes(), set()).add(int(split))
    assert {len(side) for side in copies.values()} == {1}


def test_files_of_one_frame_are_no_files_of_several(clinic, tmp_path):
    (clinic / "ill" / "study" / "IM41.dcm").unlink()
    assert not load(clinic, None).several_frames


@pytest.mark.parametrize(("patient", "apart"), [("", True), ("MRN2", False)])
def test_files_of_one_study_without_a_patient_are_noticed(tmp_path, patient, apart):
    """Rules for making files anonymous empty the patient, not the study."""
    root = class_folders(tmp_path / "d", {"a": 3, "b": 3})
    options = ReadOptions(missing_unit="own_unit")
    for number in range(3):
        pixels = np.full((32, 32), number, np.uint8)
        study = f"1.2.{number % 2}"
        file = dicom(pixels, patient=patient, StudyInstanceUID=study)
        save(file, root / "a" / f"{number}.dcm")
        found = load(root, None, options=options).studies_apart
        assert found == (apart and number == 2)


def test_an_image_of_a_study_moves_no_other_between_training_and_test(tmp_path):
    """One more that comes first among them, where each image is protected."""
    root = class_folders(tmp_path / "d", {"a": 3, "b": 3})
    options = ReadOptions(missing_unit="own_unit")

    def write(number):
        file = dicom(np.full((32, 32), number, np.uint8), patient="", SeriesNumber=1,
                     StudyInstanceUID="1.2")  # fmt: skip
        save(file, root / "a" / f"x{number:02d}.dcm")

    def trained():
        dataset = load(root, None, options=options)
        own = dataset.images[dataset.subset(Split.TRAIN)]
        return {pixels.tobytes() for pixels in own}

    for number in range(40, 60):
        write(number)
    before = trained()
    for first in range(8):
        write(first)
        assert before <= trained()


@pytest.mark.parametrize("cell", ["", "unknown"])
def test_a_patient_in_the_header_is_not_nobody_for_a_table(tmp_path, cell):
    """Each of the patient's slices would be a patient."""
    root = class_folders(tmp_path / "d", {"a": 3, "b": 3})
    rows = [f"{p.relative_to(root).as_posix()},p" for p in root.rglob("*.png")]
    rows += [f"a/{n}.dcm,{cell}" for n in range(3) if cell]
    for number in range(3):
        file = dicom(np.full((32, 32), number, np.uint8), patient="MRN2")
        save(file, root / "a" / f"{number}.dcm")
    (root / "units.csv").write_text("\n".join(["file,unit", *rows]))
    with pytest.raises(UserError, match=r"a/0\.dcm, whose own header does"):
        load(root, None, options=ReadOptions(missing_unit="own_unit"))
    left_out = load(root, None, options=ReadOptions(missing_unit="leave_out"))
    assert len(left_out) == 6
    for path in (root / "a").glob("*.dcm"):
        save(dicom(np.full((32, 32), 1, np.uint8), patient="unknown"), path)
    assert len(load(root, None, options=ReadOptions(missing_unit="own_unit"))) == 9


def test_a_long_header_is_cut_before_it_takes_the_room_of_others():
    file = dicom(ramp(0, 255, np.uint8), StudyInstanceUID="1" * 20_000)
    assert len(describe(as_bytes(file))["units"]["study"]) == 257
