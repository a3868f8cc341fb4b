"""The command `sfumato pretrain`: public images only, and no privacy."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.arguments import DECLARATIONS, add_declarations, whole
from core.errors import UserError
from core.events import Watcher

USUAL = "small"


def add_options(command: argparse.ArgumentParser) -> None:
    """Its options."""
    from core.bundled import pretraining_names

    command.add_argument("out", type=Path, help="a new folder for the checkpoint")
    command.add_argument(
        "--source", type=Path, help="public folder; without, the starter is made again"
    )
    command.add_argument(
        "--recipe",
        help="with --source: a TOML file, or one of: "
        f"{', '.join(pretraining_names())} (the usual one: {USUAL})",
    )
    for name, words in (
        ("data", "what the images are and where they come from, for the card"),
        ("data-licences", "their licences, for the card"),
        ("licence", "of the checkpoint, for the card"),
        ("title", "of the checkpoint, for the card"),
    ):
        command.add_argument(f"--{name}", default="", help=words)
    for name, words in (
        ("steps", "training steps, instead of the recipe's"),
        ("batch-size", "images in a step, instead of the recipe's"),
        ("images", "for the starter: pictures drawn"),
    ):
        command.add_argument(f"--{name}", type=whole, help=words)
    command.add_argument(
        "--seed", type=whole, default=0, help="another gives other weights (default: 0)"
    )
    command.add_argument(
        "--device", default="auto", help="auto, cpu or cuda (default: auto)"
    )
    add_declarations(command)


def run(options: argparse.Namespace, watcher: Watcher) -> None:
    """Train on the public folder named, or make the starter checkpoint again."""
    if options.source is not None:
        _on_folder(options, watcher)
        return
    if options.recipe or options.data:
        raise UserError(
            "Name the public folder to train on (--source), or leave out --recipe and "
            "--data to make the starter checkpoint again."
        )
    from core.recipe_files import check_wishes
    from core.training.distributed import leads
    from core.training.starter import pretrain_starter

    check_wishes(vars(options))
    wished = {
        name: getattr(options, name)
        for name in ("steps", "images", "batch_size")
        if getattr(options, name) is not None
    }
    card = pretrain_starter(
        options.out,
        **wished,
        device=options.device,
        seed=options.seed,
        watcher=watcher,
    )
    if leads():
        print(f"Checkpoint of {card.parameters:,} parameters in {card.folder}.")


def _on_folder(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.data import parse_options
    from core.training.distributed import leads
    from core.training.pretraining import Provenance, load_pretraining, pretrain

    declared = {name: getattr(options, name) for name in ("grey", *DECLARATIONS)}
    card = pretrain(
        options.source,
        options.out,
        load_pretraining(
            options.recipe or USUAL, steps=options.steps, batch_size=options.batch_size
        ),
        Provenance(
            data=options.data,
            licences=options.data_licences or "not stated",
            licence=options.licence or "not stated",
            title=options.title,
        ),
        options=parse_options(**declared),
        device=options.device,
        seed=options.seed,
        watcher=watcher,
    )
    if leads():
        print(f"Checkpoint of {card.parameters:,} parameters in {card.folder}.")
        print("No privacy: it may give back any image it was trained on.")
