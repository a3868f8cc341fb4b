"""Bringing a public checkpoint in from disk: asked once, checked, kept for good.

The file is read in a child process (`conversion`). What is kept is a folder of ours in
the user's own data folder: safetensors, a strictly checked config, and a card that
tells where it came from and whether it could contain the protected people.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from core.checkpoints.cards import OVERLAP_ANSWERS, CheckpointCard, read_card
from core.checkpoints.catalogue import bundled, imported_folder
from core.checkpoints.diffusers_folder import find_weights
from core.checkpoints.layouts import Hints
from core.checkpoints.published import PublishedCheckpoint, find_published
from core.checkpoints.scratch import is_scratch
from core.checkpoints.store import load_checkpoint
from core.errors import Stopped, UserError
from core.events import Watcher
from core.files import explained, private_folder, require_space, sha256

ENDINGS = (".pt", ".pth", ".bin", ".safetensors")
SECONDS_BETWEEN_LOOKS = 0.2
UNPROVEN = "said to be the catalogue's {}, of which no SHA-256 is known to check it by"


@dataclass(frozen=True, kw_only=True)
class Import:
    """What is imported, and what its owner says about it.

    Attributes:
        path: A weight file or a diffusers folder.
        name: What it will be called here.
        published: Name of the catalogue's checkpoint that it is; "" for another.
        overlap: The answer to "could it contain these patients?": "no", "unsure" or
            "yes".
        overlap_reason: Why.
        title, licence, source, pretraining_data, pretraining_licences: For the card,
            where the catalogue does not say it.
        hints: What the file cannot tell, where the catalogue does not say it.
    """

    path: Path
    name: str
    published: str = ""
    overlap: str
    overlap_reason: str = ""
    title: str = ""
    licence: str = ""
    source: str = ""
    pretraining_data: str = ""
    pretraining_licences: str = ""
    hints: Hints = field(default_factory=Hints)


def import_checkpoint(wish: Import, watcher: Watcher) -> CheckpointCard:
    """Convert a public checkpoint and keep it under its new name.

    Guarantee: nothing in the file is executed; this process reads only the safetensors
    file that the child wrote, with its hash, names and shapes checked.

    Raises:
        UserError: when the file or a wish is not right; nothing is kept then.
        Stopped: when the watcher asks; nothing is kept then.
    """
    source = wish.path.expanduser().absolute()
    known = find_published(wish.published) if wish.published else None
    _check(wish, known, source)
    card = _card_fields(wish, known)
    weights = _weights_file(source, known)
    private_folder(imported_folder())
    require_space(imported_folder(), 3 * weights.stat().st_size)
    hints = wish.hints.over(known.hints) if known else wish.hints
    with tempfile.TemporaryDirectory(prefix=".import-", dir=imported_folder()) as work:
        made = Path(work) / wish.name
        _convert_in_child(weights, made, hints, card, Path(work), watcher)
        # Read back as every checkpoint is read: hash, names, shapes, finite values.
        found = load_checkpoint(made).card
        _check_is(found, known)
        place = imported_folder() / wish.name
        try:
            os.replace(made, place)
        except OSError as error:
            taken = _taken(wish.name) if place.exists() else explained(error, place)
            raise taken from None
    return read_card(imported_folder() / wish.name)


def _check(wish: Import, known: PublishedCheckpoint | None, source: Path) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", wish.name):
        raise UserError(
            f"The name {wish.name!r} cannot be used: take up to 40 small letters, "
            "digits and hyphens."
        )
    if is_scratch(wish.name) or wish.name in [card.name for card in bundled()]:
        raise UserError(f"The name {wish.name!r} is Sfumato's own: choose another.")
    if (imported_folder() / wish.name).exists():
        raise _taken(wish.name)
    _check_source(source)
    if wish.overlap not in OVERLAP_ANSWERS:
        data = wish.pretraining_data or (known.pretraining_data if known else "")
        trained = f"; it was trained on: {data}" if data else ""
        raise UserError(
            "Answer whether the checkpoint could contain these patients (--overlap): "
            f"{', '.join(OVERLAP_ANSWERS)}{trained}."
        )


def _check_source(source: Path) -> None:
    if not source.exists():
        raise UserError(f"There is no file or folder {source}: check the path.")
    if source.is_dir():
        return
    if source.suffix == ".pkl":
        raise UserError(
            f"The file {source} is a pickle that holds a program (as those of EDM and "
            "StyleGAN do): it cannot be read without running it, so it is refused. "
            "Ask for the weights as safetensors, or choose another checkpoint."
        )
    if source.suffix not in ENDINGS:
        raise UserError(
            f"The file {source} is of no kind that can be imported: choose a diffusers "
            f"folder, or a file that ends in {', '.join(ENDINGS)}."
        )


def _taken(name: str) -> UserError:
    return UserError(
        f"There is a checkpoint {name!r} already, in {imported_folder() / name}: "
        "choose another name, or delete that folder first."
    )


def _card_fields(
    wish: Import, known: PublishedCheckpoint | None
) -> dict[str, str | int]:
    """What the card says besides what the file tells."""

    def told(name: str) -> str:
        return getattr(wish, name) or (getattr(known, name) if known else "")

    needed = ("licence", "pretraining_data")
    if missing := [name.replace("_", " ") for name in needed if not told(name)]:
        raise UserError(
            f"Say the checkpoint's {' and '.join(missing)}: they go on its card and "
            "into the audit."
        )
    return {
        "name": wish.name,
        "title": told("title") or wish.name,
        "description": known.description if known else "Imported from a file.",
        "licence": told("licence"),
        "pretraining_data": told("pretraining_data"),
        "pretraining_licences": told("pretraining_licences") or "not stated",
        "steps": known.steps if known else 0,
        "batch_size": known.batch_size if known else 0,
        "command": f"sfumato import-checkpoint {wish.path.name} {wish.name}",
        "source": told("source"),
        "conversion": UNPROVEN.format(known.name) if known and not known.sha256 else "",
        "overlap": wish.overlap,
        "overlap_reason": wish.overlap_reason,
    }


def _weights_file(source: Path, known: PublishedCheckpoint | None) -> Path:
    """The one file that will be read; in a folder, the one that the catalogue means."""
    found = find_weights(source) if source.is_dir() else [source]
    if known is None or not known.sha256:
        return found[0]
    for file in found:
        # PRIVACY: what it was trained on is known of the catalogue's own file only.
        if sha256(file) == known.sha256:
            return file
    raise UserError(
        f"{source} is not the catalogue's {known.name!r} (its SHA-256 differs): copy "
        "it again, or import it without naming the catalogue's checkpoint."
    )


def _check_is(found: CheckpointCard, known: PublishedCheckpoint | None) -> None:
    """Refuse what was made of another file than the catalogue's."""
    # PRIVACY: as in `_weights_file`, of what the child has read.
    if known and known.sha256 not in ("", found.source_sha256):
        raise UserError(
            f"The file changed while it was read, and is not the catalogue's "
            f"{known.name!r} any more: start again."
        )
    if known and found.parameters != known.parameters_kept:
        raise UserError(
            f"The file holds {found.parameters:,} numbers, and the catalogue's "
            f"{known.name!r} has {known.parameters_kept:,}: it is another checkpoint. "
            "Import it without naming the catalogue's."
        )


