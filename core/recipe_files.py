"""Reading recipes from TOML: every field of its kind, none missing, none unknown."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from core.errors import UserError

R = TypeVar("R")


def refusal(recipe: Any, name: str, wanted: str) -> UserError:
    """The sentence about a field that cannot be what it is."""
    return UserError(
        f"In the recipe {recipe.name}, {name.replace('_', ' ')} must be {wanted}, "
        f"not {getattr(recipe, name)!r}: correct it."
    )


def check_wishes(wishes: dict[str, Any]) -> None:
    """Refuse numbers that nobody can mean, whatever the recipe says.

    Args:
        wishes: Name of a whole number → what was asked for; None for nothing.

    Raises:
        UserError: naming the wish, and not the recipe.
    """
    for name, value in wishes.items():
        if name in _COUNTS and value is not None and value < 1:
            option = "--" + name.replace("_", "-")
            raise UserError(
                f"The {_COUNTS[name]} must be 1 or more, not {value}: correct it "
                f"({option}), or leave it out."
            )
    if (number := wishes.get("images_per_class") or 0) > MOST_IMAGES_PER_CLASS:
        raise UserError(
            f"{number:,} images of each class are more than can be drawn: ask for "
            f"{MOST_IMAGES_PER_CLASS:,} or fewer (--images-per-class)."
        )
    # Before anything of that size is tried out: memory grows with its square.
    if (side := wishes.get("resolution")) is not None and not 8 <= side <= 1024:
        raise UserError(
            f"A resolution of {side} pixels cannot be worked at: choose 8 to 1024 "
            "(--resolution)."
        )


MOST_IMAGES_PER_CLASS = 1_000_000

_COUNTS = {
    "steps": "number of steps",
    "batch_size": "batch size",
    "augmentation_multiplicity": "augmentation multiplicity",
    "images_per_class": "number of images per class",
    "images": "number of images",
}


def check_kinds(recipe: Any) -> None:
    """Refuse a value of another kind than its field's.

    Raises:
        UserError: naming the field.
    """
    for name, kind in get_type_hints(type(recipe)).items():
        if not _is(getattr(recipe, name), kind):
            raise refusal(recipe, name, _words(kind))


def _is(value: object, kind: Any) -> bool:
    """Whether a value read from a file is of this kind; a bool is no number."""
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        return len(value) == len(kinds) and all(map(_is, value, kinds))
    if kind is float:
        return type(value) in (int, float) and abs(value) < math.inf  # type: ignore
    return type(value) is kind


def _words(kind: Any) -> str:
    names = {int: "whole number", float: "number", str: "text"}
    if kind is bool:
        return "true or false"
    if get_origin(kind) is not tuple:
        return f"a {names[kind]}"
    inner = get_args(kind)
    count = "" if inner[-1] is ... else f"{len(inner)} "
    return f"a list of {count}{names[inner[0]]}s"


def read_recipe_file(
    kind: type[R],
    name: str,
    folder: Path,
    known: tuple[str, ...],
    changes: dict[str, Any],
    completed: Callable[[dict[str, Any]], dict[str, Any]] = lambda content: content,
) -> R:
    """Read a recipe of this kind; `changes` that are not None replace its fields.

    A change that no recipe could have is refused as such (`check_wishes`).

    Args:
        name: One of `known`, which lie in `folder`, or the path of a TOML file.
        completed: What is in the file → the same with the fields that it leaves out.

    Raises:
        UserError: when there is none, a field is missing, unknown or out of range.
    """
    check_wishes(changes)
    path = folder / f"{name}.toml" if name in known else Path(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        listed = ", ".join(known)
        raise UserError(f"There is no recipe {name!r}: use one of {listed}.") from None
    except UnicodeDecodeError:
        raise UserError(
            f"The recipe {path} is not text in UTF-8: save it as such."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(
            f"The recipe {path} is not valid TOML ({error}): correct that line."
        ) from None
    content = {"name": path.stem} | completed(content)
    content |= {key: value for key, value in changes.items() if value is not None}
    own = fields(kind)  # type: ignore[arg-type]
    known_fields = {field.name for field in own}
    needed = {field.name for field in own if field.default is MISSING}
    wrong = (content.keys() - known_fields) | (needed - content.keys())
    if wrong:
        raise UserError(
            f"The recipe {path} has missing or unknown fields: "
            f"{', '.join(sorted(wrong))}."
        )
    return kind(
        **{
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.items()
        }
    )
