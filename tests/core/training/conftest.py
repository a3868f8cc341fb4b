"""A ledger, a folder, and an accountant that costs nothing while steps are counted."""

from __future__ import annotations

import pytest

from core.events import Watcher
from core.privacy.ledger import Ledger
from core.training import purse, trainer
from tests.core.tiny import make_dataset


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "home" / "ledger.sqlite3")
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "training"
    path.mkdir()
    return path


@pytest.fixture
def quick_accountant(monkeypatch):
    """What was charged is counted; what it means is tested in the privacy room."""
    monkeypatch.setattr(
        purse, "epsilon", lambda charges, *_: float(sum(c.count for c in charges))
    )


@pytest.fixture
def tune(folder, ledger, quick_accountant):
    """Fine-tunes by a plan, on the usual images where no others are given."""

    def run(plan, dataset=None, watcher=None):
        return trainer.fine_tune(
            plan, make_dataset() if dataset is None else dataset, folder, ledger,
            device="cpu", watcher=watcher or Watcher(),
        )  # fmt: skip

    return run
