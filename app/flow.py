"""What the wizard knows, without a window: the choices made and the results so far.

A later page sees only what an earlier page left here, so a project can be opened again
and go on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import Undeclared, UserError

if TYPE_CHECKING:
    from app.engine import Engine
    from core.checkpoints.catalogue import CheckpointCard
    from core.data import ImageDataset, Inspection
    from core.events import Watcher
    from core.pipeline import (
        BudgetPreview,
        FineTuned,
        Plan,
        Spending,
        SyntheticSet,
        UtilityReport,
    )
    from core.workspace import Project, Workspace

HOME = Path.home() / "Sfumato"
UNITS = ("image", "patient")
FREE_WISHES = frozenset({"title", "images_per_class", "classes", "overlap_reason"})
"""Wishes that need no other plan, and may change after training."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a look at the folder found. Exact, so it stays inside.

    Attributes:
        train: Images that training may use.
        held_out: Images kept back for the internal evaluation.
        unused: Images for neither: others of patients whose images are trained on.
        patients: Patients among the training images; None where the format has none.
        largest_patient: Most training images of one patient; 1 where there are none.
    """

    train: int
    held_out: int
    unused: int
    patients: int | None
    largest_patient: int

    def units(self, unit: str) -> int:
        """How many units of protection training may use."""
        if unit == "patient" and self.patients is not None:
            return self.patients
        return self.train


Files = tuple[tuple[str, tuple[Path, ...]], ...]
"""The synthetic images: name and files of each class."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A project folder and every result that it already holds."""

    workspace: Workspace
    project: Project
    dataset: ImageDataset
    findings: Findings
    inspection: Inspection
    cards: tuple[CheckpointCard, ...]
    plan: Plan | None = None
    spending: Spending | None = None
    fine_tuned: FineTuned | None = None
    samples: SyntheticSet | None = None
    files: Files = ()
    utility: UtilityReport | None = None
    release: Path | None = None


@dataclass(kw_only=True)
class State:
    """The wizard's memory, shared by the pages.

    `release` is the folder of the release; `busy` names the step that runs now, empty
    when none does; `unit_picked` tells that the unit was chosen by hand, and `lost`
    that the engine said that nothing can finish this project.
    """

    engine: Engine
    workspace: Workspace | None = None
    project: Project | None = None
    dataset: ImageDataset | None = None
    findings: Findings | None = None
    inspection: Inspection | None = None
    cards: tuple[CheckpointCard, ...] = ()
    preview: BudgetPreview | None = None
    plan: Plan | None = None
    spending: Spending | None = None
    fine_tuned: FineTuned | None = None
    samples: SyntheticSet | None = None
    files: Files = ()
    utility: UtilityReport | None = None
    release: Path | None = None
    busy: str = ""
    unit_picked: bool = False
    lost: bool = False

    @property
    def committed(self) -> bool:
        """Whether budget was spent: the choices before training are then fixed."""
        charged = self.spending is not None and self.spending.epsilon_charged > 0
        return self.fine_tuned is not None or charged or self.busy == "training"

    @property
    def starts_from_checkpoint(self) -> bool:
        """Whether the kind of images that is chosen uses one."""
        free = self.engine.recipes_without_checkpoint()
        return self.project is not None and self.project.recipe not in free

    @property
    def trained_network(self) -> bool:
        """Whether a network was trained, and not statistics measured only."""
        return self.fine_tuned is not None and self.fine_tuned.updates > 0

    @property
    def protects_patients(self) -> bool:
        """Whether the images are grouped so that patients can be protected."""
        from core.data.options import stands_for_patients

        return (
            self.findings is not None
            and self.dataset is not None
            and self.findings.patients is not None
            and stands_for_patients(self.dataset.unit_column)
        )

    @property
    def unit_chosen(self) -> bool:
        """Whether somebody has said who is protected, where it makes a difference.

        Each image is what a new project says by itself. Who declared a number of them
        has meant them.
        """
        return (
            self.project is None
            or self.findings is None
            or not self.protects_patients
            or self.findings.largest_patient == 1
            or self.project.unit == "patient"
            or self.project.declared_count is not None
            or self.unit_picked
            or self.committed
        )

    def adopt(self, opened: Opened) -> None:
        """Take over a project, and let go of the one that was open."""
        if self.workspace is not None and self.workspace is not opened.workspace:
            self.engine.close(self.workspace)
        self._forget()
        for name in Opened.__dataclass_fields__:
            setattr(self, name, getattr(opened, name))

    def leave(self) -> None:
        """Close the project that is open; it stays in its folder."""
        if self.workspace is not None:
            self.engine.close(self.workspace)
        self._forget()
        for field in fields(State):
            if field.name in Opened.__dataclass_fields__:
                setattr(self, field.name, field.default)

    def _forget(self) -> None:
        """What is known of a project and not kept in its folder."""
        self.preview = None
        self.unit_picked = self.lost = False

    def change(self, **wishes: object) -> None:
        """Change wishes of the project; a plan made for other wishes is dropped."""
        assert self.project is not None
        changed = replace(self.project, **wishes)
        if changed == self.project:
            return
        self.project = changed
        if set(wishes) <= FREE_WISHES:
            return
        self.preview = None
        self.plan = None
        self.spending = None

    def save(self) -> None:
        """Put the wishes on disk, so that the project opens with them again."""
        if self.workspace is not None and self.project is not None:
            self.engine.save_project(self.workspace, self.project)


