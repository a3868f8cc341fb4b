"""The options of each command of the command line, in the order of the help."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from core.arguments import add_declarations, add_wishes, number, whole
from core.bundled import classifier_names


def demo(command: ArgumentParser) -> None:
    """Where it goes."""
    command.add_argument(
        "folder", type=Path, nargs="?", default=Path("demo"),
        help="a new folder for all of it (default: demo)",
    )  # fmt: skip


def phantom(command: ArgumentParser) -> None:
    """Where it goes, how many images, and of which seed."""
    command.add_argument("out", type=Path, help="a new folder for it")
    command.add_argument(
        "--images", type=whole, default=6000, help="how many (default: 6000)"
    )
    command.add_argument(
        "--seed", type=whole, default=0, help="another gives other images (default: 0)"
    )


def inspect(command: ArgumentParser) -> None:
    """The folder, and what is declared of it."""
    command.add_argument("path", type=Path, help="folder of images, or their table")
    command.add_argument(
        "--resolution", type=whole, default=32,
        help="working resolution, pixels per side (default: 32)",
    )  # fmt: skip
    add_declarations(command)
    _json(command)


def budget(command: ArgumentParser) -> None:
    """The wishes."""
    add_wishes(command)
    _json(command)


def import_checkpoint(command: ArgumentParser) -> None:
    """The file, its new name, and what it cannot tell of itself."""
    command.add_argument(
        "path",
        type=Path,
        nargs="?",
        help=".pt file, diffusers folder; without one, checkpoints are listed",
    )
    command.add_argument("name", nargs="?", help="what it will be called here")
    command.add_argument("--known", default="", help="which of the catalogue's it is")
    command.add_argument(
        "--overlap", default="", help="could it contain these patients: no, unsure, yes"
    )
    for name in ("overlap-reason", "title", "licence", "source", "pretraining-data",
                 "pretraining-licences"):  # fmt: skip
        command.add_argument(f"--{name}", default="", help="for its card")
    command.add_argument("--process", help="eps, v, v-cosine-1000, eps-linear-4000, …")
    for name in ("resolution", "heads", "head-channels"):
        command.add_argument(f"--{name}", type=whole, help="where the file cannot tell")
    command.add_argument(
        "--attention-order", help="legacy or new, where it cannot tell"
    )
    command.add_argument(
        "--null-class", action="store_true", help="the last label means no label"
    )
    _json(command)


def run(command: ArgumentParser) -> None:
    """The project, and the wishes."""
    command.epilog = (
        "On G graphics cards: torchrun --nproc-per-node G -m core.cli run PROJECT ..."
    )
    command.add_argument("project", type=Path, help="project folder, made if not there")
    command.add_argument(
        "--config", type=Path, help="TOML file of wishes to start from"
    )
    command.add_argument(
        "--release",
        type=Path,
        help="where to write the release (default: release/dataset in the project)",
    )
    _json(command)
    add_wishes(command)


def sample(command: ArgumentParser) -> None:
    """The project, and how many images."""
    _project(command)
    _json(command)
    command.add_argument(
        "--images-per-class", type=whole,
        help="how many of each class there are to be in all (default: as before)",
    )  # fmt: skip


def evaluate(command: ArgumentParser) -> None:
    """The project, and which classifier."""
    _project(command)
    _json(command)
    command.add_argument(
        "--classifier",
        default="",
        help="a published one's settings, by name or TOML file: "
        + ", ".join(classifier_names()),
    )


def export(command: ArgumentParser) -> None:
    """The project, and where the release goes."""
    _project(command)
    _json(command)
    command.add_argument("release", type=Path, help="a new folder for the release")


def forget(command: ArgumentParser) -> None:
    """The project."""
    _project(command)


def ledger(command: ArgumentParser) -> None:
    """Whose data, and a cap for them."""
    command.add_argument(
        "about",
        nargs="?",
        metavar="PROJECT",
        help="only its data: a project folder, or the beginning of a fingerprint",
    )
    command.add_argument(
        "--cap",
        type=number,
        metavar="EPSILON",
        help="refuse, from now on, what would spend more than this on the data; "
        "recorded for good, and the newest counts",
    )
    for name in ("unit", "relation"):
        command.add_argument(f"--{name}", help="of the cap; else the project's")
    command.add_argument(
        "--delta", type=number, help="of ε; else the cap's or project's"
    )
    _json(command)


def selftest(command: ArgumentParser) -> None:
    """How it is told."""
    _json(command)


def verify(command: ArgumentParser) -> None:
    """The release."""
    command.add_argument("release", type=Path, help="folder of the release")
    _json(command)


def _project(command: ArgumentParser) -> None:
    command.add_argument("project", type=Path, help="project folder")


def _json(command: ArgumentParser) -> None:
    command.add_argument(
        "--json", action="store_true", help="answer in JSON, for another program"
    )
