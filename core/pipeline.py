"""The one straight line: what Sfumato does, stage by stage.

    folder ─▶ ImageDataset ─▶ Plan ─▶ FineTuned ─▶ SyntheticSet ─▶ UtilityReport
                                                        └────────▶ Release

Every stage leaves a folder in the workspace. Called again it gives back what is there,
or goes on where it was stopped. The command line and the wizard both drive this line.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import asdict, fields, replace
from pathlib import Path

from core.checkpoints.cards import refuse_private
from core.data import ImageDataset, ReadOptions, delete_cache, load, parse_options
from core.data.options import (
    refuse_frames_as_units,
    refuse_studies_apart,
    refuse_wrong_unit,
)
from core.disclosure import audit_facts, public_texts
from core.errors import UserError
from core.evaluation import report
from core.evaluation.published import train_published
from core.evaluation.recipe import ClassifierRecipe
from core.evaluation.report import UtilityReport
from core.events import Watcher
from core.files import private_folder, remove_unfinished, require_space
from core.parallel import choose_hardware
from core.pictures import drawing_of, naming_of
from core.private_classifier import train_privately
from core.release import Release, check_texts, export_release
from core.spending import (
    Spending,
    alone_with,
    open_ledger,
    refuse_above_cap,
    sealed_head,
    spending_so_far,
    spending_with,
)
from core.synthesis import sampling
from core.synthesis.quotas import PATIENCE
from core.synthesis.sampling import SyntheticSet
from core.training import plan as planning
from core.training import trainer
from core.training import wishes as wishing
from core.training.frozen import trained_parameters
from core.training.plan import Plan
from core.training.preview import BudgetPreview, preview
from core.training.trainer import MODEL, FineTuned
from core.training.units import group_units
from core.workspace import Project, Workspace, user_folder

__all__ = [
    "BudgetPreview", "FineTuned", "Plan", "Release", "Spending", "SyntheticSet",
    "UtilityReport", "declarations", "evaluate", "export", "fine_tune", "load_dataset",
    "make_plan", "measured", "planned_for", "preview", "spending", "synthesise",
]  # fmt: skip

CACHES = ("disk", "encrypted", "memory")
PUBLISHED = "utility-published"
"""The stage that keeps what a published classifier's settings measured."""
_AFTER_SAMPLES = ("utility", PUBLISHED, "release")
_AFTER_PLAN = ("training", "samples", *_AFTER_SAMPLES)
_ABOUT_DATA = {
    "fingerprint": "the images or their classes",
    "grouping": "which images belong together or are held out",
}
"""What a plan is bound to beside wishes, in words for people."""


def load_dataset(
    workspace: Workspace, project: Project, watcher: Watcher
) -> ImageDataset:
    """Read the private folder into a cache, of the kind that the project says.

    Raises:
        UserError: when it holds no dataset, or the cache cannot be kept like that.
    """
    options = declarations(project)
    cache = private_folder(workspace.folder("dataset") / "cache")
    if project.cache == "memory":
        delete_cache(cache)
    dataset = load(
        Path(project.source).expanduser(),
        None if project.cache == "memory" else cache,
        resolution=project.resolution,
        options=options,
        encrypt=project.cache == "encrypted",
        known=user_folder() / "datasets",
        matters=lambda fingerprint: _was_spent_on(workspace, fingerprint),
        watcher=watcher,
    )
    workspace.finish("dataset", {"fingerprint": dataset.fingerprint})
    return dataset


def _was_spent_on(workspace: Workspace, fingerprint: str) -> bool:
    with open_ledger(workspace) as ledger:
        return bool(ledger.charged(fingerprint))


def declarations(project: Project) -> ReadOptions:
    """What the custodian declared about the folder.

    Raises:
        UserError: when one of the declarations makes no sense.
    """
    if project.cache not in CACHES:
        raise UserError(
            f"The cache {project.cache!r} is unknown: use {', '.join(CACHES)}."
        )
    known = {field.name for field in fields(ReadOptions)}
    return parse_options(**{k: v for k, v in asdict(project).items() if k in known})