def start_sample(engine: Engine, folder: Path, watcher: Watcher) -> Opened:
    """Write the sample dataset into a project folder and read it."""

    def begin(workspace: Workspace) -> Project:
        return engine.sample_project(engine.write_sample(workspace, watcher))

    return _start(engine, folder, begin, watcher)


def start_project(
    engine: Engine,
    folder: Path,
    source: Path,
    watcher: Watcher,
    **declared: Any,
) -> Opened | Undeclared:
    """Make `folder` a project over the images in `source`, and read them.

    What is declared of them is given by the names of the project's fields. When
    something is missing there, the answer is a question, and no project was made.
    """

    from core.data.paths import refuse_among_images

    def begin(_: Workspace) -> Project:
        return replace(engine.new_project(source), **declared)

    refuse_among_images(folder, source)
    try:
        return _start(engine, folder, begin, watcher)
    except Undeclared as question:
        return question


def read_again(
    engine: Engine, workspace: Workspace, project: Project, watcher: Watcher
) -> Opened | Undeclared:
    """Read the images of an open project as `project` declares them now.

    What stands in the project folder changes only when that could be done.
    """
    from core.data.options import stands_for_patients

    try:
        dataset = engine.load_dataset(workspace, project, watcher)
    except Undeclared as question:
        return question
    findings = describe(dataset)
    known = stands_for_patients(dataset.unit_column)
    if findings.patients is None or not known:
        project = replace(project, unit="image", max_images_per_unit=1)
    engine.save_project(workspace, project)
    return Opened(
        workspace=workspace,
        project=project,
        dataset=dataset,
        findings=findings,
        inspection=inspect_read(dataset),
        cards=engine.checkpoints(),
    )


def _start(
    engine: Engine,
    folder: Path,
    begin: Callable[[Workspace], Project],
    watcher: Watcher,
) -> Opened:
    workspace = engine.open_workspace(folder)
    try:
        if workspace.project is not None:
            raise UserError(
                f"The folder {folder} already holds a project: choose another project "
                "folder, or open that project to go on with it."
            )
        project = begin(workspace)
        dataset = engine.load_dataset(workspace, project, watcher)
        findings = describe(dataset)
        engine.save_project(workspace, project)
        cards = engine.checkpoints()
    except BaseException:
        engine.close(workspace)
        raise
    return Opened(
        workspace=workspace,
        project=project,
        dataset=dataset,
        findings=findings,
        inspection=inspect_read(dataset),
        cards=cards,
    )


def continue_project(engine: Engine, folder: Path, watcher: Watcher) -> Opened:
    """Open a project folder with every result that it holds, in the order made."""
    if not folder.is_dir():
        raise UserError(
            f"There is no project folder {folder}: check the path, or start a new "
            "project."
        )
    workspace = engine.open_workspace(folder)
    try:
        return _continue(engine, workspace, watcher)
    except BaseException:
        engine.close(workspace)
        raise


def _continue(engine: Engine, workspace: Workspace, watcher: Watcher) -> Opened:
    project = workspace.project
    if project is None:
        raise UserError(
            f"The folder {workspace.path} holds no Sfumato project: choose a folder "
            "of images to start one there."
        )
    dataset = engine.load_dataset(workspace, project, watcher)
    opened = Opened(
        workspace=workspace,
        project=project,
        dataset=dataset,
        findings=describe(dataset),
        inspection=inspect_read(dataset),
        cards=engine.checkpoints(),
        release=engine.release_folder(workspace),
    )
    if not engine.finished(workspace, "plan"):
        return opened
    # A plan of an older version waits until its classes are confirmed.
    if set(project.classes) != set(dataset.class_names):
        return opened
    try:
        plan = engine.make_plan(workspace, project, dataset, watcher)
    except UserError:
        if engine.finished(workspace, "training"):
            raise
        # It is said again before anything is spent; until then it may be mended here.
        return opened
    spending = engine.spending(workspace, plan, dataset)
    opened = replace(opened, plan=plan, spending=spending)
    if not engine.finished(workspace, "training"):
        return opened
    fine_tuned = engine.fine_tune(workspace, plan, dataset, watcher)
    opened = replace(opened, fine_tuned=fine_tuned)
    if not engine.finished(workspace, "samples"):
        return opened
    # To draw or to measure may take long, and is asked for on its page.
    samples = engine.drawn(workspace, plan, watcher)
    utility = engine.measured(workspace, plan, samples)
    files = list_images(samples)
    return replace(opened, samples=samples, files=files, utility=utility)


def list_images(samples: SyntheticSet) -> Files:
    """The image files of each class, in order."""
    return tuple(
        (name, tuple(sorted(folder.glob("*.png"))[: samples.per_class]))
        for name, folder in zip(samples.class_names, samples.class_folders, strict=True)
    )


def describe(dataset: ImageDataset) -> Findings:
    """Count what the choices depend on; a pass over the units, not the images."""
    import numpy

    from core.data import Split

    train = dataset.splits == Split.TRAIN
    held_out = dataset.splits == Split.HELD_OUT
    sizes = numpy.unique(dataset.units[train], return_counts=True)[1]
    return Findings(
        train=int(train.sum()),
        held_out=int(held_out.sum()),
        unused=int((~train & ~held_out).sum()),
        patients=len(sizes) if dataset.has_groups else None,
        largest_patient=int(sizes.max()) if dataset.has_groups and len(sizes) else 1,
    )


def inspect_read(dataset: ImageDataset) -> Inspection:
    """All that is known without looking at the files again."""
    from core.data.inspection import describe

    return describe(dataset)
