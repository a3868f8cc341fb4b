"""The one door from the window to the engine.

Everything the wizard asks of `core` goes through an object with these methods, so that
opening the window imports no torch, and a test can stand in for the engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from core.checkpoints.catalogue import CheckpointCard
    from core.data import ImageDataset, Inspection
    from core.events import Watcher
    from core.pipeline import (
        BudgetPreview,
        FineTuned,
        Plan,
        Release,
        Spending,
        SyntheticSet,
        UtilityReport,
    )
    from core.privacy.selftest.report import SelfTest
    from core.release import Verification
    from core.workspace import Project, Workspace


class Engine(Protocol):
    """What the wizard needs of `core`; every method may raise `UserError`.

    All but `save_project` and `close` are called in a worker thread.
    """

    def holds_project(self, folder: Path) -> bool: ...
    def open_workspace(self, folder: Path) -> Workspace: ...
    def new_project(self, source: Path) -> Project: ...
    def sample_project(self, source: Path) -> Project: ...
    def save_project(self, workspace: Workspace, project: Project) -> None: ...
    def close(self, workspace: Workspace) -> None: ...
    def finished(self, workspace: Workspace, stage: str) -> bool: ...
    def release_folder(self, workspace: Workspace) -> Path | None: ...
    def write_sample(self, workspace: Workspace, watcher: Watcher) -> Path: ...
    def load_dataset(
        self, workspace: Workspace, project: Project, watcher: Watcher
    ) -> ImageDataset: ...
    def inspect(self, project: Project, watcher: Watcher) -> Inspection: ...
    def forget(self, folder: Path) -> None: ...
    def checkpoints(self) -> tuple[CheckpointCard, ...]: ...
    def recipes(self) -> dict[str, str]: ...
    def recipes_without_checkpoint(self) -> frozenset[str]: ...
    def unfit_recipes(
        self, project: Project, cards: tuple[CheckpointCard, ...]
    ) -> dict[str, str]:
        """Name → why, of the recipes that cannot be used with this project."""

    def unfit_checkpoints(
        self, project: Project, cards: tuple[CheckpointCard, ...]
    ) -> dict[str, str]:
        """Name → why, of the checkpoints that its recipe cannot start from."""

    def preview(self, project: Project, channels: int) -> BudgetPreview: ...
    def make_plan(
        self,
        workspace: Workspace,
        project: Project,
        dataset: ImageDataset,
        watcher: Watcher,
    ) -> Plan: ...
    def spending(
        self, workspace: Workspace, plan: Plan, dataset: ImageDataset
    ) -> Spending: ...
    def fine_tune(
        self,
        workspace: Workspace,
        plan: Plan,
        dataset: ImageDataset,
        watcher: Watcher,
    ) -> FineTuned: ...
    def synthesise(
        self, workspace: Workspace, plan: Plan, watcher: Watcher
    ) -> SyntheticSet: ...
    def drawn(self, workspace: Workspace, plan: Plan, watcher: Watcher) -> SyntheticSet:
        """The images of a finished project, as many as there are; draws no more."""

    def evaluate(
        self,
        workspace: Workspace,
        plan: Plan,
        dataset: ImageDataset,
        watcher: Watcher,
    ) -> UtilityReport: ...
    def measured(
        self, workspace: Workspace, plan: Plan, samples: SyntheticSet
    ) -> UtilityReport | None:
        """What was measured of these images before; measures nothing."""

    def export(
        self, workspace: Workspace, plan: Plan, destination: Path, watcher: Watcher
    ) -> Release: ...
    def verify(self, folder: Path) -> Verification: ...
    def self_test(self, watcher: Watcher) -> SelfTest: ...


class PipelineEngine:
    """The real engine: `core.pipeline`, imported when it is first needed."""

    def holds_project(self, folder: Path) -> bool:
        from core.workspace import PROJECT_FILE

        return (folder / PROJECT_FILE).is_file()

    def open_workspace(self, folder: Path) -> Workspace:
        from core.workspace import Workspace

        return Workspace.open(folder)

    def new_project(self, source: Path) -> Project:
        from core.workspace import Project

        return Project(source=str(source.expanduser().absolute()))

    def sample_project(self, source: Path) -> Project:
        from core.demo import demo_project

        return demo_project(source)

    def save_project(self, workspace: Workspace, project: Project) -> None:
        workspace.save_project(project)

    def close(self, workspace: Workspace) -> None:
        workspace.close()

    def finished(self, workspace: Workspace, stage: str) -> bool:
        return workspace.finished(stage)

    def release_folder(self, workspace: Workspace) -> Path | None:
        if not workspace.finished("release"):
            return None
        folder = Path(workspace.result("release")["folder"])
        return folder if folder.is_dir() else None

    def write_sample(self, workspace: Workspace, watcher: Watcher) -> Path:
        from core.demo import write_sample

        return write_sample(workspace.path / "sample", watcher)

    def load_dataset(
        self, workspace: Workspace, project: Project, watcher: Watcher
    ) -> ImageDataset:
        from core import pipeline

        return pipeline.load_dataset(workspace, project, watcher)

    def inspect(self, project: Project, watcher: Watcher) -> Inspection:
        from core.data import inspect
        from core.pipeline import declarations

        return inspect(
            Path(project.source).expanduser(),
            project.resolution,
            options=declarations(project),
            watcher=watcher,
        )

    def forget(self, folder: Path) -> None:
        from core.run import forget

        forget(folder)

    def checkpoints(self) -> tuple[CheckpointCard, ...]:
        from core.checkpoints.catalogue import available

        return available()

    def recipes(self) -> dict[str, str]:
        from core.bundled import recipe_titles

        return recipe_titles()

    def recipes_without_checkpoint(self) -> frozenset[str]:
        from core.bundled import recipes_without_checkpoint

        return recipes_without_checkpoint()

    def unfit_recipes(
        self, project: Project, cards: tuple[CheckpointCard, ...]
    ) -> dict[str, str]:
        from core.training.preview import unfit_recipes

        return unfit_recipes(project, cards)

    def unfit_checkpoints(
        self, project: Project, cards: tuple[CheckpointCard, ...]
    ) -> dict[str, str]:
        from core.training.preview import unfit_checkpoints

        return unfit_checkpoints(project, cards)

    def preview(self, project: Project, channels: int) -> BudgetPreview:
        from core import pipeline

        return pipeline.preview(project, channels=channels)

    def make_plan(
        self,
        workspace: Workspace,
        project: Project,
        dataset: ImageDataset,
        watcher: Watcher,
    ) -> Plan:
        from core import pipeline

        return pipeline.make_plan(workspace, project, dataset, watcher)

    def spending(
        self, workspace: Workspace, plan: Plan, dataset: ImageDataset
    ) -> Spending:
        from core import pipeline

        return pipeline.spending(workspace, plan, dataset)

    def fine_tune(
        self,
        workspace: Workspace,
        plan: Plan,
        dataset: ImageDataset,
        watcher: Watcher,
    ) -> FineTuned:
        from core import pipeline

        return pipeline.fine_tune(workspace, plan, dataset, watcher)

    def synthesise(
        self, workspace: Workspace, plan: Plan, watcher: Watcher
    ) -> SyntheticSet:
        from core import pipeline

        return pipeline.synthesise(workspace, plan, watcher)

    def drawn(self, workspace: Workspace, plan: Plan, watcher: Watcher) -> SyntheticSet:
        number = workspace.result("samples")["per_class"]
        return self.synthesise(workspace, plan.of_size(number), watcher)

    def evaluate(
        self,
        workspace: Workspace,
        plan: Plan,
        dataset: ImageDataset,
        watcher: Watcher,
    ) -> UtilityReport:
        from core import pipeline

        return pipeline.evaluate(workspace, plan, dataset, watcher)

    def measured(
        self, workspace: Workspace, plan: Plan, samples: SyntheticSet
    ) -> UtilityReport | None:
        from core import pipeline

        return pipeline.measured(workspace, plan, samples)

    def export(
        self, workspace: Workspace, plan: Plan, destination: Path, watcher: Watcher
    ) -> Release:
        from core import pipeline

        return pipeline.export(workspace, plan, destination, watcher)

    def verify(self, folder: Path) -> Verification:
        from core.release import verify

        return verify(folder)

    def self_test(self, watcher: Watcher) -> SelfTest:
        from core.privacy.selftest.run import self_test

        return self_test(watcher)
