"""What the fake engine answers with: the same fields as the real results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PySide6.QtGui import QColor, QImage

from core.audience import Figure
from core.privacy.budget import Budget, times


@dataclass(frozen=True, kw_only=True)
class FakeRecipe:
    images_per_class: int


@dataclass(frozen=True, kw_only=True)
class FakeMechanism:
    steps: int


@dataclass(frozen=True, kw_only=True)
class FakePlan:
    budget: Budget
    recipe: FakeRecipe
    mechanism: FakeMechanism

    @property
    def steps(self) -> int:
        return self.mechanism.steps

    def sentence(self) -> str:
        unit = self.budget.unit.kind.value
        return (
            f"For anyone who sees the release, adding or removing one {unit} changes "
            "the probability of any outcome by a factor of at most "
            f"{times(self.budget.epsilon)} (e to the power {self.budget.epsilon:g}), "
            f"except with probability {self.budget.delta:g}."
        )


@dataclass(frozen=True, kw_only=True)
class FakeSpending:
    before: float
    after: float
    steps_done: int
    epsilon_charged: float
    other_terms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FakeChances:
    accuracy: float = 0.8909
    accusation: float = 0.9823


@dataclass(frozen=True, kw_only=True)
class FakePreview:
    noise_multiplier: float
    epsilon_curve: tuple[tuple[int, float], ...]
    steps: int
    expected_batch: float
    sampling_probability: float
    forecast_seconds: float
    sentence: str
    others: tuple[tuple[str, float], ...]
    warnings: tuple[str, ...]
    chances: FakeChances = FakeChances()
    better_kind: str = ""


@dataclass(frozen=True, kw_only=True)
class FakeCard:
    name: str
    title: str
    description: str
    licence: str
    pretraining_data: str
    parameters: int
    resolution: int
    sha256: str
    pretraining_licences: str
    source: str = ""
    overlap: str = ""
    overlap_reason: str = ""


@dataclass(frozen=True, kw_only=True)
class FakeTuned:
    updates: int
    steps_charged: int
    epsilon_charged: float


@dataclass(frozen=True, kw_only=True)
class FakeSamples:
    class_names: tuple[str, ...]
    class_folders: tuple[Path, ...]
    per_class: int


@dataclass(frozen=True, kw_only=True)
class FakeReport:
    figures: tuple[Figure, ...]
    tested_on: str


@dataclass(frozen=True, kw_only=True)
class FakeRelease:
    folder: Path


@dataclass(frozen=True, kw_only=True)
class FakeFinding:
    subject: str
    message: str


@dataclass(frozen=True, kw_only=True)
class FakeVerification:
    holds: bool
    findings: tuple[FakeFinding, ...]
    notes: tuple[str, ...]
    epsilon_recomputed: float


CLASSES = ("normal", "tumour")


def draw_tissue(path: Path, kind: int, seed: int) -> None:
    """A 32 × 32 drawing in the colours of a stain."""
    random = np.random.default_rng((kind, seed))
    image = QImage(32, 32, QImage.Format.Format_RGB32)
    rows, columns = np.mgrid[0:32, 0:32]
    shade = np.zeros((32, 32))
    for _ in range(5 + 12 * kind):
        y, x = random.uniform(0, 32, 2)
        radius = random.uniform(1.5, 2.5 + 1.5 * kind)
        shade += np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / radius**2)
    shade = np.clip(shade + random.normal(0, 0.08, shade.shape), 0, 1)
    for row in range(32):
        for column in range(32):
            mix = shade[row, column]
            image.setPixelColor(
                column,
                row,
                QColor(int(232 - 130 * mix), int(190 - 120 * mix), int(214 - 60 * mix)),
            )
    image.save(str(path))