def make_plan(
    workspace: Workspace, project: Project, dataset: ImageDataset, watcher: Watcher
) -> Plan:
    """Bind data set, checkpoint, recipe and budget to a mechanism. Spends nothing.

    The same wishes for the same data give the same plan again, so that training goes
    on. Other wishes give a new run, unless the old one has spent already.

    Raises:
        UserError: when anything does not fit together, nobody confirmed the classes,
            private images trained the checkpoint, the project has spent budget under
            other wishes, or the plan would go above the data set's lifetime cap.
    """
    watcher.progress("Calibrating the noise", 0, 1)
    wishing.refuse_unconfirmed(project, dataset.class_names)
    refuse_wrong_unit(dataset.unit_column, project.unit)
    refuse_frames_as_units(dataset.several_frames, project.unit)
    refuse_studies_apart(dataset.studies_apart, project.unit)
    recipe = wishing.read_recipe(project)
    wishes = wishing.binding_wishes(project) | wishing.recipe_wishes(recipe)
    # PRIVACY: what the plan bounds is one of these units more or less, among these.
    wishes |= {name: getattr(dataset, name) for name in _ABOUT_DATA}
    kept = workspace.result("plan") if workspace.finished("plan") else {}
    if kept:
        changed = _changed(kept["wishes"], wishes)
        if not changed:
            plan = planning.plan_from_facts(kept["plan"])
            # PRIVACY: an older version planned from the models of other projects.
            refuse_private(plan.checkpoint)
            # PRIVACY: and on the answer of whoever had imported the network.
            if plan.checkpoint and not _spent(workspace, kept):
                wishing.refuse_unanswered(project, plan.checkpoint)
            return plan.of_size(recipe.images_per_class)
        _refuse_if_spent(workspace, kept, changed)
    plan = planning.make_plan(
        project,
        run=uuid.uuid4().hex,
        class_names=dataset.class_names,
        image_channels=dataset.images.shape[3],
        units_present=group_units(dataset, wishing.read_budget(project).unit).present,
        unit_column=dataset.unit_column,
        membership=dataset.membership,
    )
    asked = wishing.asked_about(project, plan.checkpoint, kept)
    # Afterwards it would be too late to change what the release may not say.
    check_texts(public_texts(plan, project))
    with open_ledger(workspace) as ledger:
        refuse_above_cap(ledger, plan, dataset.fingerprint)
    for stage in _AFTER_PLAN:
        shutil.rmtree(workspace.path / stage, ignore_errors=True)
    facts = planning.plan_facts(plan)
    workspace.finish("plan", {"plan": facts, "wishes": wishes, "asked": asked})
    watcher.progress("Calibrating the noise", 1, 1)
    return plan


def _changed(kept: dict, wishes: dict) -> list[str]:
    """Names of the wishes that differ from those kept.

    One that an older version did not know counts as left at its default.
    """
    before = wishing.wishes_before(kept)
    if wishing.answered_late(before, wishes):
        before["overlap_answer"] = wishes["overlap_answer"]
    wishes = json.loads(json.dumps(wishes))
    return sorted(k for k, v in wishes.items() if before.get(k, v) != v)


def _refuse_if_spent(workspace: Workspace, kept: dict, changed: list[str]) -> None:
    """Results that were paid for are not thrown away for other wishes."""
    if _spent(workspace, kept):
        names = ", ".join(_ABOUT_DATA.get(name, name) for name in changed)
        raise UserError(
            f"This project has spent budget under other wishes ({names}): "
            "set them back, or start a new project folder; it spends budget of its own."
        )


