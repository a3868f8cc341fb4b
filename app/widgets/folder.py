"""A path that can be typed, browsed for, or dropped from a file manager."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)


class FolderField(QWidget):
    """A line with a browse button; `buddy` is the label that names it.

    With `lists`, the text of one more button, a CSV file may be chosen instead.
    """

    edited = Signal(str)

    def __init__(
        self, name: str, browse: str, *, buddy: QLabel | None = None, lists: str = ""
    ) -> None:
        super().__init__()
        self.line = QLineEdit()
        self.line.setAccessibleName(name)
        self.line.textChanged.connect(self.edited)
        if buddy is not None:
            buddy.setBuddy(self.line)
        self.browse = QPushButton(browse)
        self.browse.setAccessibleName(f"{name}: {browse.replace('&', '')}")
        self.browse.clicked.connect(self._browse)
        self._name = name
        self.setFocusProxy(self.line)
        self.setAcceptDrops(True)
        self.line.setAcceptDrops(False)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line, 1)
        row.addWidget(self.browse)
        self._lists = bool(lists)
        if lists:
            self.browse_list = QPushButton(lists)
            self.browse_list.setAccessibleName(f"{name}: {lists.replace('&', '')}")
            self.browse_list.clicked.connect(self._browse_list)
            row.addWidget(self.browse_list)

    @property
    def path(self) -> Path | None:
        """The path as typed, with ~ expanded; None when the line is empty."""
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None

    def set_path(self, path: Path | None) -> None:
        """Show a path."""
        self.line.setText("" if path is None else str(path))

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, self._name, self._start())
        if chosen:
            self.line.setText(chosen)

    def _browse_list(self) -> None:
        lists = self.tr("Lists of images (*.csv)")
        chosen = QFileDialog.getOpenFileName(self, self._name, self._start(), lists)
        if chosen[0]:
            self.line.setText(chosen[0])

    def _start(self) -> str:
        start = self.path or Path.home()
        while not start.is_dir() and start != start.parent:
            start = start.parent
        return str(start)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if dropped_folder(event, lists=self._lists) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        if (folder := dropped_folder(event, lists=self._lists)) is not None:
            self.set_path(folder)
            event.acceptProposedAction()


def dropped_folder(event: QDropEvent, *, lists: bool = False) -> Path | None:
    """The one local folder that is being dropped, or that of a file; or a CSV list."""
    urls = event.mimeData().urls()
    if len(urls) != 1 or not urls[0].isLocalFile():
        return None
    path = Path(urls[0].toLocalFile())
    if path.is_dir() or (lists and path.suffix.lower() == ".csv"):
        return path
    return path.parent
