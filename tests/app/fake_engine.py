"""An engine without torch: the same questions, quick answers, plausible figures."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.audience import Audience, Figure
from core.data import Inspection, delete_cache
from core.data.dataset import ImageDataset, Problem
from core.data.inspection import describe
from core.errors import UserError
from core.events import Watcher
from core.privacy.budget import Budget, PrivacyUnit, Relation, UnitKind
from core.workspace import PROJECT_FILE, Project, Workspace
from tests.app.fake_results import (
    CLASSES,
    FakeCard,
    FakeFinding,
    FakeMechanism,
    FakePlan,
    FakePreview,
    FakeRecipe,
    FakeRelease,
    FakeReport,
    FakeSamples,
    FakeSpending,
    FakeTuned,
    FakeVerification,
    draw_tissue,
)


class FakeEngine:
    """Answers at once, unless told to wait or to fail.

    Attributes:
        steps: Steps of training.
        gate: When cleared, training waits for it (or for a stop) at half way.
        training: Set while training runs.
        fail: Errors to raise, by name of the method.
        previewed, channels: The projects that a preview was asked for, and the last
            number of channels.
        weak_noise, blind_check: What the self-test finds.
        unfit: Recipes and checkpoints that cannot be used, with the reason.
        better_kind, warnings: What a preview advises.
    """

    def __init__(self) -> None:
        self.steps = 40
        self.gate = threading.Event()
        self.gate.set()
        self.training = threading.Event()
        self.fail: dict[str, Exception] = {}
        self.previewed: list[Project] = []
        self.channels = 0
        self.patients = True
        self.steps_done = 0
        self.planned_recipe = ""
        self.weak_noise = False
        self.blind_check = False
        self.unfit: dict[str, str] = {}
        self.better_kind = ""
        self.warnings: tuple[str, ...] = ()

    def _may_fail(self, name: str) -> None:
        if name in self.fail:
            raise self.fail[name]

    def holds_project(self, folder: Path) -> bool:
        return (folder / PROJECT_FILE).is_file()

    def open_workspace(self, folder: Path) -> Workspace:
        self._may_fail("open_workspace")
        return Workspace.open(folder)

    def new_project(self, source: Path) -> Project:
        return Project(source=str(source))

    def sample_project(self, source: Path) -> Project:
        return Project(
            source=str(source),
            title="Synthetic lymph node patches",
            classes=CLASSES,
            declared_count=4_000,
            delta=1e-4,
        )

    def save_project(self, workspace: Workspace, project: Project) -> None:
        workspace.save_project(project)

    def close(self, workspace: Workspace) -> None:
        workspace.close()

    def finished(self, workspace: Workspace, stage: str) -> bool:
        return workspace.finished(stage)

    def release_folder(self, workspace: Workspace) -> Path | None:
        if not workspace.finished("release"):
            return None
        return Path(workspace.result("release")["folder"])

    def write_sample(self, workspace: Workspace, watcher: Watcher) -> Path:
        folder = workspace.path / "sample"
        folder.mkdir(exist_ok=True)
        watcher.progress("Drawing the sample dataset", 1, 1)
        return folder

    def load_dataset(
        self, workspace: Workspace, project: Project, watcher: Watcher
    ) -> ImageDataset:
        self._may_fail("load_dataset")
        if not Path(project.source).is_dir():
            raise UserError(
                f"There is no folder {project.source}: check the path, or choose the "
                "folder of images again."
            )
        watcher.progress("Reading images", 1, 1)
        number = 4_128
        random = np.random.default_rng(1)
        units = np.sort(random.integers(0, 96, number))
        return ImageDataset(
            images=np.zeros((number, 32, 32, 3), np.uint8),
            labels=random.permutation(np.arange(number) % 16 < 5).astype(np.int64),
            class_names=CLASSES,
            units=units if self.patients else np.arange(number),
            has_groups=self.patients,
            splits=(units % 5 == 0).astype(np.uint8),
            official_splits=np.zeros(number, np.uint8),
            official_split_names=("train",),
            format_name="WILDS Camelyon17 v1.0",
            fingerprint="5f" * 32,
            unit_column="patient" if self.patients else "",
            problems=(
                Problem(
                    path="patches/patient_017_node_2/patch_x_2304_y_992.png",
                    kind="cannot be decoded",
                    message="The file ends too early: copy it again from its source.",
                ),
                Problem(
                    path="patches/patient_042_node_0/patch_x_96_y_4416.png",
                    kind="empty",
                    message="The file is empty: copy it again from its source.",
                ),
            ),
        )

    def inspect(self, project: Project, watcher: Watcher) -> Inspection:
        self._may_fail("inspect")
        watcher.progress("Reading images", 1, 1)
        return replace(
            describe(FakeEngine.load_dataset(self, None, project, watcher)),
            look_alikes=2,
            look_alike_examples=(
                (
                    "patches/patient_017_node_2/patch_x_2304_y_896.png",
                    "patches/patient_042_node_0/patch_x_96_y_4320.png",
                ),
            ),
            sizes={"96×96": 4_000, "128×96": 128},
            modes={"RGBA": 4_100, "RGB": 28},
        )

    def forget(self, folder: Path) -> None:
        self._may_fail("forget")
        with Workspace.open(folder) as workspace:
            delete_cache(workspace.folder("dataset") / "cache")

    def checkpoints(self) -> tuple[FakeCard, ...]:
        self._may_fail("checkpoints")
        return (
            FakeCard(
                name="starter",
                title="Starter, 32 × 32",
                description="A small network that knows shapes, strokes and textures. "
                "It comes with Sfumato and runs on a computer without a GPU.",
                licence="Apache-2.0",
                pretraining_licences="Public domain and CC0-1.0",
                pretraining_data="Procedural shapes, textures and dead leaves; font "
                "glyphs; public-domain photographs. No medical images of patients.",
                parameters=1_236_000,
                resolution=32,
                sha256="9c1f0e7ab2d45c" + "0" * 50,
            ),
            FakeCard(
                name="photographs",
                title="Natural photographs, 32 × 32",
                description="A larger network trained on everyday photographs.",
                licence="CC-BY-4.0",
                pretraining_data="ImageNet, reduced to 32 × 32 pixels.",
                pretraining_licences="for research",
                source="https://example.org/photographs",
                overlap="no",
                overlap_reason="all were published in 1998",
                parameters=80_390_403,
                resolution=32,
                sha256="4471aa90cc1204" + "0" * 50,
            ),
        )

    def recipes(self) -> dict[str, str]:
        return {
            "starter": "Tissue and textures",
            "upright": "Upright objects",
            "useful": "Useful for classifiers",
        }

    def recipes_without_checkpoint(self) -> frozenset[str]:
        return frozenset({"useful"})

    def unfit_recipes(
        self, project: Project, cards: tuple[FakeCard, ...]
    ) -> dict[str, str]:
        return self.unfit

    def unfit_checkpoints(
        self, project: Project, cards: tuple[FakeCard, ...]
    ) -> dict[str, str]:
        return self.unfit

    def preview(self, project: Project, channels: int) -> FakePreview:
        self.previewed.append(project)
        self.channels = channels
        self._may_fail("preview")
        steps = 0 if project.recipe == "useful" else project.steps or 600
        ticks = range(0, steps + 1, max(1, steps // 60))
        number = project.declared_count or 1
        batch = float(project.batch_size or 256)
        times = math.exp(min(project.epsilon, 20))
        return FakePreview(
            noise_multiplier=0.6 + 4 / project.epsilon,
            epsilon_curve=tuple(
                (step, project.epsilon * (0.12 + 0.88 * (step / max(1, steps)) ** 0.5))
                for step in ticks
            ),
            steps=steps,
            expected_batch=batch,
            sampling_probability=batch / number,
            forecast_seconds=steps * 0.9,
            sentence=f"No conclusion about any one {project.unit} becomes more than "
            f"{times:,.3g} times as likely through this release, with a chance "
            f"of error of {project.delta:g}.",
            others=(("a patient with 5 images", 4.321 * project.epsilon),),
            warnings=self.warnings,
            better_kind=self.better_kind,
        )

    def make_plan(
        self,
        workspace: Workspace,
        project: Project,
        dataset: ImageDataset,
        watcher: Watcher,
    ) -> FakePlan:
        self._may_fail("make_plan")
        workspace.finish("plan", {})
        self.planned_recipe = project.recipe
        unit = PrivacyUnit(
            kind=UnitKind(project.unit),
            max_images_per_unit=project.max_images_per_unit,
        )
        return FakePlan(
            budget=Budget(
                epsilon=project.epsilon,
                delta=project.delta,
                unit=unit,
                relation=Relation(project.relation),
            ),
            recipe=FakeRecipe(images_per_class=project.images_per_class or 60),
            mechanism=FakeMechanism(steps=self.steps),
        )

    def spending(
        self, workspace: Workspace, plan: FakePlan, dataset: ImageDataset
    ) -> FakeSpending:
        share = self.steps_done / self.steps
        return FakeSpending(
            before=0.0,
            after=plan.budget.epsilon,
            steps_done=self.steps_done,
            epsilon_charged=plan.budget.epsilon * share**0.5,
        )

    def fine_tune(
        self,
        workspace: Workspace,
        plan: FakePlan,
        dataset: ImageDataset,
        watcher: Watcher,
    ) -> FakeTuned:
        self.training.set()
        try:
            while self.steps_done < self.steps and not workspace.finished("training"):
                self._may_fail("fine_tune")
                watcher.stop_if_requested()
                if self.steps_done == self.steps // 2:
                    while not self.gate.wait(0.005):
                        watcher.stop_if_requested()
                self.steps_done += 1
                charged = self.spending(workspace, plan, dataset).epsilon_charged
                watcher.progress(
                    "Training with privacy",
                    self.steps_done,
                    self.steps,
                    epsilon=charged,
                )
        finally:
            self.training.clear()
        workspace.finish("training", {})
        return FakeTuned(
            updates=0 if self.planned_recipe == "useful" else self.steps,
            steps_charged=self.steps,
            epsilon_charged=plan.budget.epsilon,
        )

    def synthesise(
        self, workspace: Workspace, plan: FakePlan, watcher: Watcher
    ) -> FakeSamples:
        self._may_fail("synthesise")
        names = ("normal", "tumour")
        folder = workspace.folder("samples")
        folders = tuple(folder / f"class-{kind:03d}" for kind in range(len(names)))
        for kind, place in enumerate(folders):
            place.mkdir(exist_ok=True)
            for number in range(min(plan.recipe.images_per_class, 80)):
                if not (place / f"{number:06d}.png").exists():
                    draw_tissue(place / f"{number:06d}.png", kind, number)
            watcher.progress("Drawing synthetic images", kind + 1, 2)
        workspace.finish("samples", {"per_class": plan.recipe.images_per_class})
        return FakeSamples(
            class_names=names,
            class_folders=folders,
            per_class=plan.recipe.images_per_class,
        )

    def drawn(
        self, workspace: Workspace, plan: FakePlan, watcher: Watcher
    ) -> FakeSamples:
        number = workspace.result("samples")["per_class"]
        recipe = FakeRecipe(images_per_class=number)
        return self.synthesise(workspace, replace(plan, recipe=recipe), watcher)

    def evaluate(
        self,
        workspace: Workspace,
        plan: FakePlan,
        dataset: ImageDataset,
        watcher: Watcher,
    ) -> FakeReport:
        self._may_fail("evaluate")
        watcher.progress("Training a classifier on synthetic images", 1, 1)
        workspace.finish("utility", workspace.result("samples"))
        return self._report()

    def measured(
        self, workspace: Workspace, plan: FakePlan, samples: FakeSamples
    ) -> FakeReport | None:
        if not workspace.finished("utility"):
            return None
        kept = workspace.result("utility")
        return self._report() if kept["per_class"] == samples.per_class else None

    def _report(self) -> FakeReport:
        return FakeReport(
            tested_on="869 real held-out images",
            figures=tuple(
                Figure(
                    name=name,
                    value=value,
                    audience=Audience.INTERNAL,
                    note="Computed on private images: do not publish.",
                )
                for name, value in (
                    ("accuracy after training on synthetic images only", 0.823),
                    ("accuracy after training on the real images", 0.931),
                    ("accuracy of always naming the commonest class", 0.6875),
                )
            ),
        )

    def export(
        self,
        workspace: Workspace,
        plan: FakePlan,
        destination: Path,
        watcher: Watcher,
    ) -> FakeRelease:
        self._may_fail("export")
        destination.mkdir(parents=True)
        (destination / "README.md").write_text("A release.")
        workspace.finish("release", {"folder": str(destination)})
        return FakeRelease(folder=destination)

    def verify(self, folder: Path) -> FakeVerification:
        changed = not (folder / "README.md").is_file()
        findings = (
            (FakeFinding(subject="README.md", message="README.md is missing."),)
            if changed
            else ()
        )
        return FakeVerification(
            holds=not changed, findings=findings, notes=(), epsilon_recomputed=2.98
        )

    def self_test(self, watcher: Watcher) -> object:
        from core.privacy.selftest.findings import Finding, Measurement
        from core.privacy.selftest.report import Confirmation, SelfTest

        self._may_fail("self_test")
        for percent in (0, 40):
            watcher.progress("Checking the privacy engine", percent, 100)
        while not self.gate.wait(0.005):
            watcher.stop_if_requested()
        noise = Finding(
            check="noise strength",
            question="Is the noise as strong as the budget demands?",
            measurements=(
                Measurement(
                    name="noise ÷ promise of a step",
                    value=0.51 if self.weak_noise else 1.0002,
                    low=0.99788,
                    high=1.0021,
                ),
            ),
            smallest_fault="noise 0.27 % too weak or too strong",
        )
        limit = Finding(
            check="batch limit",
            question="Is no batch larger, and nobody drawn beyond, what was declared?",
            measurements=(
                Measurement(name="largest batch ÷ limit", value=1.0, high=1.0),
            ),
            smallest_fault="one unit too many",
        )
        audit = Finding(
            check="audit at epsilon 8",
            question="Does an attacker who sees everything learn no more than claimed?",
            measurements=(
                Measurement(
                    name="share of right guesses on 100,000 planted records",
                    value=0.70774,
                    high=0.71682,
                ),
            ),
            smallest_fault="noise at 0.94 of its strength",
            note="Claimed: epsilon 8.00 at delta 1e-5. Estimated from the guesses: "
            "4.69 or more, 99.9 % sure.",
        )
        return SelfTest(
            findings=(limit, noise, audit),
            confirmations=(
                Confirmation(
                    fault="no noise", check="noise strength", seen=not self.blind_check
                ),
                Confirmation(
                    fault="no clipping", check="audit at epsilon 8", seen=True
                ),
            ),
            seconds=31.0,
        )


def with_project(engine: FakeEngine, folder: Path, **wishes: object) -> Project:
    """A project on disk, as an earlier session left it."""
    with engine.open_workspace(folder) as workspace:
        source = engine.write_sample(workspace, Watcher())
        project = replace(
            engine.new_project(source), declared_count=3400, delta=1e-4, **wishes
        )
        workspace.save_project(project)
        return project
