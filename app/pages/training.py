"""Page 4: the one irreversible click, and the training that it starts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from PySide6.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QWidget

from app.flow import State
from app.pages.base import Page
from app.widgets.meaning import BudgetFacts
from app.widgets.message import Message
from app.widgets.text import Card, label
from app.words import count, duration, epsilon, probability
from core.errors import Unfinishable

if TYPE_CHECKING:
    from core.events import Progress, Watcher
    from core.pipeline import BudgetPreview, FineTuned, Plan, Spending

PERMILLE = 1000
EPSILON_FIGURE = "epsilon"


class TrainingPage(Page):
    key = "training"

    def __init__(self) -> None:
        super().__init__(
            self.tr("Training"),
            self.tr(
                "Sfumato now learns from your images. Noise is added to all that it "
                "takes from them, so that it stays within the budget you authorise "
                "here."
            ),
        )
        self._training = False
        self._pace: tuple[str, float, int] | None = None
        self.column.addWidget(self._review_card())
        self.column.addWidget(self._gauge_card())
        self.column.addStretch(1)

    def enter(self, state: State) -> None:
        super().enter(state)
        unread = state.preview is None and not state.committed
        if self.job is None and (state.plan is None or unread):
            self._prepare()
        self._show_phase()

    def ready(self) -> str | None:
        if self._training:
            return self.tr("Wait until training has finished, or pause it.")
        if self.job is not None:
            return self.tr("The plan is being made …")
        if self.state is not None and self.state.lost:
            assert self.state.project is not None
            return self.tr(
                "Start a new project; ε = {epsilon} stays charged on these images."
            ).format(epsilon=epsilon(self._spent()))
        if self.state is None or self.state.fine_tuned is None:
            paused = self.state is not None and self.state.committed
            if paused:
                return self.tr("Training is paused: resume it to go on.")
            return self.tr("Authorise the budget and start training first.")
        return None

    def summary(self) -> str:
        if self.state is None or self.state.fine_tuned is None:
            return ""
        if not self.state.trained_network:
            return self.tr("statistics measured")
        return self.tr("trained {steps}").format(
            steps=count(self.state.fine_tuned.updates, "step")
        )

    def default_focus(self) -> QWidget | None:
        return self.pause if self.pause.isVisibleTo(self) else None

    @property
    def running(self) -> bool:
        """Whether training runs now; closing the window then asks first."""
        return self._training

    def start(self) -> None:
        """Spend: train from the start, or go on after a pause."""
        state = self.state
        assert state is not None and state.workspace is not None
        assert state.plan is not None and state.dataset is not None
        state.save()
        engine, space = state.engine, state.workspace
        plan, dataset = state.plan, state.dataset

        def train(watcher: Watcher) -> FineTuned | Unfinishable:
            try:
                return engine.fine_tune(space, plan, dataset, watcher)
            except Unfinishable as verdict:
                return verdict

        job = self.run(self.tr("Training"), train, self._ended, panel=False)
        if job is None:
            return
        self._training = True
        self._pace = None
        self._activity.setText(self.tr("Getting ready …"))
        self._left.setText("")
        self._show_charged(
            0.0 if state.spending is None else state.spending.epsilon_charged
        )
        job.progressed.connect(self._show_progress)
        job.failed.connect(lambda _: self._count_spending())
        job.crashed.connect(lambda _: self._count_spending())
        self._show_phase()
        self.pause.setFocus()
        self.changed.emit()

    def stop(self) -> None:
        super().stop()
        if self._training:
            self.pause.setEnabled(False)
            self._activity.setText(self.tr("Pausing at the next safe point …"))

    def stopped(self) -> None:
        self._count_spending()

    def _free(self) -> None:
        self._training = False
        super()._free()

    def _review_card(self) -> Card:
        self._review = Card(self.tr("Before anything is spent"))
        self._sentence = label()
        self._terms = BudgetFacts()
        warning = Message()
        warning.warn(
            self.tr(
                "Starting cannot be undone. Privacy budget that was spent stays spent, "
                "even if you pause, stop, or throw the result away."
            )
        )
        self.authorise = QPushButton(self.tr("&Authorise and start"))
        self.authorise.setProperty("primary", True)
        self.authorise.clicked.connect(self.start)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.authorise)
        self._warnings = Message()
        for widget in (self._sentence, self._terms, self._warnings, warning):
            self._review.rows.addWidget(widget)
        self._review.rows.addLayout(row)
        return self._review

    def _gauge_card(self) -> Card:
        self._progress = Card(self.tr("Progress"))
        self._activity = label("", "figure")
        self._left = label("", "hint")
        self._steps = _bar(self.tr("Steps of training"), tall=False)
        self._charged = label("", "heading")
        self._gauge = _bar(self.tr("Privacy budget charged"), tall=True)
        self.pause = QPushButton(self.tr("Pa&use"))
        self.pause.clicked.connect(self.stop)
        self.resume = QPushButton(self.tr("Res&ume"))
        self.resume.setProperty("primary", True)
        self.resume.clicked.connect(self.start)
        self._pause_means = label(
            self.tr(
                "A pause keeps what was learned and what was charged. You can close "
                "the window, switch the computer off, and resume later from the same "
                "step at no extra cost."
            ),
            "hint",
        )
        row = QHBoxLayout()
        row.setSpacing(16)
        row.addWidget(self._pause_means, 1)
        row.addWidget(self.pause)
        row.addWidget(self.resume)
        rows = self._progress.rows
        for widget in (self._activity, self._steps, self._left):
            rows.addWidget(widget)
        rows.addSpacing(10)
        for widget in (self._charged, self._gauge):
            rows.addWidget(widget)
        rows.addSpacing(6)
        rows.addLayout(row)
        return self._progress

    def _prepare(self) -> None:
        """Make the plan and read the ledger; neither spends anything."""
        state = self.state
        assert state is not None and state.workspace is not None
        assert state.project is not None and state.dataset is not None
        state.save()
        engine, space = state.engine, state.workspace
        project, dataset = state.project, state.dataset

        preview, channels = state.preview, dataset.images.shape[3]

        def prepare(watcher: Watcher) -> tuple[Plan, Spending, BudgetPreview]:
            plan = engine.make_plan(space, project, dataset, watcher)
            told = preview or engine.preview(project, channels)
            return plan, engine.spending(space, plan, dataset), told

        self.run(self.tr("Making the plan"), prepare, self._planned)

    def _planned(self, made: tuple[Plan, Spending, BudgetPreview]) -> None:
        assert self.state is not None
        self.state.plan, self.state.spending, self.state.preview = made
        self._show_phase()

    def _count_spending(self) -> None:
        """Read the ledger again: it alone knows what a broken-off run has charged."""
        state = self.state
        assert state is not None and state.workspace is not None
        assert state.plan is not None and state.dataset is not None
        engine, space = state.engine, state.workspace
        plan, dataset = state.plan, state.dataset
        said = self.message.text

        def count_again(_: Watcher) -> Spending:
            return engine.spending(space, plan, dataset)

        self.run(self.tr("Reading the ledger"), count_again, self._counted, panel=False)
        if said:
            self.message.error(said)

    def _counted(self, spending: Spending) -> None:
        assert self.state is not None
        self.state.spending = spending
        self._show_phase()

    def _ended(self, outcome: FineTuned | Unfinishable) -> None:
        assert self.state is not None
        if isinstance(outcome, Unfinishable):
            self.state.lost = True
            self.refuse(str(outcome))
            self._count_spending()
            return
        self.state.fine_tuned = outcome
        self._show_phase()

    def _spent(self) -> float:
        """What this project has charged; what it may have, before that is known."""
        assert self.state is not None and self.state.project is not None
        spending = self.state.spending
        return spending.epsilon_charged if spending else self.state.project.epsilon

    def _show_phase(self) -> None:
        """Show review, running, paused or done: whichever the state says."""
        state = self.state
        assert state is not None and state.project is not None
        planned = state.plan is not None and state.spending is not None
        done = state.fine_tuned is not None
        paused = planned and state.committed and not done and not self._training
        started = done or paused or self._training
        self._review.setVisible(planned and not started)
        self._progress.setVisible(started)
        self.pause.setVisible(self._training)
        self.pause.setEnabled(self._training)
        self.resume.setVisible(paused and not state.lost)
        self._steps.setVisible(not state.lost)
        self._pause_means.setVisible(self._training or (paused and not state.lost))
        if planned and not started:
            self._show_review(state.plan, state.spending)
        if done:
            self._activity.setText(self.tr("Training is finished"))
            steps = count(state.fine_tuned.updates, "step")
            self._left.setText(
                self.tr("{steps} done").format(steps=steps)
                if state.fine_tuned.updates
                else self.tr("The statistics are measured; no network was trained.")
            )
            self._steps.setRange(0, PERMILLE)
            self._steps.setValue(PERMILLE)
            self._show_charged(state.fine_tuned.epsilon_charged)
        elif paused:
            after = self.tr("Paused after {steps}").format(
                steps=count(state.spending.steps_done, "step")
            )
            if state.lost:
                after = self.tr("This project cannot be finished")
            elif not state.plan.steps:
                after = self.tr("Paused")
            self._activity.setText(after)
            self._left.setText("")
            self._steps.setRange(0, max(1, state.plan.steps))
            self._steps.setValue(state.spending.steps_done)
            self._show_charged(state.spending.epsilon_charged)

    def _show_review(self, plan: Plan, spending: Spending) -> None:
        assert self.state is not None and self.state.project is not None
        budget, preview = plan.budget, self.state.preview
        patient = budget.unit.kind.value == "patient"
        self._sentence.setText(plan.sentence())
        meaning: tuple[tuple[str, str], ...] = ()
        if preview is not None:
            meaning = self._terms.meaning(preview, self.state.project)
            self._warnings.warn("\n".join(preview.warnings))
        spent = [
            self.tr("ε = {epsilon}").format(epsilon=epsilon(spending.before))
            if spending.before
            else self.tr("nothing")
        ]
        if spending.other_terms:
            spent.append(
                self.tr("and more that does not add up with this: {terms}").format(
                    terms="; ".join(spending.other_terms)
                )
            )
        self._terms.show_facts(
            (
                self.tr("You authorise"),
                self.tr("ε = {epsilon}, δ = {delta} for {unit}").format(
                    epsilon=epsilon(budget.epsilon),
                    delta=probability(budget.delta),
                    unit=self.tr("each patient") if patient else self.tr("each image"),
                ),
            ),
            *meaning,
            (self.tr("Spent on these images so far"), ", ".join(spent)),
            (
                self.tr("Spent after this training"),
                self.tr("ε = {epsilon}").format(epsilon=epsilon(spending.after)),
            ),
            (
                self.tr("Time on this computer"),
                duration(preview.forecast_seconds) if preview is not None else "",
            ),
        )

    def _show_progress(self, progress: Progress) -> None:
        if self.job is None or self.job.stopping:
            return
        total = max(progress.total, 1)
        self._steps.setRange(0, total)
        self._steps.setValue(progress.done)
        self._activity.setText(progress.activity)
        self._left.setText(
            self.tr("{done} of {total} · {left}").format(
                done=f"{progress.done:,}",
                total=f"{total:,}",
                left=self._guess(progress),
            )
        )
        charged = progress.figures.get(EPSILON_FIGURE)
        if charged is not None:
            self._show_charged(charged)

    def _guess(self, progress: Progress) -> str:
        now = time.monotonic()
        if self._pace is None or self._pace[0] != progress.activity:
            self._pace = progress.activity, now, progress.done
        _, since, first = self._pace
        if progress.done <= first:
            return self.tr("Measuring the pace …")
        left = (now - since) / (progress.done - first)
        left *= progress.total - progress.done
        return self.tr("{time} left").format(time=duration(left))

    def _show_charged(self, charged: float) -> None:
        assert self.state is not None and self.state.project is not None
        budget = self.state.project.epsilon
        text = self.tr("Privacy budget charged: ε = {charged} of {budget}").format(
            charged=epsilon(charged), budget=epsilon(budget)
        )
        self._charged.setText(text)
        self._gauge.setValue(min(PERMILLE, round(PERMILLE * charged / budget)))
        self._gauge.setAccessibleDescription(text)
        self._left.setVisible(bool(self._left.text()))


def _bar(name: str, *, tall: bool) -> QProgressBar:
    bar = QProgressBar()
    bar.setProperty("tall", tall)
    bar.setTextVisible(False)
    bar.setRange(0, PERMILLE)
    bar.setAccessibleName(name)
    return bar
