"""Applies what the custodian declared to the records that a layout found."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import replace
from difflib import SequenceMatcher

import numpy as np

from core.data.dataset import ImageDataset, Problem, Split, shown
from core.data.formats.base import Index
from core.data.options import LEAVE_OUT, OWN_UNIT, ReadOptions, nobody
from core.data.paths import natural
from core.errors import Undeclared, UserError

NEARLY = 0.7
"""As `difflib` measures it: "bengin" and "benign" are 0.83 alike."""


def apply_declarations(index: Index, options: ReadOptions) -> Index:
    """Keep the declared classes, and settle what becomes of images without a unit.

    Guarantee: declared classes are those of the data set, whichever of them have
    images, unless one seems to be mistyped: otherwise the only image of a class would
    decide what a release is about.

    Raises:
        UserError: If one class only is declared, or one that has no image beside
            another that is called nearly so and was not declared, or images name no
            unit and nothing was declared for that case.
    """
    return _settle_units(_declare_classes(index, options), options)


def _declare_classes(index: Index, options: ReadOptions) -> Index:
    """Number the declared classes anew, by name, and leave out all others."""
    if not options.classes:
        return index
    if len(options.classes) == 1:
        raise UserError(
            f"Only one class was declared ({shown(options.classes[0])}): name at least "
            "two with --classes."
        )
    _refuse_mistyped(index, options.classes)
    kept = _in_order(index.class_names, options.classes)
    number = np.array(
        [kept.index(name) if name in kept else -1 for name in index.class_names]
    )
    labels = number[index.labels]
    counts = Counter(index.labels[labels < 0].tolist())
    return replace(
        index,
        class_names=tuple(kept),
        classes_declared=True,
        labels=np.maximum(labels, 0),
        left_out=_also(index, labels < 0),
        problems=(
            # It makes a class now.
            *(
                found
                for found in index.problems
                if found.kind != "empty class" or found.path not in kept
            ),
            *(
                Problem(
                    path=index.class_names[label],
                    kind="undeclared class",
                    message=f"Its {count:,} images were left out, since the class is "
                    "not among those declared: declare it, or leave it so.",
                )
                for label, count in sorted(counts.items())
            ),
        ),
    )


def _refuse_mistyped(index: Index, declared: tuple[str, ...]) -> None:
    """Refuse a name that is not there where another is nearly the same.

    Any name that is not there cannot be refused: see the guarantee above. That this is
    done is said in the report, with all that is refused.
    """
    absent = [name for name in declared if name not in index.class_names]
    others = [name for name in index.class_names if name not in declared]
    for name in absent:
        none = len(absent) == len(declared)
        if none or any(_nearly(name, other) for other in others):
            raise UserError(
                f"The declared class {shown(name)} has no image, and another was not "
                "declared: correct the list of classes, or add images. The folder "
                f"holds {', '.join(index.class_names[:20])}."
            )


def _nearly(one: str, other: str) -> bool:
    """Whether a name may be the other, mistyped; other numbers are meant."""
    (words, _), (others, _) = natural(one), natural(other)
    if words[1::2] != others[1::2]:
        return False
    likeness = SequenceMatcher(None, one.casefold(), other.casefold()).ratio()
    return likeness >= NEARLY


def _in_order(found: tuple[str, ...], declared: tuple[str, ...]) -> list[str]:
    """The declared classes in the order of the layout: it is in the fingerprint."""
    kept = [name for name in found if name in declared]
    absent = sorted(set(declared) - set(found), key=natural)
    # PRIVACY: a class has the same place with its only image and without it.
    by_name = kept == sorted(kept, key=natural)
    return sorted(kept + absent, key=natural) if by_name else kept + absent


def untrained_classes(dataset: ImageDataset) -> tuple[Problem, ...]:
    """A warning for each class that has no image to train on."""
    trained = np.bincount(
        dataset.labels[dataset.subset(Split.TRAIN)], minlength=len(dataset.class_names)
    )
    held = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    return tuple(
        Problem(
            path=dataset.class_names[label],
            kind="nothing to learn from",
            message=f"Class {shown(dataset.class_names[label])} has no image to train "
            + ("on (all are held back for testing)" if held[label] else "on")
            + ": its synthetic images would be noise; add images, or leave the class "
            "out if nobody would look for it here.",
            left_out=False,
        )
        for label in np.flatnonzero(trained == 0).tolist()
    )


def _settle_units(index: Index, options: ReadOptions) -> Index:
    # PRIVACY: a unit that was asked for is never silently another, or an image.
    if options.unit_column not in ("", index.unit_column):
        found = f"by {index.unit_column}" if index.unit_column else "by nothing"
        raise UserError(
            f"The images of {index.folder} are grouped {found}, not by "
            f"{options.unit_column}: declare what there is, or add a table that names "
            f"the {options.unit_column} of each image."
        )
    if index.groups is None:
        return index
    # PRIVACY: of "unknown" there are several: they are no patient together.
    index = replace(
        index,
        groups=tuple("" if nobody(group) else group for group in index.groups),
    )
    assert index.groups is not None
    _refuse_alike(index.groups, index.unit_column)
    missing = np.array([not group for group in index.groups], bool)
    if index.left_out is not None:
        missing &= ~index.left_out
    count = int(missing.sum())
    if count == 0:
        return index
    unit = index.unit_column
    if options.missing_unit == OWN_UNIT:
        names, files = list(index.groups), index.files()
        for row in np.flatnonzero(missing).tolist():
            # No named unit starts like this, so that it is of this file only.
            # PRIVACY: the frames of one file are of one patient, named or not.
            names[row] = f"\0{files[row]}"
        return replace(index, groups=tuple(names))
    if options.missing_unit == LEAVE_OUT:
        left = Problem(
            path=".",
            kind="no unit",
            message=f"{count:,} images name no {unit} and were left out, as declared.",
        )
        return replace(
            index,
            left_out=_also(index, missing),
            problems=(*index.problems, left),
        )
    first = shown(index.images.name(int(missing.argmax())))
    raise Undeclared(
        f"{count:,} of {len(missing):,} images name no {unit}, the first of them "
        f"{first}",
        "fill it in, or declare whether each of them is a unit of its own "
        f"({OWN_UNIT}) or is left out ({LEAVE_OUT}).",
        wanted=("missing_unit",),
    )


def _refuse_alike(groups: tuple[str, ...], column: str) -> None:
    """Refuse names of units that are one name, written in two ways."""
    written: dict[str, str] = {}
    for name in sorted(set(groups)):
        plain = unicodedata.normalize("NFKC", name).casefold()
        plain = "".join(c for c in plain if c.isprintable() and not c.isspace())
        plain = re.sub(r"(?<!\d)0+(?=\d)", "", plain)
        other = written.setdefault(plain, name)
        # PRIVACY: a patient whose name is written in two ways would be two units.
        if other != name:
            raise UserError(
                f"The {column} {shown(other)!r} and {shown(name)!r} seem to be one, "
                "written in two ways: write it alike, or tell two more clearly apart."
            )


def _also(index: Index, rows: np.ndarray) -> np.ndarray:
    return rows if index.left_out is None else index.left_out | rows
