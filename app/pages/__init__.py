"""The pages in order. A new page is a new file and a line here."""

from __future__ import annotations

from app.pages.base import Page
from app.pages.budget import BudgetPage
from app.pages.checkpoint import CheckpointPage
from app.pages.dataset import DatasetPage
from app.pages.release import ReleasePage
from app.pages.samples import SamplesPage
from app.pages.training import TrainingPage
from app.pages.utility import UtilityPage

PAGES: tuple[type[Page], ...] = (
    DatasetPage,
    CheckpointPage,
    BudgetPage,
    TrainingPage,
    SamplesPage,
    UtilityPage,
    ReleasePage,
)
