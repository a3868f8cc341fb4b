"""Why a file is left out, in words: one sentence for each kind, with its remedy.

A decoder runs in a process that is not trusted. It may say which kind applies and give
numbers; the words are these and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from core.data.dataset import Problem

MAX_PIXELS: Final = 64_000_000
MAX_BYTES: Final = 512 * 1024 * 1024

_MESSAGES: Final = {
    "missing": "The file is not there: restore or unlist it.",
    "link": "The path leaves the folder: copy the file itself into the dataset.",
    "not a file": "This is no ordinary file: remove it.",
    "too large": f"The file is larger than {MAX_BYTES // 2**20} MB: reduce it.",
    "cannot be opened": "The file cannot be opened ({reason}): check its permissions.",
    "empty file": "The file is empty: restore it.",
    "too many pixels": "The image has more than "
    f"{MAX_PIXELS // 10**6} million pixels: reduce it.",
    "several frames": "The file holds more than one image: save each one as a file of "
    "its own.",
    "no window": "Its pixels of mode {mode} have no public range: declare a window of "
    "values (such as 0 to 4095) that does not depend on the images.",
    "unsupported mode": "Pixels of mode {mode} cannot be read: save the image with 8 "
    "bits per channel.",
    "cannot be decoded": "The file is damaged, truncated or not an image that Sfumato "
    "reads (PNG, JPEG, TIFF, BMP, DICOM): repair or remove it.",
    "too much work": "Decoding the file took more time or memory than any honest image "
    "needs: repair or remove it.",
    "misnamed": "This is a DICOM file with the ending of another kind: rename it to "
    ".dcm.",
    "no pixels": "The DICOM file holds no image (a report or a plan): remove it.",
    "compressed": "The DICOM file is compressed in a way that cannot be read here "
    "({syntax}): convert it to explicit little endian, with dcmdjpeg or gdcmconv.",
}
_LONGEST_FACT: Final = 80


class Refused(Exception):
    """A file is left out.

    Args:
        kind: One of the kinds above; any other counts as "cannot be decoded".
        facts: What the sentence names, such as the mode.
    """

    def __init__(self, kind: str, /, **facts: object) -> None:
        super().__init__(kind)
        self.kind = kind
        self.facts = facts


def problem(path: str, kind: str, facts: Mapping[str, object]) -> Problem:
    """The problem of one file, from a kind and facts that need not be honest."""
    known = kind if kind in _MESSAGES else "cannot be decoded"
    words = {name: _plain(value) for name, value in facts.items()}
    try:
        message = _MESSAGES[known].format_map(words)
    except KeyError:
        known, message = "cannot be decoded", _MESSAGES["cannot be decoded"]
    return Problem(path=path, kind=known, message=message)


def _plain(value: object) -> str:
    text = str(value)[:_LONGEST_FACT]
    return "".join(c if c.isprintable() and c not in "<>{}" else "?" for c in text)
