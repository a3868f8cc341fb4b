"""Reads any image folder safely into one type, `ImageDataset`.

Imports neither torch nor Qt. The phantom is in `core.data.phantom`.
"""

from __future__ import annotations

from core.data.dataset import ImageDataset, Problem, Split
from core.data.inspection import Inspection
from core.data.loading import inspect, load
from core.data.options import ReadOptions

__all__ = [
    "ImageDataset",
    "Inspection",
    "Problem",
    "ReadOptions",
    "Split",
    "inspect",
    "load",
]
