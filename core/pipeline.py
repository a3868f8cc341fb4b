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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from core.checkpoints.cards import read_card
from core.data import ImageDataset, load
from core.disclosure import audit_facts
from core.errors import UserError
from core.evaluation import report
from core.evaluation.report import UtilityReport
from core.events import Watcher
from core.files import private_folder, read_json, require_space, write_json
from core.privacy.accounting import Charge, epsilon
from core.privacy.ledger import Ledger
from core.release import Release, export_release
from core.synthesis import sampling
from core.synthesis.sampling import SyntheticSet
from core.training import plan as planning
from core.training import trainer
from core.training.plan import Plan
from core.training.preview import BudgetPreview, preview
from core.training.trainer import MODEL, FineTuned
from core.training.units import group_units
from core.workspace import Project, Workspace, user_folder

__all__ = [
    "BudgetPreview", "FineTuned", "Plan", "Release", "Spending", "SyntheticSet",
    "UtilityReport", "evaluate", "export", "fine_tune", "load_dataset", "make_plan",
    "preview", "spending", "synthesise",
]  # fmt: skip

_AFTER_PLAN = ("training", "samples", "utility", "release")
_FREE_WISHES = ("images_per_class", "title", "device", "source")
"""Wishes that may change after training without a new run and a new expense."""


def load_dataset(
    workspace: Workspace, project: Project, watcher: Watcher
) -> ImageDataset:
    """Read the private folder into a memory-mapped cache."""
    dataset = load(
        Path(project.source).expanduser(),
        private_folder(workspace.folder("dataset") / "cache"),
        resolution=project.resolution,
        grey=project.grey,
        watcher=watcher,
    )
    workspace.finish("dataset", {"fingerprint": dataset.fingerprint})
    return dataset


def make_plan(
    workspace: Workspace, project: Project, dataset: ImageDataset, watcher: Watcher
) -> Plan:
    """Bind data set, checkpoint, recipe and budget to a mechanism. Spends nothing.

    The same wishes for the same data give the same plan again, so that training goes
    on. Other wishes give a new run, unless the old one has spent already.

    Raises:
        UserError: when anything does not fit together, or the project has spent budget
            under other wishes.
    """
    watcher.progress("Calibrating the noise", 0, 1)
    wishes = {k: v for k, v in asdict(project).items() if k not in _FREE_WISHES}
    wishes["fingerprint"] = dataset.fingerprint
    recipe = planning.read_recipe(project)
    if workspace.finished("plan"):
        kept = workspace.result("plan")
        if kept["wishes"] == json.loads(json.dumps(wishes)):
            plan = planning.plan_from_facts(kept["plan"])
            number = recipe.images_per_class
            return replace(plan, recipe=replace(plan.recipe, images_per_class=number))
        _refuse_if_spent(workspace, kept, wishes)
    plan = planning.make_plan(
        project,
        run=uuid.uuid4().hex,
        class_names=dataset.class_names,
        image_channels=dataset.images.shape[3],
        units_present=group_units(dataset, planning.read_budget(project).unit).present,
    )
    for stage in _AFTER_PLAN:
        shutil.rmtree(workspace.path / stage, ignore_errors=True)
    facts = planning.plan_facts(plan)
    workspace.finish("plan", {"plan": facts, "wishes": wishes})
    watcher.progress("Calibrating the noise", 1, 1)
    return plan


def _refuse_if_spent(workspace: Workspace, kept: dict, wishes: dict) -> None:
    """Results that were paid for are not thrown away for other wishes."""
    old = planning.plan_from_facts(kept["plan"])
    with _ledger(workspace) as ledger:
        spent = ledger.charged(kept["wishes"]["fingerprint"], old.terms, old.run)
    if not spent:
        return
    changed = sorted(k for k in wishes if kept["wishes"].get(k) != wishes[k])
    raise UserError(
        f"This project has spent budget under other wishes ({', '.join(changed)}): set "
        "them back, or start a new project folder; it spends budget of its own."
    )


def fine_tune(
    workspace: Workspace, plan: Plan, dataset: ImageDataset, watcher: Watcher
) -> FineTuned:
    """Spend the budget: charge, train with privacy, keep the averaged weights."""
    folder = workspace.folder("training")
    if workspace.finished("training"):
        facts = workspace.result("training")
        return FineTuned(folder=folder / MODEL, **facts)
    require_space(folder, _bytes_needed(plan))
    with _ledger(workspace) as ledger:
        tuned = trainer.fine_tune(
            plan, dataset, folder, ledger, device=_device(workspace), watcher=watcher
        )
    facts = {key: value for key, value in asdict(tuned).items() if key != "folder"}
    workspace.finish("training", facts)
    return tuned


def synthesise(workspace: Workspace, plan: Plan, watcher: Watcher) -> SyntheticSet:
    """Draw the synthetic images; costs no privacy."""
    workspace.result("training")
    synthetic = sampling.synthesise(
        workspace.path / "training" / MODEL,
        workspace.folder("samples"),
        class_names=plan.class_names,
        per_class=plan.recipe.images_per_class,
        grey=plan.image_channels == 1,
        sampler=plan.recipe.sampler,
        sampler_steps=plan.recipe.sampler_steps,
        device=_device(workspace),
        watcher=watcher,
    )
    workspace.finish("samples", {"per_class": synthetic.per_class})
    return synthetic