def _spent(workspace: Workspace, kept: dict) -> bool:
    """Whether anything was charged for a plan that is kept."""
    run = planning.plan_from_facts(kept["plan"]).run
    with open_ledger(workspace) as ledger:
        return bool(ledger.charged(kept["wishes"]["fingerprint"], run=run))


def planned_for(workspace: Workspace, dataset: ImageDataset) -> bool:
    """Whether the plan that is kept is for these very images."""
    kept = workspace.result("plan") if workspace.finished("plan") else {}
    return kept.get("wishes", {}).get("fingerprint") == dataset.fingerprint


def fine_tune(
    workspace: Workspace, plan: Plan, dataset: ImageDataset, watcher: Watcher
) -> FineTuned:
    """Spend the budget: charge, train with privacy, keep the averaged weights.

    Raises:
        UserError: when it would go above the data set's lifetime cap, somebody else
            spends on the data set, or the ledger or the disk cannot be used.
    """
    folder = workspace.folder("training")
    if workspace.finished("training"):
        facts = workspace.result("training")
        known = {field.name for field in fields(FineTuned)} & facts.keys()
        return FineTuned(folder=folder / MODEL, **{name: facts[name] for name in known})
    require_space(folder, _bytes_needed(plan))
    remove_unfinished(private_folder(folder / MODEL))
    with alone_with(dataset.fingerprint), open_ledger(workspace) as ledger:
        refuse_above_cap(ledger, plan, dataset.fingerprint)
        tuned = trainer.fine_tune(
            plan, dataset, folder, ledger, device=_device(workspace), watcher=watcher
        )
    facts = {key: value for key, value in asdict(tuned).items() if key != "folder"}
    workspace.finish("training", facts)
    return tuned


def synthesise(workspace: Workspace, plan: Plan, watcher: Watcher) -> SyntheticSet:
    """Draw the synthetic images; costs no privacy.

    Raises:
        UserError: when the disk cannot hold them; a set that is there stays whole then.
        Stopped: between two batches; what is drawn is kept.
    """
    workspace.result("training")
    hardware, number = choose_hardware(_device(workspace)), plan.recipe.images_per_class
    training = workspace.path / "training"
    done = workspace.finished("samples") and workspace.result("samples")
    if not done or done["per_class"] != number:
        require_space(workspace.folder("samples"), _bytes_of_images(plan))
        # Until they are as many as is wished, nobody may take them for a whole set, nor
        # what was measured on, or written of, the others for theirs.
        for stage in ("samples", *_AFTER_SAMPLES):
            workspace.reopen(stage)
    synthetic = sampling.synthesise(
        workspace.folder("samples"),
        class_names=plan.class_names,
        per_class=number,
        draw=drawing_of(plan, training, hardware),
        hardware=hardware,
        watcher=watcher,
        name=naming_of(plan, training, hardware),
        batch=sampling.batch_size(hardware, plan.resolution),
    )
    facts = {"per_class": synthetic.per_class, "unnamed": synthetic.unnamed}
    workspace.finish("samples", facts)
    return synthetic


def evaluate(
    workspace: Workspace,
    plan: Plan,
    dataset: ImageDataset,
    watcher: Watcher,
    *,
    recipe: ClassifierRecipe | None = None,
) -> UtilityReport:
    """Measure what the synthetic images teach a classifier; internal.

    Args:
        recipe: A published classifier's settings; None for our own.
    """
    synthetic = _synthetic(workspace, plan)
    stamp = report.stamp(per_class=synthetic.per_class, run=plan.run, recipe=recipe)
    # A published one's figures do not stand for our own.
    stage = PUBLISHED if recipe else "utility"
    if known := _measured(workspace, stage, stamp):
        return known
    images, labels = synthetic.read()
    result = report.evaluate(
        dataset,
        images,
        labels,
        flip=plan.recipe.flip,
        device=_device(workspace),
        watcher=watcher,
        recipe=recipe,
        learn=train_privately if recipe and recipe.private else train_published,
    )
    workspace.finish(stage, {"report": result.to_json(), "of": stamp})
    return result


