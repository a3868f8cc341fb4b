"""DICOM files: their pixels as a viewer shows them, and what says whose they are.

Runs in a decoder process. The order of the tables is that of the standard (PS3.3
C.11.1, C.11.2): stored values, modality table, then the window or table of interest.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, iter_pixels
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from core.data.decoding import Decoded, Wanted
from core.data.refusals import MAX_PIXELS, Refused
from core.data.resampling import to_square, windowed

MOST_FRAMES: Final = 4096
_LONGEST: Final = 257
"""Of a name that is told: one more than a name may have."""

UNITS: Final = {
    "patient": "PatientID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
}
"""What units are called, and where a file names them."""

_HEADER: Final = [
    *UNITS.values(),
    *("Rows", "Columns", "NumberOfFrames", "BurnedInAnnotation"),
    "RecognizableVisualFeatures",
]


def describe(content: bytes) -> dict[str, Any]:
    """What the header says: units, number of images, and what may show a person.

    Raises:
        Refused: If it holds no image.
    """
    header = pydicom.dcmread(
        io.BytesIO(content), stop_before_pixels=True, specific_tags=_HEADER
    )
    return {
        # PRIVACY: cut, so that no answer is too long for what a batch may answer.
        "units": {
            name: str(header.get(tag) or "")[:_LONGEST] for name, tag in UNITS.items()
        },
        "frames": _frame_count(header),
        "burned_in": _says(header, "BurnedInAnnotation") != "NO",
        "recognisable": _says(header, "RecognizableVisualFeatures") == "YES",
    }


def decode_dicom(content: bytes, wanted: Wanted) -> list[Decoded]:
    """Every frame, as grey or colour of 8 bits.

    Raises:
        Refused: If it holds no image, no window is known, or no decoder is there.
    """
    file = pydicom.dcmread(io.BytesIO(content))
    count = _frame_count(file)
    if "PixelData" not in file:
        raise Refused("no pixels")
    file.NumberOfFrames = count
    decoded = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number, frame in enumerate(iter_pixels(file)):
                decoded.append(_decoded(file, number, frame, wanted))
    except (RuntimeError, NotImplementedError):
        # What pydicom says when no decoder can read the transfer syntax.
        syntax = str(file.file_meta.get("TransferSyntaxUID", "unknown"))
        raise Refused("compressed", syntax=syntax) from None
    if len(decoded) != count:
        raise Refused("cannot be decoded")
    return decoded


def _frame_count(file: Dataset) -> int:
    if not file.get("Rows") or not file.get("Columns"):
        raise Refused("no pixels")
    frames = int(file.get("NumberOfFrames") or 1)
    if not 1 <= frames <= MOST_FRAMES or file.Rows * file.Columns > MAX_PIXELS:
        raise Refused("too many pixels")
    return frames


def _says(header: Dataset, tag: str) -> str:
    return str(header.get(tag) or "").strip().upper()


def _decoded(file: Dataset, number: int, frame: np.ndarray, wanted: Wanted) -> Decoded:
    mode = f"{file.PhotometricInterpretation} {file.BitsStored} bit"
    if file.PhotometricInterpretation == "PALETTE COLOR":
        frame = apply_color_lut(frame, file)[..., :3]
        if frame.dtype != np.uint8:
            frame = windowed(frame, (0, 65535))
    elif frame.ndim == 2:
        frame = _shown(frame, _tables(file, number), wanted.window, mode)
    elif frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise Refused("unsupported mode", mode=mode)
    image = Image.fromarray(np.ascontiguousarray(frame))
    return Decoded(
        pixels=to_square(image, wanted.resolution, wanted.channels),
        width=image.width,
        height=image.height,
        mode=mode,
    )


def _shown(
    stored: np.ndarray,
    tables: Dataset,
    window: tuple[float, float] | None,
    mode: str,
) -> np.ndarray:
    """Grey values as they are to be seen, uint8: black is 0."""
    plain = _is_plain(tables)
    values = stored if plain else apply_modality_lut(stored, tables)
    if window is not None:
        shown = windowed(values, window)
    elif tables.get("VOILUTSequence"):
        bits = int(tables.VOILUTSequence[0].LUTDescriptor[2])
        seen = apply_voi_lut(values, tables, prefer_lut=True)
        shown = windowed(seen, (0, 2**bits - 1))
    elif tables.get("WindowCenter") is not None and tables.get("WindowWidth"):
        shown = _through_window(values, tables)
    elif plain and stored.dtype == np.uint8:
        shown = windowed(stored, (0, 2**tables.BitsStored - 1))
    else:
        raise Refused("no window", mode=mode)
    dark_is_high = tables.PhotometricInterpretation == "MONOCHROME1"
    return 255 - shown if dark_is_high else shown


def _is_plain(tables: Dataset) -> bool:
    """Whether the stored values are the values themselves, so that bits bound them."""
    slope, intercept = tables.get("RescaleSlope"), tables.get("RescaleIntercept")
    return (
        not tables.get("ModalityLUTSequence")
        and (slope is None or float(slope) == 1.0)
        and (intercept is None or float(intercept) == 0.0)
    )


def _through_window(values: np.ndarray, tables: Dataset) -> np.ndarray:
    """The first window of the file over the whole range of grey (PS3.3 C.11.2.1.2)."""
    centre, width = _first(tables.WindowCenter), _first(tables.WindowWidth)
    function = str(tables.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID":
        share = 1 / (1 + np.exp(-4 * (values.astype(np.float64) - centre) / width))
        return windowed(share, (0, 1))
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-6)
    return windowed(values, (centre - width / 2, centre + width / 2))


def _first(value: Any) -> float:
    """The first of several windows, which is the one that viewers open with."""
    return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)


def _tables(file: Dataset, number: int) -> Dataset:
    """The tables for one frame: its own, else those shared by all, else the file's."""
    tables = Dataset()
    for name in ("PhotometricInterpretation", "BitsStored", *_TABLE_TAGS):
        if name in file:
            setattr(tables, name, file[name].value)
    for group in _functional_groups(file, number):
        for tag in _GROUP_TAGS:
            for item in group.get(tag) or ():
                for name in _TABLE_TAGS:
                    if name in item:
                        setattr(tables, name, item[name].value)
    return tables


