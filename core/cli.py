"""The command line: `sfumato COMMAND`.

Exit code 0 done, 2 the user's mistake or a release that does not hold, 130 stopped, 1 a
bug.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, fields
from importlib.metadata import version

from core import command_options as options_of
from core import pretraining_command as pretraining
from core.arguments import (
    DECLARATIONS,
    Parser,
    project_wished,
    windows_joined,
    wishes_given,
)
from core.errors import Stopped, UserError
from core.events import Watcher

DONE, BUG, MISTAKE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give back the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options, unknown = build_parser().parse_known_args(windows_joined(given))
    if unknown:  # The command's own parser points to its own help.
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    from core.terminal import watching

    try:
        with watching() as watcher:
            return options.command(options, watcher) or DONE
    except UserError as error:
        print(f"sfumato: {error}", file=sys.stderr)
        return MISTAKE
    except Stopped:
        print(
            "sfumato: stopped at a safe point; the same command goes on from here.",
            file=sys.stderr,
        )
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        print(
            "sfumato: this is a bug in Sfumato, not your mistake. Nothing was spent "
            "that the ledger does not know of. Please report the lines above; they may "
            "hold paths of yours, so read them first.",
            file=sys.stderr,
        )
        return BUG


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = Parser(
        prog="sfumato",
        description="Synthetic image datasets with a proven privacy bound, made on "
        "your own machine.",
    )
    parser.add_argument("--version", action="version", version=version("sfumato"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, add_options, summary in (
        ("demo", _demo, options_of.demo,
         "Do the whole main job on a generated sample dataset."),
        ("phantom", _phantom, options_of.phantom,
         "Write a phantom of lymph-node patches."),
        ("inspect", _inspect, options_of.inspect,
         "Say what an image folder holds (internal)."),
        ("budget", _budget, options_of.budget,
         "Say what a budget would mean; reads no data."),
        ("pretrain", pretraining.run, pretraining.add_options,
         "Make a checkpoint of public images; no privacy: never of patients."),
        ("import-checkpoint", _import_checkpoint, options_of.import_checkpoint,
         "Bring in a public checkpoint from disk; without a path, list what is known."),
        ("run", _run, options_of.run,
         "Do all stages; started again, goes on where it stopped."),
        ("sample", _sample, options_of.sample,
         "Draw the synthetic images of a trained project."),
        ("evaluate", _evaluate, options_of.evaluate,
         "Measure usefulness on real images (internal)."),
        ("export", _export, options_of.export, "Write the release of a project."),
        ("forget", _forget, options_of.forget,
         "Delete a project's copies of private images."),
        ("ledger", _ledger, options_of.ledger,
         "Say what was spent on which data, and check it."),
        ("selftest", _selftest, options_of.selftest,
         "Check the privacy engine on this machine; reads no images, spends nothing."),
        ("verify", _verify, options_of.verify,
         "Check a release: hashes, and ε from σ, q and T."),
    ):  # fmt: skip
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(command=function, parser=command)
        add_options(command)
    return parser


def _print(content: dict) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def _demo(options: argparse.Namespace, watcher: Watcher) -> int:
    from core.demo import run_demo

    return run_demo(options.folder, watcher)


def _phantom(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.data.phantom import write_phantom

    write_phantom(
        options.out, images=options.images, seed=options.seed, watcher=watcher
    )
    print(f"Phantom of {options.images:,} patches written to {options.out}.")


def _inspect(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.data import inspect, parse_options
    from core.recipe_files import check_wishes

    check_wishes({"resolution": options.resolution})
    declared = {name: getattr(options, name) for name in ("grey", *DECLARATIONS)}
    found = inspect(
        options.path,
        options.resolution,
        options=parse_options(**declared),
        watcher=watcher,
    )
    if options.json:
        _print(found.to_json())
        return
    print(found.text())
    print("These are facts of private data: internal.")


def _budget(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.training.preview import preview
    from core.workspace import Project

    found = preview(Project().changed(**wishes_given(options)))
    if options.json:
        _print(asdict(found))
        return
    print(found.sentence)
    print(found.figures())
    for whom, epsilon in found.others:
        bound = math.ceil(epsilon * 100) / 100 if math.isfinite(epsilon) else epsilon
        print(f"the same noise for {whom}: epsilon at most {bound:g}")
    for warning in found.warnings:
        print(f"note: {warning}")


def _import_checkpoint(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.checkpoints.importing import Hints, Import, import_checkpoint

    if options.path is None:
        _list_checkpoints(as_json=options.json)
        return
    if options.name is None:
        raise UserError(
            "Give the checkpoint a name: sfumato import-checkpoint PATH NAME."
        )
    given = vars(options)
    hints = Hints(**{field.name: given[field.name] for field in fields(Hints)})
    wishes = {field.name: given.get(field.name) for field in fields(Import)}
    wishes |= {"hints": hints, "published": options.known}
    card = import_checkpoint(Import(**wishes), watcher)
    if options.json:
        _print(asdict(card))
    else:
        print(f"{card.name}: {card.parameters:,} parameters, in {card.folder}.")


def _list_checkpoints(*, as_json: bool) -> None:
    from core.checkpoints.catalogue import available
    from core.checkpoints.published import published

    at_hand, known = available(), published()
    if as_json:
        _print(
            {
                "at_hand": [asdict(card) for card in at_hand],
                "known": [asdict(entry) for entry in known],
            }
        )
        return
    print("At hand, for --checkpoint NAME:")
    for card in at_hand:
        print(f"  {card.name}: {card.title}; trained on: {card.pretraining_data}")
    print("\nKnown, to be imported from a file (--known NAME; --json says more):")
    for entry in known:
        print(f"  {entry.name}: {entry.title}, {entry.file}, {entry.megabytes:,} MB")
        print(f"    {entry.source}; licence: {entry.licence}")
        print(f"    trained on: {entry.pretraining_data}")
        if entry.refused:
            print(f"    not to be imported: {entry.refused}")


def _run(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.training.distributed import gathered
    from core.training.following import follow

    with gathered() as leads:
        if leads:
            _run_all(options, watcher)
        else:
            follow()


def _run_all(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.data.paths import refuse_among_images
    from core.run import run_project
    from core.workspace import Workspace

    project, said = project_wished(options)
    if project.source:
        refuse_among_images(options.project, project.source)
    with Workspace.open(options.project) as workspace:
        release = options.release or options.project / "release" / "dataset"
        # What is said on the way would spoil the JSON for the program that reads it.
        with redirect_stdout(sys.stderr if options.json else sys.stdout):
            outcome = run_project(
                workspace, project, release, watcher,
                unit_said=said.unit, overlap_said=said.overlap,
            )  # fmt: skip
    if options.json:
        _print(outcome.to_json())
    else:
        print(outcome.text())


def _sample(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.run import draw_more

    synthetic = draw_more(options.project, options.images_per_class, watcher)
    facts = {"folder": synthetic.folder, "images_per_class": synthetic.per_class}
    if options.json:
        _print(facts)
    else:
        print(f"{synthetic.per_class:,} images of each class in {synthetic.folder}.")


def _evaluate(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.run import measure

    found = measure(options.project, watcher, classifier=options.classifier)
    if options.json:
        _print(found.to_json())
        return
    for figure in found.figures:
        print(f"{figure.name}: {100 * figure.value:.1f} %")
    print(f"Tested on {found.tested_on}. Internal: do not publish.")


def _export(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.run import write_release

    release = write_release(options.project, options.release, watcher)
    if options.json:
        _print({"folder": release.folder, "audit": release.audit})
    else:
        print(f"Release written to {release.folder}.")


def _forget(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.run import forget

    forget(options.project)
    print(
        f"The reduced copies of private images in {options.project} are deleted. "
        "Results, and the images themselves, are where they were."
    )


def _ledger(options: argparse.Namespace, watcher: Watcher) -> None:
    from core.statement import set_cap, statement

    if options.cap is not None:
        if options.about is None:
            raise UserError("A cap is for one data set: name its project folder.")
        set_cap(
            options.about,
            options.cap,
            delta=options.delta,
            unit=options.unit,
            relation=options.relation,
        )
    found = statement(options.about, options.delta)
    if options.json:
        _print(found.to_json())
    else:
        print(found.text())


def _selftest(options: argparse.Namespace, watcher: Watcher) -> int:
    from core.privacy.selftest.run import self_test

    found = self_test(watcher)
    if options.json:
        _print(found.to_json())
    else:
        print(found.text())
    if found.clean:
        return DONE
    # An engine that breaks its promise is a bug, as is a self-test that is blind.
    print(f"sfumato: {found.headline()} {found.advice()}", file=sys.stderr)
    return BUG


def _verify(options: argparse.Namespace, watcher: Watcher) -> int:
    from core.release import verify

    found = verify(options.release)
    if options.json:
        _print(asdict(found))
    else:
        for finding in found.findings:
            print(finding.message)
        print(
            f"{options.release}: everything that can be recomputed holds."
            if found.holds
            else f"{options.release}: does not hold."
        )
        for note in found.notes:
            print(f"Note: {note}")
    return DONE if found.holds else MISTAKE


if __name__ == "__main__":
    sys.exit(main())
