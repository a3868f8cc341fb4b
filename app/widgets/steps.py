"""The list of steps at the left: number, name, and the state in words."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFont, QPainter, QPen
from PySide6.QtWidgets import (
    QAbstractItemView,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
)

from app import theme

STATE_ROLE = Qt.ItemDataRole.UserRole
TITLE_ROLE = Qt.ItemDataRole.UserRole + 1
NOW_ROLE = Qt.ItemDataRole.UserRole + 2
ROW_PADDING = 16
"""Above and below the two lines of a row: 3 around its frame and 5 inside it."""


class _StepDelegate(QStyledItemDelegate):
    def sizeHint(
        self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> QSize:
        return QSize(180, 2 * option.fontMetrics.height() + ROW_PADDING)

    def paint(
        self,
        painter: QPainter,
        option: QStyleOptionViewItem,
        index: QModelIndex | QPersistentModelIndex,
    ) -> None:
        colours = theme.current()
        now = bool(index.data(NOW_ROLE))
        enabled = bool(index.flags() & Qt.ItemFlag.ItemIsEnabled)
        area = QRectF(option.rect).adjusted(8, 3, -8, -3)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        focused = bool(option.state & QStyle.StateFlag.State_HasFocus)
        hovered = bool(option.state & QStyle.StateFlag.State_MouseOver)
        if now or focused or (hovered and enabled):
            ring = colours.accent if focused else "transparent"
            painter.setPen(QPen(QColor(ring), 2))
            painter.setBrush(QColor(colours.tint if now or hovered else "transparent"))
            painter.drawRoundedRect(area, 7, 7)
        disc = QRectF(area.left() + 10, area.center().y() - 13, 26, 26)
        painter.setPen(QPen(QColor(colours.accent if enabled else colours.border), 1.5))
        painter.setBrush(QColor(colours.accent if now else "transparent"))
        painter.drawEllipse(disc)
        painter.setPen(QColor(colours.on_accent if now else colours.text))
        if not enabled:
            painter.setPen(QColor(colours.muted))
        painter.drawText(disc, Qt.AlignmentFlag.AlignCenter, str(index.row() + 1))
        self._words(painter, area.adjusted(48, 5, -4, -5), index, now, enabled)
        painter.restore()

    @staticmethod
    def _words(
        painter: QPainter,
        area: QRectF,
        index: QModelIndex | QPersistentModelIndex,
        now: bool,
        enabled: bool,
    ) -> None:
        colours = theme.current()
        font = QFont(painter.font())
        font.setWeight(QFont.Weight.DemiBold if now else QFont.Weight.Normal)
        painter.setFont(font)
        painter.setPen(QColor(colours.text if enabled else colours.muted))
        top = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop
        painter.drawText(area, top, str(index.data(TITLE_ROLE)))
        font.setWeight(QFont.Weight.Normal)
        font.setPointSizeF(font.pointSizeF() * 0.88)
        painter.setFont(font)
        painter.setPen(QColor(colours.muted))
        bottom = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignBottom
        painter.drawText(area, bottom, str(index.data(STATE_ROLE)))


class StepList(QListWidget):
    """One row a step; `picked` is sent for a row that may be opened."""

    picked = Signal(int)

    def __init__(self, titles: list[str]) -> None:
        super().__init__()
        self.setObjectName("steps")
        self.setAccessibleName(self.tr("Steps"))
        self.setItemDelegate(_StepDelegate(self))
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMouseTracking(True)
        for number, title in enumerate(titles, start=1):
            item = QListWidgetItem(f"{number} {title}", self)
            item.setData(TITLE_ROLE, title)
        self.itemActivated.connect(lambda item: self.picked.emit(self.row(item)))
        self.itemClicked.connect(lambda item: self.picked.emit(self.row(item)))

    def show_state(self, row: int, state: str, *, now: bool, reachable: bool) -> None:
        """Say how one step stands."""
        item = self.item(row)
        item.setData(STATE_ROLE, state)
        item.setData(NOW_ROLE, now)
        if now:
            self.setCurrentRow(row)
        item.setData(
            Qt.ItemDataRole.AccessibleTextRole,
            f"{row + 1} {item.data(TITLE_ROLE)}: {state}",
        )
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        item.setFlags(flags if reachable else Qt.ItemFlag.NoItemFlags)

    def state(self, row: int) -> str:
        """The state shown for a step."""
        return str(self.item(row).data(STATE_ROLE))
