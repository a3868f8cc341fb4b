"""The on-disk layouts that can be read. A new one is one file and one line here."""

from __future__ import annotations

from typing import Final

from core.data.formats.base import Format, Images, Index
from core.data.formats.camelyon17 import Camelyon17
from core.data.formats.class_folders import ClassFolders
from core.data.formats.edm import Edm
from core.data.formats.idx import Idx
from core.data.formats.imagefolder import ImageFolder
from core.data.formats.manifest import Manifest
from core.data.formats.medmnist import MedMnist
from core.data.formats.pcam import PatchCamelyon

FORMATS: Final[tuple[Format, ...]] = (
    Camelyon17(),
    PatchCamelyon(),
    Manifest(),
    Edm(),
    MedMnist(),
    Idx(),
    ImageFolder(),
    ClassFolders(),
)
"""In the order in which they are tried: the most particular first."""

__all__ = ["FORMATS", "Format", "Images", "Index"]