def measured(
    workspace: Workspace, plan: Plan, synthetic: SyntheticSet
) -> UtilityReport | None:
    """What `evaluate` found for these images, None when it has not yet."""
    stamp = report.stamp(per_class=synthetic.per_class, run=plan.run)
    return _measured(workspace, "utility", stamp)


def _measured(workspace: Workspace, stage: str, stamp: dict) -> UtilityReport | None:
    kept = workspace.result(stage) if workspace.finished(stage) else {}
    return UtilityReport.from_json(kept["report"]) if kept.get("of") == stamp else None


def export(
    workspace: Workspace, plan: Plan, destination: Path, watcher: Watcher
) -> Release:
    """Write the release: images, audit, reports, hashes. Nothing internal.

    Raises:
        UserError: when nobody confirmed the classes or private images had trained the
            checkpoint (a plan of an older version), the ledger does not know the run,
            or the release cannot be written.
    """
    kept = workspace.result("plan")
    # PRIVACY: the report is of what was trained, not of what was tried and refused.
    project = wishing.as_planned(workspace.project or Project(), kept["wishes"])
    wishing.refuse_unconfirmed(project, plan.class_names)
    # PRIVACY: what is claimed of the images would not count what it had learnt.
    refuse_private(plan.checkpoint)
    training = workspace.result("training")
    workspace.folder("release")  # The usual destination lies in it.
    synthetic = _synthetic(workspace, plan)
    with open_ledger(workspace) as ledger:
        spent = spending_so_far(ledger, plan, kept["wishes"]["fingerprint"])
        head = sealed_head(workspace, ledger.head())
    # PRIVACY: a report of nothing spent would be false.
    if not spent.of_run:
        raise UserError(
            "The ledger holds no charge of this project, so no report could say what "
            "was spent: restore the ledger that it was trained with."
        )
    facts = audit_facts(
        plan,
        project,
        trainable_parameters=trained_parameters(
            workspace.path / "training" / MODEL, plan.recipe
        )
        if plan.mechanism
        else 0,
        updates=training["updates"],
        steps_charged=training["steps_charged"],
        epsilon_charged=spent.of_run,
        lifetime_epsilon=spent.of_all,
        lifetime_runs=spent.runs,
        sealed_head=head,
        unnamed=synthetic.unnamed,
    )
    release = export_release(
        facts, synthetic.class_folders, destination.expanduser(), watcher
    )
    workspace.finish("release", {"folder": str(release.folder)})
    return release


def spending(workspace: Workspace, plan: Plan, dataset: ImageDataset) -> Spending:
    """What was and what would be spent on these data."""
    with open_ledger(workspace) as ledger:
        return spending_with(ledger, plan, dataset.fingerprint)


def _synthetic(workspace: Workspace, plan: Plan) -> SyntheticSet:
    kept = workspace.result("samples")
    folder = workspace.path / "samples"
    synthetic = sampling.locate(folder, plan.class_names, kept["per_class"])
    unnamed = kept.get("unnamed")  # An older version had no teacher.
    return replace(synthetic, unnamed=None if unnamed is None else tuple(unnamed))


def _bytes_needed(plan: Plan) -> int:
    """Three training states of four single-precision copies, and the images."""
    states = 3 * 4 * 4 * plan.checkpoint.parameters if plan.checkpoint else 0
    return states + _bytes_of_images(plan)


def _bytes_of_images(plan: Plan) -> int:
    """The images twice; all that is drawn is kept where a teacher names it."""
    pixels = plan.resolution**2 * plan.image_channels
    images = plan.recipe.images_per_class * len(plan.class_names)
    copies = 2 + (PATIENCE + 1 if plan.recipe.teacher_labels else 0)
    return copies * images * max(pixels, 4096)


def _device(workspace: Workspace) -> str:
    return (workspace.project or Project()).device
