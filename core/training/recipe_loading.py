"""Recipes from their files, for the ε that they are wanted for."""

from __future__ import annotations

from typing import Any, Final, get_type_hints

from core.bundled import recipe_folder, recipe_names
from core.errors import UserError
from core.recipe_files import read_recipe_file
from core.training.recipe import MOMENTS, UNTRAINED, Recipe

UP_TO: Final = "up_to_epsilon"


def load_recipe(name: str, *, epsilon: float | None = None, **changes: Any) -> Recipe:
    """Read a recipe; `changes` that are not None replace its fields.

    A table `[strict]` in it holds the fields that are other for a small ε, and with
    `up_to_epsilon` how small.

    Args:
        name: A bundled recipe, or the path of a TOML file.
        epsilon: Of the budget; None reads the recipe as it is for a large one.

    Raises:
        UserError: when there is none, a field is missing, unknown or out of range.
    """
    return read_recipe_file(
        Recipe,
        name,
        recipe_folder(),
        recipe_names(),
        changes,
        completed=lambda content: _completed(name, content, epsilon),
    )


def _completed(
    name: str, content: dict[str, Any], epsilon: float | None
) -> dict[str, Any]:
    strict = content.pop("strict", {UP_TO: 0.0})
    limit = strict.pop(UP_TO, None) if isinstance(strict, dict) else None
    if type(limit) not in (int, float) or strict.keys() - get_type_hints(Recipe).keys():
        raise UserError(
            f"In the recipe {name}, the table strict must hold {UP_TO} and fields that "
            "a recipe has: correct it."
        )
    if epsilon is not None and epsilon <= limit:
        content |= strict
    untrained = UNTRAINED if content.get("pictures") == MOMENTS else {}
    return untrained | content
