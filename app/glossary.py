"""What the words mean, for readers who meet them for the first time."""

from __future__ import annotations

from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)


class GlossaryDialog(QDialog):
    """A page of plain explanations."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("What the words mean"))
        self.resize(620, 520)
        words = QTextBrowser()
        words.setAccessibleName(self.windowTitle())
        words.setHtml(
            "".join(
                f"<p><b>{word}</b><br>{meaning}</p>" for word, meaning in self._words()
            )
        )
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.addWidget(words)
        column.addWidget(buttons)

    def _words(self) -> tuple[tuple[str, str], ...]:
        return (
            (
                self.tr("Differential privacy"),
                self.tr(
                    "A property of a calculation: its result would be almost as "
                    "likely if the data of any one image or patient had not been "
                    "there. It holds against readers with any other knowledge."
                ),
            ),
            (
                self.tr("ε (epsilon), the privacy budget"),
                self.tr(
                    "How far “almost” may go. It is an upper bound: at ε = 1 no "
                    "outcome becomes more than about 2.7 times as likely, at ε = 3 "
                    "about 20 times, at ε = 8 about 3,000 times, at ε = 10 about "
                    "22,000 times."
                ),
            ),
            (
                self.tr("δ (delta)"),
                self.tr(
                    "A very small chance that the bound of ε does not hold. It must be "
                    "below one over the number of images or patients."
                ),
            ),
            (
                self.tr("Unit of protection"),
                self.tr(
                    "Whose presence is hidden: one image, or one patient with all "
                    "their images. Protecting images does not protect a patient with "
                    "several."
                ),
            ),
            (
                self.tr("Checkpoint"),
                self.tr("A network trained on public images, from which yours starts."),
            ),
            (
                self.tr("Noise multiplier"),
                self.tr(
                    "How strong the random noise is that blurs each step of training. "
                    "Sfumato computes it from your budget."
                ),
            ),
            (
                self.tr("Ledger"),
                self.tr(
                    "The record of all budget ever charged to a set of images, "
                    "broken-off runs included. What was charged is never given back."
                ),
            ),
            (
                self.tr("Internal"),
                self.tr(
                    "Computed on your private images outside the budget. Sfumato "
                    "shows it to you and leaves it out of the release."
                ),
            ),
        )
