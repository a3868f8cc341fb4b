"""Which kind of images is made: the recipe, by its title."""

from __future__ import annotations

from collections import Counter

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import QComboBox

from app.widgets.text import Card, label
from app.words import count


class KindCard(Card):
    """A list of kinds; those that do not fit stay in it, locked, and say why.

    Signals:
        chosen: Another kind is chosen now.
    """

    chosen = Signal()

    def __init__(self) -> None:
        super().__init__()
        name = label(self.tr("&Kind of images (recipe)"), "heading", wrap=False)
        self.list = QComboBox()
        # Titles say what a kind needs: they must not decide how wide the window is.
        self.list.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.list.setMinimumContentsLength(30)
        self.list.setAccessibleName(self.tr("Kind of images"))
        self.list.currentIndexChanged.connect(lambda _: self.chosen.emit())
        name.setBuddy(self.list)
        self.hint = label("", "hint")
        for widget in (name, self.list, self.hint):
            self.rows.addWidget(widget)

    @property
    def value(self) -> str:
        """The name of the recipe that is chosen."""
        return str(self.list.currentData())

    def choose(self, name: str) -> None:
        """Choose a kind by the name of its recipe."""
        self.list.setCurrentIndex(self.list.findData(name))

    def offers(self, name: str) -> bool:
        """Whether a recipe of this name can be chosen."""
        row = self.list.findData(name)
        return row >= 0 and self._model().item(row).isEnabled()

    def show_kinds(
        self, titles: dict[str, str], unfit: dict[str, str], chosen: str
    ) -> None:
        """List the kinds; one of the custodian's own, named in a file, as it is.

        Args:
            unfit: Name → why it cannot be used here.
        """
        self.list.blockSignals(True)
        self.list.clear()
        reasons: Counter[str] = Counter()
        for name, title in (titles | {chosen: titles.get(chosen, chosen)}).items():
            self.list.addItem(title, name)
            if name not in unfit or name == chosen:
                continue
            reasons[unfit[name]] += 1
            item = self._model().item(self.list.count() - 1)
            item.setEnabled(False)
            item.setToolTip(unfit[name])
            item.setData(unfit[name], Qt.ItemDataRole.AccessibleDescriptionRole)
        self.choose(chosen)
        self.list.blockSignals(False)
        self._explain(reasons)

    def _explain(self, reasons: Counter[str]) -> None:
        """Say below the list why kinds are locked, as not everyone points at them."""
        told = [
            self.tr("{kinds} locked: {reason}").format(
                kinds=count(number, "kind"), reason=reason
            )
            for reason, number in reasons.items()
        ]
        self.hint.setText("\n".join(told))
        self.hint.setVisible(bool(told))
        self.list.setAccessibleDescription(self.hint.text())

    def _model(self) -> QStandardItemModel:
        model = self.list.model()
        assert isinstance(model, QStandardItemModel)
        return model
