"""A scrolling gallery of small images by class; a thumbnail is read when it is seen."""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain, zip_longest
from pathlib import Path

from PySide6.QtCore import (
    QAbstractListModel,
    QModelIndex,
    QPersistentModelIndex,
    QSize,
    Qt,
)
from PySide6.QtGui import QImageReader, QPixmap
from PySide6.QtWidgets import QAbstractItemView, QListView

from app.flow import Files

MAGNIFICATION = 3
KEPT_THUMBNAILS = 2000
LARGEST_SIDE = 192


class ImagesModel(QAbstractListModel):
    """Files of images with the name of their class.

    Keeps the last few thumbnails only, however many images there are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._files: list[tuple[Path, str]] = []
        self._thumbnails: OrderedDict[int, QPixmap] = OrderedDict()
        self._smooth = False

    def show_classes(self, classes: Files) -> None:
        """Show images in turn from each class, so that the top shows them all."""
        turns = zip_longest(
            *([(file, name) for file in files] for name, files in classes)
        )
        self.beginResetModel()
        self._files = [entry for entry in chain.from_iterable(turns) if entry]
        self._thumbnails.clear()
        self.endResetModel()

    def set_smooth(self, smooth: bool) -> None:
        """Blend the magnified pixels, or show them as they are."""
        self._smooth = smooth
        self._thumbnails.clear()
        if self._files:
            last = self.index(len(self._files) - 1)
            self.dataChanged.emit(self.index(0), last)

    def rowCount(
        self,
        parent: QModelIndex | QPersistentModelIndex = QModelIndex(),  # noqa: B008
    ) -> int:
        return 0 if parent.isValid() else len(self._files)

    def data(
        self,
        index: QModelIndex | QPersistentModelIndex,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> object:
        if not index.isValid():
            return None
        file, name = self._files[index.row()]
        if role == Qt.ItemDataRole.DecorationRole:
            return self._thumbnail(index.row(), file)
        if role == Qt.ItemDataRole.DisplayRole:
            return name
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return self.tr("Synthetic image {file}, class {name}").format(
                file=file.stem, name=name
            )
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{name} · {file.name}"
        return None

    def _thumbnail(self, row: int, file: Path) -> QPixmap:
        if row not in self._thumbnails:
            self._thumbnails[row] = self._read(file)
            if len(self._thumbnails) > KEPT_THUMBNAILS:
                self._thumbnails.popitem(last=False)
        return self._thumbnails[row]

    def _read(self, file: Path) -> QPixmap:
        image = QImageReader(str(file)).read()
        if image.isNull():
            return QPixmap()
        size = image.size() * MAGNIFICATION
        size = size.boundedTo(QSize(LARGEST_SIDE, LARGEST_SIDE))
        how = Qt.TransformationMode.FastTransformation
        if self._smooth:
            how = Qt.TransformationMode.SmoothTransformation
        keep = Qt.AspectRatioMode.KeepAspectRatio
        return QPixmap.fromImage(image.scaled(size, keep, how))


class Gallery(QListView):
    """Images in rows that flow with the width."""

    def __init__(self) -> None:
        super().__init__()
        self.images = ImagesModel()
        self.setModel(self.images)
        self.setAccessibleName(self.tr("Synthetic images"))
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setMovement(QListView.Movement.Static)
        self.setUniformItemSizes(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setMinimumHeight(300)
        self.resize_cells(32)

    def resize_cells(self, side: int) -> None:
        """Make room for images of `side` pixels."""
        shown = min(side * MAGNIFICATION, LARGEST_SIDE)
        self.setIconSize(QSize(shown, shown))
        self.setGridSize(QSize(shown + 22, shown + 34))
