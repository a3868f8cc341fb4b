"""The recipes that come with Sfumato. Imports no torch: the window lists them."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path


def recipe_folder() -> Path:
    """Where the bundled recipes lie."""
    return Path(str(resources.files("resources"))) / "recipes"


def recipe_names() -> tuple[str, ...]:
    """The bundled recipes, by name."""
    return tuple(sorted(path.stem for path in recipe_folder().glob("*.toml")))


def pretraining_folder() -> Path:
    """Where the bundled settings for public pretraining lie."""
    return recipe_folder() / "pretraining"


def pretraining_names() -> tuple[str, ...]:
    """The bundled settings for public pretraining, by name."""
    return tuple(sorted(path.stem for path in pretraining_folder().glob("*.toml")))


def classifier_folder() -> Path:
    """Where the bundled settings of published classifiers lie."""
    return recipe_folder() / "classifiers"


def classifier_names() -> tuple[str, ...]:
    """The bundled settings of published classifiers, by name."""
    return tuple(sorted(path.stem for path in classifier_folder().glob("*.toml")))


def recipe_titles() -> dict[str, str]:
    """Name → title for people, with what it needs; those that need nothing first."""
    contents = {name: tomllib.loads(_text(name)) for name in recipe_names()}
    by_needs = sorted(contents, key=lambda name: bool(contents[name].get("needs")))
    return {name: _title(contents[name]) for name in by_needs}


@cache
def recipes_without_checkpoint() -> frozenset[str]:
    """Those that use no network, or train one from nothing."""
    contents = {name: tomllib.loads(_text(name)) for name in recipe_names()}
    return frozenset(
        name
        for name, content in contents.items()
        if content.get("network")
        or (content.get("pictures") == "moments" and not content.get("refine_sigma"))
    )


def _title(content: dict) -> str:
    needs = content.get("needs")
    return f"{content['title']} (needs {needs})" if needs else str(content["title"])


def _text(name: str) -> str:
    return (recipe_folder() / f"{name}.toml").read_text(encoding="utf-8")
