"""Options of the command line that stand for a project's wishes, and their kinds."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn

from core.errors import UserError
from core.workspace import Project, read_wishes, saved_wishes

_GREY = "read the images as grey"
DECLARATIONS = {
    "window": "values shown as black and white in 16-bit and DICOM images: -160,240",
    "classes": "the classes to read, separated by semicolons",
    "unit_column": "what the images are grouped by: a column, or patient, slide, "
    "hospital; patients can be protected where it names them",
    "missing_unit": "images without a patient: own_unit or leave_out",
    "path_column": "column of a CSV manifest that names the file",
    "label_column": "column of a table that names the class",
    "split_column": "column of a table that names the split",
}
_HELP = DECLARATIONS | {
    "source": "folder of private images, or the table in it that names them",
    "resolution": "working resolution, pixels per side",
    "grey": _GREY,
    "cache": "where reduced copies of the images are kept: disk, encrypted or memory",
    "declared_count": "a public number, at least as many as there are training images, "
    "or training patients where they are the unit",
    "unit": "whom the bound protects: image or patient",
    "max_images_per_unit": "images of a patient looked at in one step",
    "checkpoint": "public network to start from: the name of one that is at hand "
    "(sfumato import-checkpoint lists them) or a folder",
    "overlap_answer": "could the checkpoint have been trained on these people: no, "
    "unsure or yes",
    "overlap_reason": "how that is known; it is printed in the report",
    "epsilon": "how much may be spent: 1 is strict, 10 is what published work uses",
    "delta": "how improbable it must be that the bound does not hold: a power of ten "
    "of at most 1/(10 N) for N records",
    "relation": "which change of the data is hidden: add_or_remove_one, "
    "replace_special or replace_one",
    "steps": "training steps, instead of the recipe's",
    "batch_size": "expected records in a step, instead of the recipe's",
    "augmentation_multiplicity": "views of an image in a step, instead of the recipe's",
    "images_per_class": "synthetic images of each class, instead of the recipe's",
    "title": "name of the release",
    "device": "what computes: auto, cpu or cuda",
}
_UNSAID = (
    "Say how much may be spent: --epsilon (1 is strict, 10 is what published work "
    "uses); `sfumato budget` shows what it means and spends nothing."
)


class Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong with the arguments, as all else is said."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        # argparse says "argument --epsilon: …"; our kinds say "must be …" after that.
        said = message.removeprefix("argument ").replace(": must be", " must be", 1)
        self.exit(2, f"sfumato: {said} (see {self.prog} --help).\n")


def number(text: str) -> float:
    """Any number, as an option's value."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a number such as 3, not {text!r}"
        ) from None


def whole(text: str) -> int:
    """A whole number, as an option's value; commas may part its thousands."""
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", text):
        text = text.replace(",", "")
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a whole number such as 3, not {text!r}"
        ) from None


def add_declarations(command: argparse.ArgumentParser) -> None:
    """What cannot be found out about a folder, or must not be."""
    command.add_argument("--grey", action="store_true", help=_GREY)
    for name, words in DECLARATIONS.items():
        option = "--" + name.replace("_", "-")
        command.add_argument(option, default="", help=words)


def add_wishes(command: argparse.ArgumentParser) -> None:
    """One option for every field of a project."""
    from core.data.options import split_names

    kinds: dict[str, Any] = {"epsilon": number, "delta": number, "classes": split_names}
    for field in fields(Project):
        option = "--" + field.name.replace("_", "-")
        words = _recipe_list() if field.name == "recipe" else _HELP[field.name]
        if isinstance(field.default, bool):
            command.add_argument(option, action="store_true", default=None, help=words)
            continue
        is_whole = field.default is None or type(field.default) is int
        command.add_argument(
            option,
            type=kinds.get(field.name, whole if is_whole else str),
            default=None,
            help=words + _usual(field.name, field.default),
        )


def _usual(name: str, default: object) -> str:
    """The default, for the help, where there is one to tell."""
    # Nothing is spent that nobody asked for: only `budget` takes one for granted.
    if name == "epsilon" or default in (None, "", ()):
        return ""
    return f" (default: {default})"


def _recipe_list() -> str:
    """The bundled recipes, for the help; a TOML file does as well."""
    from core.bundled import recipe_titles

    listed = "; ".join(f"{name}: {title}" for name, title in recipe_titles().items())
    return f"a TOML file, or one of: {listed}".replace("%", "%%")


def wishes_given(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of a project's fields; None where an option was left out."""
    return {field.name: getattr(options, field.name) for field in fields(Project)}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What somebody has said, and did not leave to a default or to another time.

    Attributes:
        unit: Whom to protect.
        overlap: Whether the network could know the people in these images: now, or when
            they lay in the same folder.
    """

    unit: bool
    overlap: bool


def project_wished(options: argparse.Namespace) -> tuple[Project, Said]:
    """The project of `sfumato run`: its options, over a file's wishes or those saved.

    Raises:
        UserError: when a file cannot be used, or nobody said how much may be spent.
    """
    saved = saved_wishes(options.project.expanduser())
    wishes = dict(saved or {})
    if options.config:
        wishes = read_wishes(options.config.expanduser())
    given = {k: v for k, v in wishes_given(options).items() if v is not None}
    # What is spent is the custodian's decision, and no default's.
    if "epsilon" not in wishes | given:
        raise UserError(_UNSAID)
    before = None if saved is None else Project(**saved)
    project = anchored(Project(**wishes | given), before)
    answered, meant = "overlap_answer" in given, anchored(Project(**wishes), before)
    about_one = bool(wishes.get("source") or wishes.get("checkpoint"))
    # PRIVACY: an answer about one checkpoint says nothing of another.
    if not answered and about_one and meant.checkpoint != project.checkpoint:
        project = replace(project, overlap_answer="", overlap_reason="")
    # PRIVACY: nor one about these people, of others.
    same = not wishes.get("source") or meant.source == project.source
    return project, Said(unit="unit" in wishes | given, overlap=answered or same)


def anchored(project: Project, saved: Project | None = None) -> Project:
    """The same wishes, whose paths hold wherever the program is started next.

    A name of ours stays a name, as it is one where it is looked up, even when a file or
    folder here is called the same: `./starter` is the folder.

    Args:
        project: As it was asked for.
        saved: The wishes kept so far. A checkpoint folder that is the same stays as it
            is written there: an older version paid for it under that wish.
    """
    from core.bundled import recipe_names
    from core.checkpoints.catalogue import is_named

    paths = {"source": _whole(project.source)} if project.source else {}
    recipe, checkpoint = _whole(project.recipe), _whole(project.checkpoint)
    is_file = recipe.lower().endswith(".toml") or os.path.isfile(recipe)
    if is_file and project.recipe not in recipe_names():
        paths["recipe"] = recipe
    if os.path.isdir(checkpoint) and not is_named(project.checkpoint):
        if saved is not None and _whole(saved.checkpoint) == checkpoint:
            checkpoint = saved.checkpoint
        paths["checkpoint"] = checkpoint
    return replace(project, **paths)


def _whole(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path)) if path else ""


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