_TABLE_TAGS: Final = (
    *("RescaleIntercept", "RescaleSlope", "ModalityLUTSequence", "VOILUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "PixelRepresentation"),
)
_GROUP_TAGS: Final = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def _functional_groups(file: Dataset, number: int) -> Iterator[Dataset]:
    yield from (file.get("SharedFunctionalGroupsSequence") or ())[:1]
    yield from (file.get("PerFrameFunctionalGroupsSequence") or ())[number : number + 1]


def rehearse(wanted: Wanted) -> None:
    """Decode one file of each kind, so that every library is loaded by now."""
    jpeg = io.BytesIO()
    Image.new("L", (8, 8)).save(jpeg, "JPEG")
    for syntax, pixels in (
        (ExplicitVRLittleEndian, bytes(64)),
        (JPEGBaseline8Bit, pydicom.encaps.encapsulate([jpeg.getvalue()])),
    ):
        file = Dataset()
        file.Rows = file.Columns = 8
        file.SamplesPerPixel = 1
        file.PhotometricInterpretation = "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 8
        file.HighBit, file.PixelRepresentation = 7, 0
        file.RescaleSlope, file.RescaleIntercept = 1, 0
        file.PatientID = "rehearsal"
        file.PixelData = pixels
        file["PixelData"].VR = "OB"
        file["PixelData"].is_undefined_length = syntax.is_compressed
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = syntax
        file.SOPClassUID, file.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2"
        content = io.BytesIO()
        pydicom.dcmwrite(content, file, enforce_file_format=True)
        describe(content.getvalue())
        decode_dicom(content.getvalue(), wanted)