def _convert_in_child(
    source: Path,
    made: Path,
    hints: Hints,
    card: Mapping[str, str | int],
    work: Path,
    watcher: Watcher,
) -> None:
    request = {
        "source": str(source),
        "folder": str(made),
        "hints": asdict(hints),
        "card": dict(card),
    }
    watcher.progress("Converting the checkpoint", 0, 1)
    child = subprocess.Popen(
        [sys.executable, "-m", "core.checkpoints.conversion"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=work,
        env=_environment(work),
    )
    try:
        answer = _wait(child, json.dumps(request), watcher)
    finally:
        child.kill()
        child.wait()
    if "error" in answer:
        shutil.rmtree(made, ignore_errors=True)
        raise UserError(str(answer["error"]))
    watcher.progress("Converting the checkpoint", 1, 1)


def _wait(child: subprocess.Popen[str], request: str, watcher: Watcher) -> dict:
    given: str | None = request
    while True:
        try:
            output, _ = child.communicate(given, timeout=SECONDS_BETWEEN_LOOKS)
            break
        except subprocess.TimeoutExpired:
            given = None
            if watcher.stop_requested():
                raise Stopped from None
    try:
        return dict(json.loads(output))
    except ValueError:
        raise UserError(
            "The file could not be converted: the process that read it ended early, "
            "for want of memory or because the file is damaged. Copy it again, or use "
            "a machine with more memory."
        ) from None


def _environment(work: Path) -> dict[str, str]:
    """Only what Python needs to find itself and this package, and no network."""
    here = Path(__file__).parents[2]
    kept = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "LANG")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "PYTHONPATH": str(here),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(work),
        "TMPDIR": str(work),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
