"""Page 2: the public network that training starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from app.flow import State
from app.pages.base import Page
from app.widgets.choice import Choice
from app.widgets.message import Message
from app.widgets.text import Card, Facts, dress, label

if TYPE_CHECKING:
    from core.checkpoints.catalogue import CheckpointCard

HASH_CHARACTERS = 12
LONGEST_REASON = 300


class CheckpointPage(Page):
    key = "checkpoint"

    def __init__(self) -> None:
        super().__init__(
            self.tr("Checkpoint"),
            self.tr(
                "A checkpoint is a network that has already learned to draw from "
                "public images. Yours only has to teach it the rest, which costs less "
                "privacy."
            ),
        )
        self._cards: tuple[CheckpointCard, ...] = ()
        self._unfit: dict[str, str] = {}
        self._reasons: list[QLabel] = []
        self._frames: list[Card] = []
        self.buttons: list[QRadioButton] = []
        self._group = QButtonGroup(self)
        self._group.buttonClicked.connect(lambda _: self._choose())
        self._not_needed = Message()
        self.column.addWidget(self._not_needed)
        self._list = QVBoxLayout()
        self._list.setSpacing(10)
        self.column.addLayout(self._list)
        self._more = label(
            self.tr(
                "Other public networks are brought in from disk by whoever looks after "
                "this computer: sfumato import-checkpoint."
            ),
            "hint",
        )
        self.column.addWidget(self._more)
        self._asked = self._question()
        self.column.addWidget(self._asked)
        self.column.addStretch(1)

    def enter(self, state: State) -> None:
        super().enter(state)
        assert state.project is not None
        self.answer.choose(state.project.overlap_answer)
        # A plan of an older version may have been made without an answer.
        unanswered = not state.project.overlap_answer
        self.answer.setEnabled(unanswered or not state.committed)
        self.reason.setText(state.project.overlap_reason)
        if state.cards != self._cards:
            self._show_cards(state.cards)
        self._unfit = state.engine.unfit_checkpoints(state.project, state.cards)
        self._show_chosen()
        self._explain()
        for frame in (*self._frames, self._more, self._asked):
            frame.setVisible(state.starts_from_checkpoint)
        self._not_needed.note(
            ""
            if state.starts_from_checkpoint
            else self.tr(
                "None is needed: the kind of images that is chosen uses no network, or "
                "trains one from nothing. Go on. Should you choose another kind on the "
                "next page, this one will ask which network it starts from."
            )
        )

    def ready(self) -> str | None:
        project = None if self.state is None else self.state.project
        if self.state is None or project is None:
            return self.tr("Choose images first.")
        if not self.state.starts_from_checkpoint:
            return None
        names = [card.name for card in self.state.cards]
        # Where none fits, another kind must be chosen, on the next page.
        fits = set(names) - self._unfit.keys() or set(names)
        if project.checkpoint not in (names if self.state.committed else fits):
            return self.tr("Choose a checkpoint that can be used.")
        if not project.overlap_answer and not self.state.committed:
            return self.tr("Answer the question about these patients.")
        # After "yes" another kind, on the next page, may need no checkpoint.
        return None

    def done(self) -> bool:
        return super().done() and not self._may_hold_patients()

    def _may_hold_patients(self) -> bool:
        state = self.state
        assert state is not None and state.project is not None
        return state.starts_from_checkpoint and state.project.overlap_answer == "yes"

    def summary(self) -> str:
        if self.state is None or self.state.project is None:
            return ""
        if not self.state.starts_from_checkpoint:
            return self.tr("No checkpoint")
        name = self.state.project.checkpoint
        titles = [card.title for card in self.state.cards if card.name == name]
        return titles[0] if titles else name

    def default_focus(self) -> QWidget | None:
        return next((button for button in self.buttons if button.isChecked()), None)

    def _question(self) -> Card:
        self._question_text = self.tr(
            "Could this checkpoint have been trained on these patients?"
        )
        card = Card(self._question_text)
        card.rows.addWidget(
            label(
                self.tr(
                    "The privacy bound counts what training here reveals. It cannot "
                    "count what a checkpoint already knew. Your answer is recorded."
                ),
                "hint",
            )
        )
        self.answer = Choice(
            self._question_text,
            (
                ("no", self.tr("N&o, none of them can be in its training data"), ""),
                ("unsure", self.tr("I am not &sure"), ""),
                ("yes", self.tr("&Yes, possibly"), ""),
            ),
        )
        self.answer.chosen.connect(self._answered)
        self._answer_note = Message()
        card.rows.addWidget(self.answer)
        card.rows.addWidget(self._reason_field())
        card.rows.addWidget(self._answer_note)
        return card

    def _reason_field(self) -> QWidget:
        field = QWidget()
        row = QHBoxLayout(field)
        row.setContentsMargins(0, 0, 0, 0)
        told = label(self.tr("How do you &know?"), wrap=False)
        self.reason = QLineEdit()
        self.reason.setMaxLength(LONGEST_REASON)
        self.reason.setPlaceholderText(
            self.tr("printed in the report, such as: trained before they were seen")
        )
        self.reason.setAccessibleName(self.tr("How you know"))
        self.reason.textEdited.connect(self._reasoned)
        told.setBuddy(self.reason)
        row.addWidget(told)
        row.addWidget(self.reason, 1)
        return field

    def _show_cards(self, cards: tuple[CheckpointCard, ...]) -> None:
        self._cards = cards
        if not cards:
            self.message.error(
                self.tr("No checkpoint is installed: install Sfumato again.")
            )
        for frame in self._frames:
            frame.hide()
            frame.deleteLater()
        self._frames, self.buttons, self._reasons = [], [], []
        for card in cards:
            frame, button = self._frame(card)
            self._group.addButton(button)
            self._frames.append(frame)
            self.buttons.append(button)
            self._list.addWidget(frame)

    def _frame(self, card: CheckpointCard) -> tuple[Card, QRadioButton]:
        frame = Card()
        button = QRadioButton(card.title)
        frame.rows.addWidget(button)
        told = label(card.description)
        facts = Facts()
        facts.show_facts(
            (self.tr("Trained on"), card.pretraining_data),
            (self.tr("Licence of that data"), card.pretraining_licences),
            (self.tr("Licence"), card.licence),
            (self.tr("Published at"), card.source),
            (
                self.tr("Size"),
                self.tr(
                    "{parameters:.1f} million parameters, {side} × {side} pixels"
                ).format(parameters=card.parameters / 1e6, side=card.resolution),
            ),
            (self.tr("Fingerprint"), f"{card.sha256[:HASH_CHARACTERS]} (SHA-256)"),
            (self.tr("When imported"), self._answered_before(card)),
        )
        reason = label("", "strong")
        self._reasons.append(reason)
        for widget in (reason, told, facts):
            widget.setContentsMargins(33, 0, 0, 0)
            frame.rows.addWidget(widget)
        return frame, button

    def _answered_before(self, card: CheckpointCard) -> str:
        """What was said when it was imported: not of these patients, perhaps."""
        words = {
            "no": self.tr("could not hold the patients of then"),
            "unsure": self.tr("not known whether it holds the patients of then"),
            "yes": self.tr("may hold the patients of then"),
        }
        reason = f" ({card.overlap_reason})" if card.overlap_reason else ""
        return words[card.overlap] + reason if card.overlap else ""

    def _show_chosen(self) -> None:
        assert self.state is not None and self.state.project is not None
        for card, frame, button, reason in zip(
            self._cards, self._frames, self.buttons, self._reasons, strict=True
        ):
            chosen = card.name == self.state.project.checkpoint
            unfit = self._unfit.get(card.name, "")
            button.setChecked(chosen)
            button.setEnabled(not self.state.committed and not unfit)
            button.setAccessibleDescription(f"{unfit} {card.description}".strip())
            reason.setText(unfit)
            reason.setVisible(bool(unfit))
            dress(frame, chosen=chosen)

    def _chosen(self) -> CheckpointCard | None:
        for card, button in zip(self._cards, self.buttons, strict=True):
            if button.isChecked():
                return card
        return None

    def _choose(self) -> None:
        card = self._chosen()
        assert self.state is not None and self.state.project is not None
        if card is None or card.name == self.state.project.checkpoint:
            return
        # An answer about one checkpoint says nothing of another.
        self.answer.choose("")
        self.reason.clear()
        self.state.change(checkpoint=card.name, overlap_answer="", overlap_reason="")
        self._show_chosen()
        self._explain()
        self.changed.emit()

    def _answered(self, answer: str) -> None:
        assert self.state is not None
        self.state.change(overlap_answer=answer)
        self._explain()
        self.changed.emit()

    def _reasoned(self, words: str) -> None:
        assert self.state is not None
        self.state.change(overlap_reason=words.strip())

    def _explain(self) -> None:
        if self.answer.value == "yes":
            self._answer_note.error(
                self.tr(
                    "Then the bound would not hold for the patients it has already "
                    "seen. Choose another checkpoint or, on the next page, a kind of "
                    "images that uses none."
                )
            )
        elif self.answer.value == "unsure":
            self._answer_note.warn(
                self.tr(
                    "You can go on. The audit report will say that it is not known "
                    "whether the checkpoint has seen these patients."
                )
            )
        else:
            self._answer_note.clear()
