"""Reads any image folder safely into one type, `ImageDataset`.

Imports neither torch nor Qt. The phantom is in `core.data.phantom`.
"""

from __future__ import annotations

from core.data.cache import cache_is_whole, delete_cache
from core.data.dataset import ImageDataset, Problem, Split
from core.data.inspection import Inspection
from core.data.loading import inspect, load
from core.data.options import ReadOptions, parse_options

__all__ = [
    "ImageDataset",
    "Inspection",
    "Problem",
    "ReadOptions",
    "Split",
    "cache_is_whole",
    "delete_cache",
    "inspect",
    "load",
    "parse_options",
]
