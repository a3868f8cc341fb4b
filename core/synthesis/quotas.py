"""Class quotas: which drawn image goes to which class, when somebody names them.

An image goes to the class that it is named, as long as that one is not full. Pure
bookkeeping: the same names in the same order give the same places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

PATIENCE = 4
"""A class is drawn for at most so many times its size, before it is filled up with
images that were drawn for it, whatever they are named."""

Batch = tuple[int, int]
"""(class that it is drawn for, number of its first image)"""

Drawn = tuple[int, int]
"""(class that it was drawn for, its number)"""


@dataclass(kw_only=True)
class Quotas:
    """Where the images go; filled round by round.

    Attributes:
        classes: Number of classes.
        per_class: Images that each is to hold.
        size: Images of a batch.
        places: What each class holds so far, in order of arrival.
        spare: What was drawn for each class and is not placed, in order.
        unnamed: Of each class, how many images are named otherwise.
    """

    classes: int
    per_class: int
    size: int
    places: list[list[Drawn]] = field(init=False)
    spare: list[list[Drawn]] = field(init=False)
    unnamed: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.places = [[] for _ in range(self.classes)]
        self.spare = [[] for _ in range(self.classes)]
        self.unnamed = [0] * self.classes
        self._batches = [0] * self.classes

    def missing(self, label: int) -> int:
        """How many images a class lacks."""
        return self.per_class - len(self.places[label])

    def next_round(self) -> list[Batch]:
        """Batches to draw now: as many for a class as it lacks images; [] at the end.

        Before the end, classes that have been drawn for too often are filled up; where
        too few images are left for that, they are drawn, and placed whatever they are.
        """
        most = PATIENCE * self._enough_for(self.per_class)
        wanted: list[Batch] = []
        for label in range(self.classes):
            lacking = self._enough_for(self.missing(label))
            left = max(0, most - self._batches[label])
            wanted += self._take(label, min(lacking, left))
        return wanted or self._last_round()

    def _last_round(self) -> list[Batch]:
        wanted: list[Batch] = []
        for label in range(self.classes):
            taken = self.spare[label][: self.missing(label)]
            del self.spare[label][: len(taken)]
            self.places[label] += taken
            self.unnamed[label] += len(taken)
            wanted += self._take(label, self._enough_for(self.missing(label)))
        return wanted

    def _enough_for(self, images: int) -> int:
        return math.ceil(images / self.size)

    def _take(self, label: int, number: int) -> list[Batch]:
        first = self._batches[label]
        self._batches[label] += number
        return [(label, (first + k) * self.size) for k in range(number)]

    def arrived(self, batch: Batch, names: list[int]) -> None:
        """Place a batch's images by what they are named."""
        label, first = batch
        for number, name in enumerate(names, first):
            known = self.missing(name) > 0
            (self.places[name] if known else self.spare[label]).append((label, number))
