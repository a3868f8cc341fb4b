"""The on-disk layouts that can be read. A new one is one file and one line here."""

from __future__ import annotations

from typing import Final

from core.data.formats.base import Format, Images, Index
from core.data.formats.camelyon17 import Camelyon17
from core.data.formats.class_folders import ClassFolders
from core.data.formats.idx import Idx

FORMATS: Final[tuple[Format, ...]] = (Camelyon17(), Idx(), ClassFolders())
"""In the order in which they are tried: the most particular first."""

__all__ = ["FORMATS", "Format", "Images", "Index"]
