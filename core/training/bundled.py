"""The recipes that come with Sfumato. Imports no torch: the window lists them."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path


def recipe_folder() -> Path:
    """Where the bundled recipes lie."""
    return Path(str(resources.files("resources"))) / "recipes"


def recipe_names() -> tuple[str, ...]:
    """The bundled recipes, by name."""
    return tuple(sorted(path.stem for path in recipe_folder().glob("*.toml")))


def recipe_titles() -> dict[str, str]:
    """Name → title for people, of the bundled recipes."""
    return {name: str(tomllib.loads(_text(name))["title"]) for name in recipe_names()}


def _text(name: str) -> str:
    return (recipe_folder() / f"{name}.toml").read_text(encoding="utf-8")
