"""Options of the command line by which a custodian declares what a folder is."""

from __future__ import annotations

import argparse

DECLARATIONS = {
    "window": "values shown as black and white in 16-bit and DICOM images: -160,240",
    "classes": "the classes to read, separated by semicolons",
    "unit_column": "what names the patient: a column, or patient, slide, hospital",
    "missing_unit": "images without a patient: own_unit or leave_out",
    "path_column": "column of a CSV manifest that names the file",
    "label_column": "column of a table that names the class",
    "split_column": "column of a table that names the split",
}


def add_declarations(command: argparse.ArgumentParser) -> None:
    """What cannot be found out about a folder, or must not be."""
    command.add_argument("--grey", action="store_true", help="read images as grey")
    for name, words in DECLARATIONS.items():
        option = "--" + name.replace("_", "-")
        command.add_argument(option, default="", help=words)