def evaluate(
    workspace: Workspace, plan: Plan, dataset: ImageDataset, watcher: Watcher
) -> UtilityReport:
    """Measure what the synthetic images teach a classifier; internal."""
    synthetic = _synthetic(workspace, plan)
    stamp = {"per_class": synthetic.per_class, "run": plan.run}
    if workspace.finished("utility"):
        kept = workspace.result("utility")
        if kept["of"] == stamp:
            return UtilityReport.from_json(kept["report"])
    images, labels = synthetic.read()
    result = report.evaluate(
        dataset,
        images,
        labels,
        flip=plan.recipe.flip,
        device=_device(workspace),
        watcher=watcher,
    )
    workspace.finish("utility", {"report": result.to_json(), "of": stamp})
    return result


def export(
    workspace: Workspace, plan: Plan, destination: Path, watcher: Watcher
) -> Release:
    """Write the release: images, audit, reports, hashes. Nothing internal."""
    training = workspace.result("training")
    workspace.folder("release")  # The usual destination lies in it.
    synthetic = _synthetic(workspace, plan)
    fingerprint = workspace.result("dataset")["fingerprint"]
    project = workspace.project or Project()
    with _ledger(workspace) as ledger:
        entries = ledger.entries(fingerprint)
        spent = _epsilon(plan, ledger.charged(fingerprint, plan.terms))
        charged = _epsilon(plan, ledger.charged(fingerprint, plan.terms, plan.run))
        head = ledger.head()
    facts = audit_facts(
        plan,
        project,
        trainable_parameters=read_card(workspace.path / "training" / MODEL).parameters,
        updates=training["updates"],
        steps_charged=training["steps_charged"],
        epsilon_charged=charged,
        lifetime_epsilon=spent,
        lifetime_runs=len({entry.account.run for entry in entries}),
        ledger_head=head,
    )
    release = export_release(
        facts, synthetic.class_folders, destination.expanduser(), watcher
    )
    workspace.finish("release", {"folder": str(release.folder)})
    return release


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What the ledger holds of a data set, under the plan's unit and relation.

    Attributes:
        before: ε charged by all other runs on it.
        after: ε charged once this plan has run to its end.
        steps_done: Steps of this plan already charged; above 0 it was interrupted.
        epsilon_charged: ε charged to this plan so far.
        other_terms: Other units or relations that were charged; they do not add up
            with these.
    """

    before: float
    after: float
    steps_done: int
    epsilon_charged: float
    other_terms: tuple[str, ...]


def spending(workspace: Workspace, plan: Plan, dataset: ImageDataset) -> Spending:
    """What was and what would be spent on these data."""
    with _ledger(workspace) as ledger:
        entries = ledger.entries(dataset.fingerprint)
        everything = ledger.charged(dataset.fingerprint, plan.terms)
        own = ledger.charged(dataset.fingerprint, plan.terms, plan.run)
    others = _difference(everything, own)
    terms = {entry.account.terms for entry in entries} - {plan.terms}
    return Spending(
        before=_epsilon(plan, others),
        after=_epsilon(plan, (*others, *plan.charges())),
        steps_done=sum(c.count for c in own if c.batch_cap is not None),
        epsilon_charged=_epsilon(plan, own),
        other_terms=tuple(sorted(terms)),
    )


def _difference(
    everything: tuple[Charge, ...], own: tuple[Charge, ...]
) -> tuple[Charge, ...]:
    spent = {replace(charge, count=0): charge.count for charge in own}
    left = (
        replace(charge, count=charge.count - spent.get(replace(charge, count=0), 0))
        for charge in everything
    )
    return tuple(charge for charge in left if charge.count > 0)


def _epsilon(plan: Plan, charges: tuple[Charge, ...]) -> float:
    return epsilon(charges, plan.budget.delta, plan.budget.relation)


def _synthetic(workspace: Workspace, plan: Plan) -> SyntheticSet:
    per_class = workspace.result("samples")["per_class"]
    return sampling.locate(workspace.path / "samples", plan.class_names, per_class)


def _bytes_needed(plan: Plan) -> int:
    """Three training states of four single-precision copies, and the images twice."""
    states = 3 * 4 * 4 * plan.checkpoint.parameters
    pixels = plan.resolution**2 * plan.image_channels
    images = plan.recipe.images_per_class * len(plan.class_names)
    return states + 2 * images * max(pixels, 4096)


def _device(workspace: Workspace) -> str:
    return (workspace.project or Project()).device


@contextmanager
def _ledger(workspace: Workspace) -> Iterator[Ledger]:
    """The user's ledger, checked against the head that this workspace saw last."""
    ledger = Ledger(user_folder() / "ledger.sqlite3")
    seen = workspace.path / "ledger-head.json"
    try:
        if seen.is_file() and not ledger.contains(read_json(seen)["head"]):
            # PRIVACY: a ledger that was rolled back would forget what was spent.
            raise UserError(
                f"The budget ledger {ledger.path} has forgotten charges that this "
                "project made: restore its newest copy before you spend more."
            )
        try:
            yield ledger
        finally:
            write_json(seen, {"head": ledger.head()})
    finally:
        ledger.close()
