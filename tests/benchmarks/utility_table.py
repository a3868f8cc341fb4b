"""The table of `make bench-utility`, from the figures that its runs left."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from statistics import mean

RECIPES = (
    Path(__file__).parents[2] / "resources" / "recipes",
    Path(__file__).parent / "recipes",
)
DATA = {
    "fashion": "Fashion-MNIST, 60,000 images declared",
    "mnist": "MNIST, 4,500 digits declared",
}
HEAD = """\
# What synthetic images teach a classifier

Written by `make bench-utility` from `utility.json`; do not edit. A line is one recipe:
whole jobs on two shared CPU cores without a graphics card, δ = 1e-5, the unit an image.
Accuracy on real images that no run has seen, of small classifiers trained on synthetic
images only (2,400 updates each): the mean of three, then the three, convolutional,
residual and grouped; a second seed after the semicolon. Nothing is chosen by it. The
minutes are the processor's until the pictures lie on disk (none: begun by one version,
finished by another).
"""


def page(found: Iterable[dict]) -> str:
    """Markdown of all runs.

    Args:
        found: The figures of each run, as `utility.figures` gives them.

    Returns:
        A table for each data set and ε, the best recipe first.
    """
    runs = sorted(found, key=lambda run: (run["data"], -run["epsilon"], run["recipe"]))
    parts = [HEAD]
    for (data, epsilon), group in groupby(
        runs, lambda run: (run["data"], run["epsilon"])
    ):
        budget = f"ε = {epsilon:g}" if epsilon else "the real images"
        parts += [f"## {DATA[data]}: {budget}\n", *table(list(group)), ""]
    return "\n".join(parts)


def table(runs: list[dict]) -> Iterator[str]:
    """The lines of one table, a recipe each, by falling accuracy."""
    yield "| recipe | what it is | mean | each | images | minutes |"
    yield "| --- | --- | --- | --- | --- | --- |"
    recipes = [list(group) for _, group in groupby(runs, lambda run: run["recipe"])]
    for group in sorted(recipes, key=lambda group: -mean(map(share, group))):
        seeds = sorted(group, key=lambda run: run["seed"])
        yield "| " + " | ".join((
            f"`{seeds[0]['recipe']}`",
            title(seeds[0]["recipe"]),
            "; ".join(f"{100 * share(run):.1f}" for run in seeds),
            "; ".join(each(run) for run in seeds),
            f"{seeds[0]['images']:,}" if "images" in seeds[0] else "–",
            "; ".join(minutes(run) for run in seeds),
        )) + " |"  # fmt: skip


def share(run: dict) -> float:
    """Mean over the classifiers, 0 to 1."""
    return mean(run["accuracies"].values())


def each(run: dict) -> str:
    return ", ".join(f"{100 * share:.1f}" for share in run["accuracies"].values())


def minutes(run: dict) -> str:
    spent = run.get("CPU minutes", 0)
    return f"{spent:.1f}" if spent else "–"


def title(recipe: str) -> str:
    """What the recipe's file says of it; nothing of a recipe that is no more."""
    for folder in RECIPES:
        path = folder / f"{recipe}.toml"
        if path.is_file():
            return tomllib.loads(path.read_text(encoding="utf-8"))["title"]
    return "–"
