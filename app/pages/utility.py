"""Page 6: whether the synthetic images are of use, measured on the private ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QHBoxLayout, QPushButton, QWidget

from app.flow import State
from app.pages.base import Page
from app.widgets.bars import Bars
from app.widgets.message import Message
from app.widgets.text import Card, Facts, label
from core.audience import Audience, Figure

if TYPE_CHECKING:
    from core.events import Watcher
    from core.pipeline import UtilityReport


class UtilityPage(Page):
    key = "utility"

    def __init__(self) -> None:
        super().__init__(
            self.tr("Utility"),
            self.tr(
                "A test program learns from the synthetic images only, and is then "
                "examined on real images that training never saw."
            ),
        )
        self.column.addWidget(self._start_card())
        self.banner = Message()
        self.column.addWidget(self.banner)
        self._shares = Card(self.tr("Right answers on real images"))
        self._bars = Bars()
        self._tested = label("", "hint")
        self._shares.rows.addWidget(self._bars)
        self._shares.rows.addWidget(self._tested)
        self._others = Card(self.tr("Other figures"))
        self._facts = Facts()
        self._others.rows.addWidget(self._facts)
        self.column.addWidget(self._shares)
        self.column.addWidget(self._others)
        self.column.addStretch(1)

    def enter(self, state: State) -> None:
        super().enter(state)
        self._show_report()

    def ready(self) -> str | None:
        if self.job is not None:
            return self.tr("Wait until the evaluation has finished, or stop it.")
        return None

    def done(self) -> bool:
        return self.state is not None and self.state.utility is not None

    def default_focus(self) -> QWidget | None:
        return self.measure

    def busy(self, working: bool) -> None:
        self.measure.setEnabled(not working)

    def start(self) -> None:
        """Run the evaluation."""
        state = self.state
        assert state is not None and state.workspace is not None
        assert state.plan is not None and state.dataset is not None
        engine, space = state.engine, state.workspace
        plan, dataset = state.plan, state.dataset

        def evaluate(watcher: Watcher) -> UtilityReport:
            return engine.evaluate(space, plan, dataset, watcher)

        self.run(self.tr("Measuring"), evaluate, self._measured)

    def _start_card(self) -> Card:
        self._start = Card()
        self.measure = QPushButton(self.tr("&Measure the utility"))
        self.measure.setProperty("primary", True)
        self.measure.clicked.connect(self.start)
        row = QHBoxLayout()
        row.setSpacing(24)
        row.addWidget(
            label(
                self.tr(
                    "This takes a few minutes and is for your eyes only. You may skip "
                    "it and go on to the release."
                )
            ),
            1,
        )
        row.addWidget(self.measure)
        self._start.rows.addLayout(row)
        return self._start

    def _measured(self, report: UtilityReport) -> None:
        assert self.state is not None
        self.state.utility = report
        self._show_report()

    def _show_report(self) -> None:
        assert self.state is not None
        report = self.state.utility
        self._start.setVisible(report is None)
        figures = () if report is None else report.figures
        shares = [figure for figure in figures if is_share(figure)]
        others = [figure for figure in figures if not is_share(figure)]
        self._shares.setVisible(bool(shares))
        self._others.setVisible(bool(others))
        if any(figure.audience is Audience.INTERNAL for figure in figures):
            self.banner.warn(
                self.tr(
                    "Computed on your private images, outside the privacy budget. The "
                    "export leaves these figures out."
                ),
                self.tr("Internal: do not publish."),
            )
        else:
            self.banner.clear()
        if report is not None:
            self._tested.setText(
                self.tr("Examined on {what}.").format(what=report.tested_on)
            )
        # A note that is the same for all is the banner's.
        notes = {figure.note for figure in shares}
        self._bars.show_shares(
            [
                (
                    sentence_case(figure.name),
                    figure.value,
                    figure.note if len(notes) > 1 else "",
                    "synthetic" in figure.name,
                )
                for figure in shares
            ]
        )
        self._facts.show_facts(
            *(
                (
                    sentence_case(figure.name),
                    f"{figure.value:.4g}  {figure.note}".strip(),
                )
                for figure in others
            )
        )


def is_share(figure: Figure) -> bool:
    """Whether a figure is a share of right answers, which a bar shows best."""
    named = "accuracy" in figure.name.lower() or "chance" in figure.name.lower()
    return named and 0.0 <= figure.value <= 1.0


def sentence_case(name: str) -> str:
    """The name with a capital letter first."""
    return name[:1].upper() + name[1:]
