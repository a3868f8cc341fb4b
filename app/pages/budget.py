"""Page 3: how much privacy to spend, with a preview of what it buys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)

from app.flow import UNITS, State
from app.jobs import Latest
from app.pages.base import Page
from app.widgets.curve import EpsilonCurve
from app.widgets.epsilon import EpsilonField
from app.widgets.kind import KindCard
from app.widgets.meaning import BudgetFacts
from app.widgets.message import Message, describe_field
from app.widgets.number import NumberField
from app.widgets.text import Card, label
from app.words import count, duration, epsilon, probability, read_number

if TYPE_CHECKING:
    from core.events import Watcher
    from core.pipeline import BudgetPreview

HIGH_EPSILON = 8.0
LARGEST = 10_000_000


class BudgetPage(Page):
    key = "budget"

    def __init__(self) -> None:
        super().__init__(
            self.tr("Budget"),
            self.tr(
                "ε (epsilon) is an upper bound on how much the release can reveal "
                "about one image or patient. Smaller protects more; larger gives "
                "better images."
            ),
        )
        self._previews = Latest(self)
        self._previews.answered.connect(self._show_preview)
        self._previews.failed.connect(self._refuse)
        self._previews.crashed.connect(self._preview_crashed)
        self._refused = ""
        self._trains = True
        self.column.addWidget(self._epsilon_card())
        self.kind = KindCard()
        self.kind.chosen.connect(self._edited)
        self.recipe = self.kind.list
        self.column.addWidget(self.kind)
        self.column.addWidget(self._preview_card())
        self.column.addWidget(self._details_card())
        self.column.addStretch(1)

    def enter(self, state: State) -> None:
        super().enter(state)
        project = state.project
        assert project is not None and state.findings is not None
        unfit = state.engine.unfit_recipes(project, state.cards)
        self.kind.show_kinds(state.engine.recipes(), unfit, project.recipe)
        fields = (self.recipe, self.delta, self.batch, self.steps, self.unit)
        for field in fields:
            field.blockSignals(True)
        self.epsilon.set_value(project.epsilon)
        self.delta.setText(probability(project.delta))
        self.batch.setValue(project.batch_size or 0)
        self.steps.setValue(project.steps or 0)
        self.unit.setCurrentIndex(UNITS.index(project.unit))
        for field in fields:
            field.blockSignals(False)
            field.setEnabled(not state.committed)
        self._offer_training(trains=True)
        self.epsilon.setEnabled(not state.committed)
        self.unit.setEnabled(state.protects_patients and not state.committed)
        if state.committed:
            self.message.note(
                self.tr("Training has started with this budget, so it is fixed.")
            )
        if state.preview is None:
            self._ask()
        else:
            self._show_preview(state.preview)

    def ready(self) -> str | None:
        if self.state is None or self.state.project is None:
            return self.tr("Choose images first.")
        if problems := self._problems():
            return next(iter(problems.values()))
        if self.state.project.declared_count is None:
            return self.tr("Declare how many there are on the Dataset page first.")
        if missing := self._missing_of_checkpoint():
            return missing
        if self._refused:
            return self._refused
        if self.state.preview is None and self.state.plan is None:
            return self.tr("Working out what this budget buys …")
        return None

    def _missing_of_checkpoint(self) -> str:
        """What the page before has to be told first; empty when it is nothing."""
        assert self.state is not None and self.state.project is not None
        project = self.state.project
        if not self.state.starts_from_checkpoint:
            return ""
        if project.checkpoint not in [card.name for card in self.state.cards]:
            return self.tr("This kind uses a public network: go back and choose one.")
        if not project.overlap_answer and not self.state.committed:
            return self.tr(
                "This kind uses a public network: go back and answer whether it could "
                "have seen these patients."
            )
        if project.overlap_answer == "yes":
            return self.tr(
                "A checkpoint that may hold these patients cannot be used: go back and "
                "choose another, or choose a kind of images that uses none."
            )
        return ""

    def summary(self) -> str:
        if self.state is None or self.state.project is None:
            return ""
        project = self.state.project
        return f"ε = {epsilon(project.epsilon)}, δ = {probability(project.delta)}"

    def default_focus(self) -> QWidget | None:
        return self.epsilon.spin

    def _epsilon_card(self) -> Card:
        card = Card(self.tr("Privacy budget ε"))
        self.epsilon = EpsilonField()
        self.epsilon.changed.connect(self._edited)
        self._epsilon_note = label("", "hint")
        card.rows.addWidget(self.epsilon)
        card.rows.addWidget(self._epsilon_note)
        return card

    def _preview_card(self) -> Card:
        card = Card(self.tr("What this budget means"))
        self._sentence = label()
        self._working = label("", "hint")
        self._warnings = Message()
        self.better = QPushButton(self.tr("Use th&is kind"))
        self.better.clicked.connect(self._take_better)
        self.better.hide()
        advice = QHBoxLayout()
        advice.addWidget(self.better)
        advice.addStretch(1)
        self._facts = BudgetFacts()
        self.curve = EpsilonCurve()
        for widget in (self._working, self._sentence, self._warnings):
            card.rows.addWidget(widget)
        card.rows.addLayout(advice)
        for widget in (self._facts, self.curve):
            card.rows.addWidget(widget)
        return card

    def _details_card(self) -> Card:
        card = Card(self.tr("Details"))
        grid = QGridLayout()
        grid.setHorizontalSpacing(14)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(2, 1)
        self.delta = QLineEdit()
        self.unit = QComboBox()
        self.unit.addItems([self.tr("each image"), self.tr("each patient")])
        recommended = self.tr("recommended")
        self.batch = NumberField("", 0, LARGEST, recommended)
        self.steps = NumberField("", 0, LARGEST, recommended)
        self._delta_note = label("", "hint")
        self._batch_note = label("", "hint")
        self._steps_note = label("", "hint")
        self._delta_hint = self.tr("The chance that the bound does not hold.")
        self._batch_hint = self.tr("How many are drawn on average for one step.")
        unit_note = label(self.tr("The same choice as on the first page."), "hint")
        self._steps_hint = self.tr(
            "More steps take longer and need more noise in each."
        )
        rows: tuple[tuple[str, QWidget, QLabel], ...] = (
            (self.tr("&Delta δ"), self.delta, self._delta_note),
            (self.tr("&Unit of protection"), self.unit, unit_note),
            (self.tr("Number per step (ba&tch)"), self.batch, self._batch_note),
            (self.tr("&Steps of training"), self.steps, self._steps_note),
        )
        for row, (text, field, note) in enumerate(rows):
            name = label(text, wrap=False)
            name.setBuddy(field)
            field.setAccessibleName(text.replace("&", ""))
            grid.addWidget(name, row, 0)
            field.setFixedWidth(170)
            grid.addWidget(field, row, 1)
            grid.addWidget(note, row, 2)
        card.rows.addLayout(grid)
        self.delta.textChanged.connect(self._edited)
        self.unit.currentIndexChanged.connect(self._unit_edited)
        self.batch.valueChanged.connect(self._edited)
        self.steps.valueChanged.connect(self._edited)
        return card

    def _problems(self) -> dict[QWidget, str]:
        """What is wrong with a field, in a sentence, for each field that is wrong."""
        assert self.state is not None and self.state.project is not None
        number = self.state.project.declared_count or 1
        problems: dict[QWidget, str] = {}
        if self.epsilon.value <= 0:
            problems[self.epsilon.spin] = self.tr(
                "ε must be above 0: type a value such as 3."
            )
        delta = read_number(self.delta.text())
        if delta is None or delta <= 0:
            problems[self.delta] = self.tr("Type a number above 0, such as 1e-5.")
        elif delta >= 1 / number:
            problems[self.delta] = self.tr(
                "δ must be below 1 / {number}: type a smaller one."
            ).format(number=f"{number:,}")
        if self.batch.value() >= number:
            problems[self.batch] = self.tr(
                "The batch must be below {number}: type a smaller one."
            ).format(number=f"{number:,}")
        return problems

    def _edited(self) -> None:
        assert self.state is not None and self.state.project is not None
        if not self._problems():
            kept = self.state.project.delta
            # What is shown is rounded: it counts once it says something else.
            shown = self.delta.text() == probability(kept)
            self.state.change(
                recipe=self.kind.value,
                epsilon=self.epsilon.value,
                delta=kept if shown else read_number(self.delta.text()),
                batch_size=self.batch.value() or None,
                steps=self.steps.value() or None,
            )
        self._ask()

    def _unit_edited(self, index: int) -> None:
        assert self.state is not None and self.state.findings is not None
        self.state.unit_picked = True
        self.state.change(
            unit=UNITS[index],
            declared_count=None,  # As many images are not as many patients.
            max_images_per_unit=1,
        )
        self._edited()

    def _ask(self) -> None:
        """Drop the preview on show, and ask for one of the values as they are."""
        assert self.state is not None and self.state.project is not None
        if self._refused:
            self._refused = ""
            self.message.clear()
        self.better.hide()
        self._explain_fields()
        if self._problems():
            self._previews.forget()
            self._show_outdated()
            self.changed.emit()
            return
        self._working.setText(
            self.tr("Working it out … What is shown below is of the values before.")
            if self._sentence.text()
            else self.tr("Working it out …")
        )
        self._working.show()
        engine, project = self.state.engine, self.state.project
        channels = self.state.dataset.images.shape[3] if self.state.dataset else 3

        def preview(_: Watcher) -> BudgetPreview:
            self.curve.prepare()
            return engine.preview(project, channels)

        self._previews.ask(preview)
        self.changed.emit()

    def _show_preview(self, preview: BudgetPreview) -> None:
        assert self.state is not None and self.state.project is not None
        self.state.preview = preview
        self._refused = ""
        self._working.hide()
        self._sentence.setText(preview.sentence)
        offered = self.kind.offers(preview.better_kind)
        self.better.setVisible(offered and not self.state.committed)
        self._warnings.warn("\n".join(preview.warnings))
        drawn = self.tr("{batch} of {number}, drawn at random").format(
            batch=f"{preview.expected_batch:,.0f}",
            number=f"{self.state.project.declared_count or 0:,}",
        )
        noise = f"{preview.noise_multiplier:.3g}"
        steps = self.tr("{steps}, each on about {drawn}").format(
            steps=count(preview.steps, "step"), drawn=drawn
        )
        blurred = self.tr("{noise} – how strongly each step is blurred")
        if not preview.steps:
            steps = self.tr("none: pictures are drawn from noisy statistics")
            blurred = self.tr("{noise} – how strongly the statistics are blurred")
        self._offer_training(trains=preview.steps > 0)
        self._facts.show_facts(
            *self._facts.meaning(preview, self.state.project),
            (self.tr("Training"), steps),
            (self.tr("Noise multiplier"), blurred.format(noise=noise)),
            (self.tr("Time on this computer"), duration(preview.forecast_seconds)),
        )
        self.curve.setVisible(preview.steps > 0)
        if preview.steps:
            self.curve.show_curve(preview.epsilon_curve, self.state.project.epsilon)
        self.changed.emit()

    def _offer_training(self, *, trains: bool) -> None:
        """Let batch and steps be changed, where there is anything to train."""
        assert self.state is not None
        for field in (self.batch, self.steps):
            field.setEnabled(trains and not self.state.committed)
        self._trains = trains
        self._explain_fields()

    def _refuse(self, text: str) -> None:
        self._refused = text
        self._offer_training(trains=True)
        self._show_outdated()
        self.refuse(text)
        self.changed.emit()

    def _show_outdated(self) -> None:
        """Say that no figure on show belongs to the values as they are."""
        self._working.setText(self.tr("What is shown below is of the values before."))
        self._working.setVisible(bool(self._sentence.text()))

    def _take_better(self) -> None:
        """Change to the kind that is advised."""
        assert self.state is not None and self.state.preview is not None
        self.kind.choose(self.state.preview.better_kind)
        self.recipe.setFocus()

    def _preview_crashed(self, text: str) -> None:
        self._refuse(self.tr("The preview met a bug in Sfumato."))
        self.crashed.emit(text)

    def _explain_fields(self) -> None:
        """Under each field its hint, or what is wrong with it."""
        problems = self._problems()
        hints = {
            self.epsilon.spin: (self._epsilon_note, self._consequence()),
            self.delta: (self._delta_note, self._delta_hint),
            self.batch: (self._batch_note, self._batch_hint),
            self.steps: (self._steps_note, self._steps_hint),
        }
        if not self._trains:
            nothing = self.tr("Not needed: this kind trains no network.")
            hints[self.batch] = self._batch_note, nothing
            hints[self.steps] = self._steps_note, nothing
        for field, (note, hint) in hints.items():
            wrong = field in problems
            describe_field(field, note, problems.get(field, hint), wrong=wrong)

    def _consequence(self) -> str:
        value = self.epsilon.value
        if value <= 1:
            return self.tr("Strict: a strong bound. Images will be rough.")
        if value <= 4:
            return self.tr("Balanced: a moderate bound, commonly chosen for release.")
        if value <= HIGH_EPSILON:
            return self.tr("Permissive: a weaker bound for better images.")
        return self.tr(
            "Very permissive: a weak bound. Release only where other safeguards apply "
            "too, such as a contract with the recipient."
        )
