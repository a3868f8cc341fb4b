"""The one window: steps at the left, the page in the middle, Back and Next below."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from PySide6.QtCore import QPoint, QSettings, QSize, Qt
from PySide6.QtGui import QCloseEvent, QKeyEvent
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QMainWindow,
    QMessageBox,
    QPushButton,
    QScrollArea,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import jobs
from app.crash import CrashDialog
from app.engine import Engine
from app.flow import State
from app.menus import add_menus
from app.pages import PAGES
from app.pages.base import Page
from app.pages.dataset import DatasetPage
from app.pages.training import TrainingPage
from app.widgets.steps import StepList
from app.widgets.text import label

Kind = TypeVar("Kind", bound=Page)

SIZE = QSize(1100, 760)
SMALLEST = QSize(900, 640)
CONTENT_WIDTH = 840
SIDEBAR_WIDTH = 200
MARGIN = 24
LINE = 12
"""Controls whose middles are this close in height are on one line."""


class Window(QMainWindow):
    """Owns the state and the pages, and decides which of them may be opened."""

    def __init__(self, engine: Engine, folder: Path | None = None) -> None:
        super().__init__()
        self.setWindowTitle("Sfumato")
        self.resize(SIZE)
        self.setMinimumSize(SMALLEST)
        self.state = State(engine=engine)
        self.pages: list[Page] = [make() for make in PAGES]
        self._current = 0
        self._closing = False
        self._question: QMessageBox | None = None
        self._placed: QWidget | None = None
        self._build()
        add_menus(self)
        for page in self.pages:
            page.state = self.state
            page.changed.connect(self._refresh)
            page.opened.connect(self._go_to_first_open_step)
            page.settled.connect(self._return_focus)
            page.crashed.connect(self.show_crash)
        QApplication.instance().focusChanged.connect(self._keep_in_sight)
        self.go_to(0)
        geometry = QSettings().value("geometry")
        if geometry is not None:
            self.restoreGeometry(geometry)
        if folder is not None:
            self.page(DatasetPage).open_folder(folder)

    @property
    def current(self) -> Page:
        """The page in view."""
        return self.pages[self._current]

    def page(self, kind: type[Kind]) -> Kind:
        """The page of a kind."""
        return next(page for page in self.pages if isinstance(page, kind))

    def go_to(self, number: int) -> None:
        """Bring a page into view; the choices made so far are put on disk first."""
        if not self._reachable(number):
            return
        self.state.save()
        self._current = number
        page = self.current
        page.enter(self.state)
        self._stack.setCurrentIndex(number)
        self._areas[number].verticalScrollBar().setValue(0)
        self._refresh()
        self._focus(page.default_focus())

    def _focus(self, wanted: QWidget | None) -> None:
        if wanted is None or not wanted.isEnabled():
            wanted = self.next if self.next.isEnabled() else self.back
        self._placed = wanted
        wanted.setFocus(Qt.FocusReason.OtherFocusReason)

    def _return_focus(self) -> None:
        """A button that locked itself while it worked has lost the keyboard."""
        if self.focusWidget() in (None, self.back, self._steps):
            self._focus(self.next)

    def _keep_in_sight(self, _: QWidget | None, focused: QWidget | None) -> None:
        """A letter with Alt leads to what lies below the fold, too; Tab scrolls itself.

        A page just opened shows its top, wherever its first choice lies.
        """
        placed, self._placed = self._placed, None
        if focused in (None, placed) or not self.current.isAncestorOf(focused):
            return
        # Who comes back to the window finds it as it was.
        if not QApplication.keyboardModifiers() & Qt.KeyboardModifier.AltModifier:
            return
        if focused.visibleRegion().isEmpty():
            self.current.reveal(focused)

    def show_crash(self, text: str) -> None:
        """Say that Sfumato has a bug, with the text to report."""
        CrashDialog(text, self).open()

    def _build(self) -> None:
        self._stack = QStackedWidget()
        self._areas: list[QScrollArea] = []
        for page in self.pages:
            area = _scrolled(page)
            self._areas.append(area)
            self._stack.addWidget(area)
        self._summary = label()
        self._summary.setObjectName("summary")
        self._strip = _as_wide_as_a_page(self._summary, above=14, below=0)
        self._strip.setObjectName("band")
        right = QVBoxLayout()
        right.setSpacing(0)
        right.addWidget(self._strip)
        right.addWidget(self._stack, 1)
        right.addWidget(self._footer())
        whole = QWidget()
        row = QHBoxLayout(whole)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self._sidebar())
        row.addLayout(right, 1)
        self.setCentralWidget(whole)

    def _sidebar(self) -> QWidget:
        side = QWidget()
        side.setObjectName("sidebar")
        side.setFixedWidth(SIDEBAR_WIDTH)
        brand = label("Sfumato", "brand", wrap=False)
        self._project_name = label("", "hint")
        self._steps = StepList([page.title for page in self.pages])
        self._steps.picked.connect(self.go_to)
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 18, 0, 12)
        column.setSpacing(2)
        for widget in (brand, self._project_name):
            widget.setContentsMargins(18, 0, 12, 0)
            column.addWidget(widget)
        column.addSpacing(14)
        column.addWidget(self._steps, 1)
        return side

    def _footer(self) -> QWidget:
        buttons = QWidget()
        self._reason = label("", "hint")
        self._reason.setAlignment(
            Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        )
        self.back = QPushButton(self.tr("&Back"))
        self.back.clicked.connect(lambda: self.go_to(self._current - 1))
        self.next = QPushButton(self.tr("&Next"))
        self.next.setProperty("primary", True)
        self.next.clicked.connect(lambda: self.go_to(self._current + 1))
        row = QHBoxLayout(buttons)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(12)
        row.addWidget(self.back)
        row.addWidget(self._reason, 1)
        row.addWidget(self.next)
        footer = _as_wide_as_a_page(buttons, above=12, below=12)
        footer.setObjectName("footer")
        return footer

    def _reachable(self, number: int) -> bool:
        """A page may be opened when every page before it is ready."""
        if not 0 <= number < len(self.pages):
            return False
        return all(page.ready() is None for page in self.pages[:number])

    def _go_to_first_open_step(self) -> None:
        for number, page in enumerate(self.pages):
            if self._reachable(number):
                page.enter(self.state)
            if page.ready() is not None or not page.done():
                self.go_to(number)
                return
        self.go_to(len(self.pages) - 1)

    def _refresh(self) -> None:
        """Show how the steps stand, and whether one may go on."""
        if self._closing and not jobs.running():
            self.close()
            return
        last = self._current == len(self.pages) - 1
        for number, page in enumerate(self.pages):
            reachable = number == self._current or self._reachable(number)
            state = self.tr("not yet")
            if number == self._current and not (last and page.done()):
                state = self.tr("now")
            elif reachable and page.done():
                state = self.tr("done")
            if page.job is not None and number != self._current:
                state = self.tr("running")
            self._steps.show_state(
                number, state, now=number == self._current, reachable=reachable
            )
        reason = self.current.ready()
        self.back.setEnabled(self._current > 0)
        self.next.setVisible(not last)
        self.next.setEnabled(reason is None)
        self.next.setAccessibleDescription(reason or "")
        self._reason.setText(reason or "")
        told = [page.summary() for page in self.pages[: self._current]]
        self._summary.setText("   ·   ".join(text for text in told if text))
        self._strip.setVisible(any(told))
        space = self.state.workspace
        self._project_name.setText(
            self.tr("No project yet") if space is None else space.path.name
        )

    def _order_tabs(self) -> None:
        """The keyboard goes over the page as the eye does, then Back, Next, steps."""

        def place(widget: QWidget) -> tuple[int, int]:
            corner = widget.mapTo(self.current, QPoint(0, 0))
            middle = corner.y() + widget.height() // 2
            return round(middle / LINE), corner.x()

        stops = [
            widget
            for widget in self.current.findChildren(QWidget)
            if widget.focusPolicy() & Qt.FocusPolicy.TabFocus
            and widget.isVisibleTo(self.current)
        ]
        chain = [*sorted(stops, key=place), self.back, self.next, self._steps]
        for first, second in pairwise(chain):
            QWidget.setTabOrder(first, second)

    def focusNextPrevChild(self, forward: bool) -> bool:
        """What was shown a moment ago has its place by now: so late, not when shown."""
        self._order_tabs()
        return super().focusNextPrevChild(forward)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Enter presses the button in focus, else Next."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            focused = self.focusWidget()
            own = isinstance(focused, QPushButton | QToolButton)
            button = focused if own else self.next
            if button.isVisible() and button.isEnabled():
                button.click()
            return
        super().keyPressEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Close at once when nothing runs; else ask, and wait without freezing."""
        if not jobs.running():
            self.state.save()
            if self.state.workspace is not None:
                self.state.engine.close(self.state.workspace)
                self.state.workspace = None
            QSettings().setValue("geometry", self.saveGeometry())
            event.accept()
            return
        event.ignore()
        if self._closing or self._question is not None:
            return
        working = next((page for page in self.pages if page.job is not None), None)
        if working is None:
            # Only a preview runs: it cannot be stopped and nobody will miss it.
            self._close_when_quiet(None)
        else:
            self._ask_to_close(working)

    def _ask_to_close(self, working: Page) -> None:
        training = isinstance(working, TrainingPage) and working.running
        box = QMessageBox(self)
        box.setIcon(QMessageBox.Icon.Question)
        box.setWindowTitle("Sfumato")
        if training:
            box.setText(self.tr("Training is running."))
            box.setInformativeText(
                self.tr(
                    "Pausing keeps what was learned and what was charged; you can go "
                    "on another day."
                )
            )
            leave, stay = self.tr("&Pause and close"), self.tr("&Keep training")
        else:
            box.setText(
                self.tr("The step {title} is still at work.").format(
                    title=working.title
                )
            )
            box.setInformativeText(self.tr("What it has done is kept where it can be."))
            leave, stay = self.tr("&Stop and close"), self.tr("&Keep working")
        go = box.addButton(leave, QMessageBox.ButtonRole.AcceptRole)
        keep = box.addButton(stay, QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(keep)
        box.setEscapeButton(keep)

        def answered() -> None:
            self._question = None
            if box.clickedButton() is go:
                self._close_when_quiet(working)

        box.finished.connect(lambda _: answered())
        self._question = box
        box.open()

    def _close_when_quiet(self, working: Page | None) -> None:
        self._closing = True
        if working is not None:
            working.stop()
        for job in jobs.running():
            job.ended.connect(self._refresh, Qt.ConnectionType.QueuedConnection)
        self._refresh()


def _as_wide_as_a_page(widget: QWidget, *, above: int, below: int) -> QWidget:
    """A band over the whole width that holds `widget` in line with the pages."""
    widget.setMaximumWidth(CONTENT_WIDTH)
    band = QWidget()
    band.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
    row = QHBoxLayout(band)
    row.setContentsMargins(MARGIN, above, MARGIN, below)
    row.addWidget(widget, 1000)
    row.addStretch(1)
    return band


def _scrolled(page: Page) -> QScrollArea:
    content = _as_wide_as_a_page(page, above=18, below=24)
    content.setObjectName("content")
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    area.setWidget(content)
    return area
