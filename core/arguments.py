"""Options of the command line that stand for a project's wishes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

_GREY = "read the images as grey"
DECLARATIONS = {
    "window": "values shown as black and white in 16-bit and DICOM images: -160,240",
    "classes": "the classes to read, separated by semicolons",
    "unit_column": "what names the patient: a column, or patient, slide, hospital",
    "missing_unit": "images without a patient: own_unit or leave_out",
    "path_column": "column of a CSV manifest that names the file",
    "label_column": "column of a table that names the class",
    "split_column": "column of a table that names the split",
}
_HELP = DECLARATIONS | {
    "cache": "where reduced copies of the images are kept: disk, encrypted or memory",
    "overlap_answer": "could the checkpoint have been trained on these people: no, "
    "unsure or yes",
    "overlap_reason": "how that is known; it is printed in the report",
}


def add_declarations(command: argparse.ArgumentParser) -> None:
    """What cannot be found out about a folder, or must not be."""
    command.add_argument("--grey", action="store_true", help=_GREY)
    for name, words in DECLARATIONS.items():
        option = "--" + name.replace("_", "-")
        command.add_argument(option, default="", help=words)


def add_wishes(command: argparse.ArgumentParser) -> None:
    """One option for every field of a project."""
    from core.data.options import split_names
    from core.workspace import Project

    kinds: dict[str, Any] = {"epsilon": float, "delta": float, "classes": split_names}
    for field in fields(Project):
        option = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            command.add_argument(option, action="store_true", default=None, help=_GREY)
            continue
        whole = field.default is None or type(field.default) is int
        command.add_argument(
            option,
            type=kinds.get(field.name, int if whole else str),
            default=None,
            help=_recipe_list() if field.name == "recipe" else _HELP.get(field.name),
        )


def _recipe_list() -> str:
    """The bundled recipes, for the help; a TOML file does as well."""
    from core.bundled import recipe_titles

    listed = "; ".join(f"{name}: {title}" for name, title in recipe_titles().items())
    return f"a TOML file, or one of: {listed}".replace("%", "%%")


def wishes_given(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of a project's fields; None where an option was left out."""
    from core.workspace import Project

    return {field.name: getattr(options, field.name) for field in fields(Project)}


def windows_joined(arguments: Sequence[str]) -> list[str]:
    """The same, with `--window -160,240` in one piece.

    The parser would take a value that starts with a minus for an option of its own.
    """
    joined: list[str] = []
    for argument in arguments:
        if joined[-1:] == ["--window"]:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
