"""The training images, grouped by the privacy unit.

The one bridge from the data room to the privacy room: the mechanism draws unit numbers,
and this gives the images of a unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.data.dataset import ImageDataset, Split
from core.errors import UserError
from core.privacy.budget import PrivacyUnit, UnitKind
from core.privacy.noise import fresh_generator

UnitRecords = tuple[np.ndarray | Tensor, ...]
"""(uint8 [m, H, W, c], int64 [m]): the images of a unit and their labels."""

DrawUnit = Callable[[int], UnitRecords]
"""Gives the records of a unit."""


@dataclass(frozen=True, kw_only=True)
class UnitImages:
    """Rows of the training split, unit by unit.

    Attributes:
        dataset: Where the pixels are.
        rows: int64 [n]: row numbers, those of one unit together.
        starts: int64 [units + 1]: where each unit's rows begin.
        limit: At most so many images of a unit are used at a time.
    """

    dataset: ImageDataset
    rows: np.ndarray
    starts: np.ndarray
    limit: int

    @property
    def present(self) -> int:
        """How many units there are. Private: only the mechanism may use it."""
        return len(self.starts) - 1

    def draw(self, unit: int) -> tuple[Tensor, Tensor]:
        """The images of a unit, a fresh random `limit` of them when it has more.

        Returns:
            (uint8 [m, H, W, c], int64 [m]), 1 ≤ m ≤ limit.
        """
        rows = self.rows[self.starts[unit] : self.starts[unit + 1]]
        # PRIVACY: the unit's contribution is bounded whatever its size.
        if len(rows) > self.limit:
            rows = fresh_generator().choice(rows, self.limit, replace=False)
        return (
            torch.from_numpy(np.array(self.dataset.images[rows])),
            torch.from_numpy(np.array(self.dataset.labels[rows], dtype=np.int64)),
        )


def equal_weights(count: int) -> Tensor:
    """The weights of a unit's images, which add up to 1: float64 [count]."""
    # PRIVACY: in single precision those of three images add up to more than 1.
    return torch.full((count,), 1 / count, dtype=torch.float64)


def group_units(dataset: ImageDataset, unit: PrivacyUnit) -> UnitImages:
    """Group the training images by unit: one each, or by the grouping column.

    Raises:
        UserError: when patients are to be protected and the data name none.
    """
    # PRIVACY: without a grouping column every image would pass for a patient.
    if unit.kind is UnitKind.PATIENT and not dataset.has_groups:
        raise UserError(
            "The folder says nothing about patients, so no bound would hold for them: "
            "choose the image as the unit, or add a patient column."
        )
    rows = dataset.subset(Split.TRAIN)
    if unit.kind is UnitKind.IMAGE:
        starts = np.arange(len(rows) + 1)
    else:
        rows = rows[np.argsort(dataset.units[rows], kind="stable")]
        _, counts = np.unique(dataset.units[rows], return_counts=True)
        starts = np.concatenate([[0], np.cumsum(counts)])
    return UnitImages(
        dataset=dataset,
        rows=rows,
        starts=starts,
        limit=unit.max_images_per_unit,
    )
