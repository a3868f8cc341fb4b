"""Applies what the custodian declared to the records that a layout found."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from core.data.dataset import ImageDataset, Problem, Split, shown
from core.data.formats.base import Index
from core.data.options import LEAVE_OUT, OWN_UNIT, ReadOptions
from core.errors import Undeclared, UserError


def apply_declarations(index: Index, options: ReadOptions) -> Index:
    """Keep the declared classes, and settle what becomes of images without a unit.

    Raises:
        UserError: If one class only is declared, or one that has no image, or images
            name no unit and nothing was declared for that case.
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
    for name in options.classes:
        if name not in index.class_names:
            raise UserError(
                f"The declared class {name} has no image: correct the list of classes, "
                f"or add images. The folder holds {', '.join(index.class_names[:20])}."
            )
    # In the order of the layout, not of the list: the numbers are in the fingerprint.
    kept = [name for name in index.class_names if name in options.classes]
    number = np.array(
        [kept.index(name) if name in kept else -1 for name in index.class_names]
    )
    labels = number[index.labels]
    counts = Counter(index.labels[labels < 0].tolist())
    return replace(
        index,
        class_names=tuple(kept),
        labels=np.maximum(labels, 0),
        left_out=_also(index, labels < 0),
        problems=(
            *index.problems,
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


def refuse_untrained(dataset: ImageDataset) -> None:
    """Refuse classes of which nothing could be learnt.

    Raises:
        UserError: If a class has no image to train on.
    """
    trained = np.bincount(
        dataset.labels[dataset.subset(Split.TRAIN)], minlength=len(dataset.class_names)
    )
    for label in np.flatnonzero(trained == 0).tolist():
        held = " (all of its images are held back for testing)"
        raise UserError(
            f"Class {shown(dataset.class_names[label])} has no image to train on"
            f"{held if (dataset.labels == label).any() else ''}: take it off the list, "
            "or add images."
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
    missing = np.array([not group for group in index.groups], bool)
    if index.left_out is not None:
        missing &= ~index.left_out
    count = int(missing.sum())
    if count == 0:
        return index
    unit = index.unit_column
    if options.missing_unit == OWN_UNIT:
        names = list(index.groups)
        for row in np.flatnonzero(missing).tolist():
            # No named unit starts like this, so that it is of this image only.
            names[row] = f"\0{row}"
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


def _also(index: Index, rows: np.ndarray) -> np.ndarray:
    return rows if index.left_out is None else index.left_out | rows
