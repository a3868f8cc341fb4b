"""All stages in a row, as `sfumato run` and `sfumato demo` do them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core import pipeline
from core.data import delete_cache
from core.data.dataset import ImageDataset, Split
from core.data.options import finer_than_patients
from core.errors import UserError
from core.evaluation.recipe import load_classifier
from core.evaluation.report import CHANCE, REAL, SYNTHETIC, UtilityReport
from core.events import Watcher
from core.parallel import choose_hardware
from core.pipeline import Plan, Release, SyntheticSet
from core.recipe_files import check_wishes
from core.release import Verification, verify
from core.release.dataset import check_destination
from core.training.plan import plan_from_facts
from core.training.preview import notes_on
from core.training.wishes import read_budget, read_recipe
from core.workspace import Project, Workspace


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a whole run ended with."""

    release: Release
    plan: Plan
    utility: UtilityReport | None
    verification: Verification

    def to_json(self) -> dict:
        """The outcome as JSON types; the utility figures are internal."""
        return {
            "release": str(self.release.folder),
            "sentence": self.plan.sentence(),
            "epsilon": self.plan.budget.epsilon,
            "delta": self.plan.budget.delta,
            "unit": self.plan.budget.unit.kind.value,
            "verified": self.verification.holds,
            "internal": self.utility.to_json() if self.utility else None,
        }

    def text(self) -> str:
        """The outcome in a few lines."""
        holds = "holds" if self.verification.holds else "DOES NOT HOLD"
        return "\n".join(
            (
                "",
                f"Release:  {self.release.folder}",
                f"Promise:  {self.plan.sentence()}",
                f"Check:    every hash and the ε recomputed from σ, q and T {holds}",
                "",
                *self._usefulness(),
            )
        )

    def _usefulness(self) -> tuple[str, ...]:
        if self.utility is None:
            return ("Usefulness: not measured, no images are held out to test on.",)
        shares = [self.utility.value(name) for name in (SYNTHETIC, REAL, CHANCE)]
        synthetic, real, chance = (f"{100 * share:.1f} %" for share in shares)
        return (
            "Internal figures, computed on private images; do not publish:",
            f"  a classifier trained on the synthetic images only: {synthetic}",
            f"  the same classifier trained on the real images:    {real}",
            f"  always naming the commonest class (chance):        {chance}",
            f"  tested on {self.utility.tested_on}",
        )


def run_project(
    workspace: Workspace,
    project: Project,
    release: Path,
    watcher: Watcher,
    *,
    unit_said: bool = True,
    overlap_said: bool = True,
) -> Outcome:
    """Do every stage that is not done yet.

    Args:
        unit_said: Whether anybody said whom to protect, or the project's unit is what
            it is when nobody does.
        overlap_said: Whether the answer on the network was given about this folder, or
            holds only where the images are those that were planned for.

    Raises:
        UserError: before anything is spent, when the wishes do not fit together.
    """
    if not project.source:
        raise UserError("Name the folder of images with --source.")
    workspace.folder("release")  # The usual destination lies in it.
    check_destination(release.expanduser())
    # Cheap checks first: a mistake must not replace good wishes, or cost a long read.
    read_budget(project)
    read_recipe(project)
    choose_hardware(project.device)
    pipeline.declarations(project)
    dataset = pipeline.load_dataset(workspace, project, watcher)
    if not unit_said:
        _refuse_unsaid_unit(dataset)
    # PRIVACY: an answer about other people says nothing of these.
    if not overlap_said and not pipeline.planned_for(workspace, dataset):
        project = project.changed(overlap_answer="", overlap_reason="")
    for warning in (found.message for found in dataset.problems if not found.left_out):
        print(f"note: {warning}")
    plan = _planned_anew(workspace, project, dataset, watcher)
    print(plan.sentence())
    for note in notes_on(project, plan.steps if plan.mechanism else None):
        print(f"note: {note}")
    pipeline.fine_tune(workspace, plan, dataset, watcher)
    pipeline.synthesise(workspace, plan, watcher)
    utility = None
    if len(dataset.subset(Split.HELD_OUT)):
        utility = pipeline.evaluate(workspace, plan, dataset, watcher)
    written = pipeline.export(workspace, plan, release, watcher)
    return Outcome(
        release=written,
        plan=plan,
        utility=utility,
        verification=verify(written.folder),
    )


def _planned_anew(
    workspace: Workspace, project: Project, dataset: ImageDataset, watcher: Watcher
) -> Plan:
    """The plan of these wishes, which are kept; if refused, those planned with are."""
    before = workspace.project if workspace.finished("plan") else None
    workspace.save_project(project)
    try:
        return pipeline.make_plan(workspace, project, dataset, watcher)
    except UserError:
        if before is not None:
            workspace.save_project(before)
        raise


def _refuse_unsaid_unit(dataset: ImageDataset) -> None:
    """Where patients may have several images, a bound for each protects no patient."""
    grouped = dataset.has_groups and not finer_than_patients(dataset.unit_column)
    if grouped and len(np.unique(dataset.units)) < len(dataset.units):
        raise UserError(
            f"Several images are of one {dataset.unit_column} here: say whom the bound "
            "is to protect, --unit patient or --unit image."
        )


def draw_more(
    folder: Path, images_per_class: int | None, watcher: Watcher
) -> SyntheticSet:
    """Draw the synthetic images of a trained project, more of them when asked."""
    check_wishes({"images_per_class": images_per_class})
    with _existing(folder) as workspace:
        before = _project(workspace)
        project = before.changed(images_per_class=images_per_class)
        plan = _planned(workspace, project)
        workspace.save_project(project)
        try:
            return pipeline.synthesise(workspace, plan, watcher)
        except UserError:  # A number that the disk does not hold is no wish to keep.
            workspace.save_project(before)
            raise


def measure(folder: Path, watcher: Watcher, classifier: str = "") -> UtilityReport:
    """Measure the usefulness of a project's synthetic images.

    Args:
        folder: Of the project.
        watcher: Told of progress, asked whether to stop.
        classifier: A published one's settings, by name or file; "" for our own.
    """
    recipe = load_classifier(classifier) if classifier else None
    with _existing(folder) as workspace:
        project = _project(workspace)
        dataset = pipeline.load_dataset(workspace, project, watcher)
        plan = _planned(workspace, project)
        return pipeline.evaluate(workspace, plan, dataset, watcher, recipe=recipe)


def forget(folder: Path) -> None:
    """Delete the reduced copies of private images that a project keeps, and their key.

    They are made again when the project reads its folder. Results and the ledger stay.

    Raises:
        UserError: when there is no project, or something cannot be deleted.
    """
    with _existing(folder) as workspace:
        _project(workspace)
        delete_cache(workspace.folder("dataset") / "cache")


def write_release(folder: Path, destination: Path, watcher: Watcher) -> Release:
    """Write the release of a project."""
    with _existing(folder) as workspace:
        plan = _planned(workspace, _project(workspace))
        return pipeline.export(workspace, plan, destination, watcher)


def _existing(folder: Path) -> Workspace:
    if not folder.is_dir():
        raise UserError(f"There is no project in {folder}: make one with sfumato run.")
    return Workspace.open(folder)


def _project(workspace: Workspace) -> Project:
    project = workspace.project
    if project is None:
        raise UserError(
            f"There is no project in {workspace.path}: make one with sfumato run."
        )
    return project


def _planned(workspace: Workspace, project: Project) -> Plan:
    """The plan that was trained, with the wished size of the synthetic data set."""
    plan = plan_from_facts(workspace.result("plan")["plan"])
    return plan.of_size(project.images_per_class or plan.recipe.images_per_class)
