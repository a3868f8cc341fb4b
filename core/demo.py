"""`sfumato demo`: the whole main job on a generated sample, in a few minutes."""

from __future__ import annotations

from pathlib import Path

from core.data.formats.camelyon17 import CLASS_NAMES
from core.data.phantom import write_phantom
from core.errors import UserError
from core.events import Watcher
from core.run import run_project
from core.workspace import Project, Workspace

IMAGES = 6000
DECLARED = 4000
"""A public upper bound on the training images of the phantom's three hospitals."""


def demo_project(source: Path) -> Project:
    """The wishes of the demo."""
    return Project(
        source=str(source),
        classes=CLASS_NAMES,
        declared_count=DECLARED,
        epsilon=10.0,
        delta=1e-5,
        recipe="demo",
        overlap_answer="no",
        title="Phantom lymph-node patches",
    )


def write_sample(folder: Path, watcher: Watcher) -> Path:
    """The generated sample data set, made when it is not there; gives its folder."""
    if not (folder / "camelyon17_v1.0" / "metadata.csv").is_file():
        write_phantom(folder, images=IMAGES, seed=0, watcher=watcher)
    return folder


def run_demo(folder: Path, watcher: Watcher) -> int:
    """Generate the sample, run every stage, say what came out.

    Raises:
        UserError: when the folder is a file, holds something else, or a finished demo.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a new folder for the demo.")
    known = {"sample", "project", "release"}
    if folder.exists() and not {item.name for item in folder.iterdir()} <= known:
        raise UserError(
            f"The folder {folder} holds other things: name a new one for the demo."
        )
    if (folder / "release").exists():
        raise UserError(
            f"The demo was done already: look at {folder / 'release'}, or delete "
            f"{folder} to do it again."
        )
    sample = write_sample(folder / "sample", watcher)
    with Workspace.open(folder / "project") as workspace:
        outcome = run_project(
            workspace, demo_project(sample), folder / "release", watcher
        )
    print(outcome.text())
    return 0 if outcome.verification.holds else 1
