"""Page 5: making the synthetic images and looking at them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QPushButton,
    QWidget,
)

from app.flow import Files, State, list_images
from app.pages.base import Page
from app.widgets.gallery import Gallery
from app.widgets.number import NumberField
from app.widgets.text import Card, label
from app.words import count, size_on_disk

if TYPE_CHECKING:
    from core.events import Watcher
    from core.pipeline import Plan, SyntheticSet

BLOCK = 4096
"""A file takes whole blocks of the disk, however small it is."""


class SamplesPage(Page):
    key = "samples"

    def __init__(self) -> None:
        super().__init__(
            self.tr("Samples"),
            self.tr(
                "New images are drawn from what was learnt. Make as many as you like: "
                "drawing costs no further privacy budget."
            ),
        )
        self._files: Files | None = None
        self.column.addWidget(self._make_card())
        self.column.addWidget(self._gallery_card(), 1)
        # Takes the room while there is no gallery to take it.
        self.column.addStretch(0)

    def enter(self, state: State) -> None:
        super().enter(state)
        assert state.project is not None and state.dataset is not None
        if self.job is None:
            self.number.setValue(
                state.project.images_per_class
                or (state.plan.recipe.images_per_class if state.plan else 1)
            )
        self._add_up()
        self._show_files()
        self._drawn_how.setText(
            self.tr("Drawn by the trained network. Shown three times enlarged.")
            if state.trained_network
            else self.tr(
                "Drawn from noisy statistics, to train classifiers with: rough or "
                "blurred, and of tissue like noise to the eye. The next page tells "
                "what they teach. "
                "Shown three times enlarged."
            )
        )

    def ready(self) -> str | None:
        if self.job is not None:
            return self.tr("Wait until the images have been made.")
        if self.state is None or self.state.samples is None:
            return self.tr("Make the images first.")
        return None

    def summary(self) -> str:
        if self.state is None or self.state.samples is None:
            return ""
        samples = self.state.samples
        return count(samples.per_class * len(samples.class_names), "synthetic image")

    def default_focus(self) -> QWidget | None:
        return self.number

    def stopped(self) -> None:
        self.message.note(
            self.tr("Stopped. What was drawn is kept; start again to go on from there.")
        )
        before = None if self.state is None else self.state.samples
        if before is not None and self._drop_reopened():
            self.message.note(
                self.tr(
                    "The drawing was stopped before all images were made: press Make "
                    "images to go on. Or type {number} first, for as many as before."
                ).format(number=f"{before.per_class:,}")
            )

    def refuse(self, text: str) -> None:
        super().refuse(text)
        self._drop_reopened()

    def busy(self, working: bool) -> None:
        self.make.setEnabled(not working)
        self.number.setEnabled(not working)

    def start(self) -> None:
        """Draw the images, or go on with drawing after a stop."""
        state = self.state
        assert state is not None and state.workspace is not None
        assert state.project is not None and state.dataset is not None
        state.change(images_per_class=self.number.value())
        state.save()
        engine, space = state.engine, state.workspace
        project, dataset = state.project, state.dataset

        def draw(watcher: Watcher) -> tuple[Plan, SyntheticSet, Files]:
            # The same plan, but for the number of images.
            plan = engine.make_plan(space, project, dataset, watcher)
            samples = engine.synthesise(space, plan, watcher)
            return plan, samples, list_images(samples)

        self.run(self.tr("Drawing images"), draw, self._drawn)

    def _make_card(self) -> Card:
        card = Card()
        name = label(self.tr("N&umber of images of each class"), wrap=False)
        self.number = NumberField(
            self.tr("Number of images of each class"), 1, 10_000_000
        )
        self.number.valueChanged.connect(self._add_up)
        name.setBuddy(self.number)
        self._total = label("", "hint", wrap=False)
        self.make = QPushButton(self.tr("&Make images"))
        self.make.setProperty("primary", True)
        self.make.clicked.connect(self.start)
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(name)
        row.addWidget(self.number)
        row.addStretch(1)
        row.addWidget(self.make)
        card.rows.addLayout(row)
        card.rows.addWidget(self._total)
        return card

    def _gallery_card(self) -> Card:
        self._shown = Card(self.tr("Synthetic images"))
        name = label(self.tr("&Class"), wrap=False)
        self.filter = QComboBox()
        self.filter.setAccessibleName(self.tr("Class to show"))
        self.filter.setMinimumWidth(180)
        self.filter.currentIndexChanged.connect(self._apply_filter)
        name.setBuddy(self.filter)
        self.smooth = QCheckBox(self.tr("Smoo&th the enlarged pixels"))
        self.gallery = Gallery()
        self.smooth.toggled.connect(self.gallery.images.set_smooth)
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(name)
        row.addWidget(self.filter)
        row.addStretch(1)
        row.addWidget(self.smooth)
        self._shown.rows.addLayout(row)
        self._shown.rows.addWidget(self.gallery, 1)
        self._drawn_how = label("", "hint")
        self._shown.rows.addWidget(self._drawn_how)
        return self._shown

    def _add_up(self) -> None:
        if self.state is not None and self.state.dataset is not None:
            kinds = len(self.state.dataset.class_names)
            total = kinds * self.number.value()
            # Stored as PNG, an image is hardly ever larger than its pixels.
            pixels = math.prod(self.state.dataset.images.shape[1:])
            each = math.ceil(pixels / BLOCK) * BLOCK
            self._total.setText(
                self.tr("{total} in {classes}, about {size} on the disk").format(
                    total=count(total, "image"),
                    classes=count(kinds, "class", "classes"),
                    size=size_on_disk(total * each),
                )
            )

    def _drawn(self, made: tuple[Plan, SyntheticSet, Files]) -> None:
        assert self.state is not None
        self.state.plan, self.state.samples, self.state.files = made
        # Figures and a release of other images say nothing of these.
        self.state.utility = None
        self.state.release = None
        self._show_files()

    def _drop_reopened(self) -> bool:
        """Forget the finished set if the engine opened it to draw another number."""
        state = self.state
        assert state is not None and state.workspace is not None
        if state.samples is None or state.engine.finished(state.workspace, "samples"):
            return False
        state.samples, state.files = None, ()
        state.utility = state.release = None
        self._show_files()
        return True

    def _show_files(self) -> None:
        assert self.state is not None
        if self.state.files is self._files:
            return
        self._files = self.state.files
        self._shown.setVisible(bool(self._files))
        self.filter.blockSignals(True)
        self.filter.clear()
        self.filter.addItem(self.tr("All classes"))
        self.filter.addItems([name for name, _ in self._files])
        self.filter.blockSignals(False)
        self._apply_filter()

    def _apply_filter(self) -> None:
        chosen = self.filter.currentIndex() - 1
        files = self._files or ()
        shown = files if chosen < 0 else (files[chosen],)
        if self.state is not None and self.state.project is not None:
            self.gallery.resize_cells(self.state.project.resolution)
        self.gallery.images.show_classes(shown)
        self.gallery.scrollToTop()
