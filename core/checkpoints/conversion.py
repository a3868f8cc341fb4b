"""The child process that reads a file from elsewhere and writes a checkpoint of ours.

`python -m core.checkpoints.conversion` reads a request (JSON) from its standard input
and answers with one line of JSON. Whatever a malformed file does to it, it happens in a
short-lived process with limits on time, memory and what it may write, and the app
itself afterwards reads safetensors only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.errors import UserError

SECONDS = 1800
MEMORY = 12 * 2**30
"""Address space besides four times the file: PyTorch alone maps several GB."""
OPEN_FILES = 256


def main() -> int:
    """Do the request on standard input; the answer names an error in one sentence."""
    request = json.load(sys.stdin)
    source = Path(request["source"])
    try:
        _limit(sum(file.stat().st_size for file in _files(source)))
        convert(source, Path(request["folder"]), request["hints"], request["card"])
    except UserError as error:
        print(json.dumps({"error": str(error)}))
    except MemoryError:
        print(json.dumps({"error": _TOO_LARGE.format(source)}))
    else:
        print(json.dumps({}))
    return 0


_TOO_LARGE = (
    "There is not enough memory to convert {}: close other programs, or use a machine "
    "with more."
)


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return [file for file in source.rglob("*") if file.is_file()]
    return [source]


def _limit(size: int) -> None:
    """Bound what this process may use, where the system can."""
    with suppress(ImportError):
        import resource

        for kind, most in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, SECONDS),
            (resource.RLIMIT_AS, MEMORY + 4 * size),
            # Half precision becomes single.
            (resource.RLIMIT_FSIZE, 2 * size + 2**20),
            (resource.RLIMIT_NOFILE, OPEN_FILES),
        ):
            with suppress(ValueError, OSError):
                resource.setrlimit(kind, (most, most))


def convert(
    source: Path, folder: Path, hints: dict[str, Any], card: dict[str, Any]
) -> None:
    """Write the checkpoint that `source` holds into `folder`.

    Args:
        source: A weight file or a diffusers folder.
        hints: Fields of `Hints`.
        card: Fields of the card that the file cannot tell.

    Raises:
        UserError: when the file is not understood, or private images trained it;
            nothing is left in `folder`.
    """
    import torch

    from core.checkpoints.layouts import Hints, assembled
    from core.checkpoints.store import save_checkpoint
    from core.diffusion.networks import build_network
    from core.files import sha256

    torch.set_num_threads(1)
    _refuse_model(source)
    weights_file, layout, shapes, read = _understand(source, Hints(**hints))
    weights = assembled(layout, shapes, read)
    with torch.device("meta"):
        network = build_network(layout.config)
    network.load_state_dict(weights, assign=True)
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise UserError(
            f"The weights in {source} hold values that are not numbers: choose another "
            "checkpoint."
        )
    save_checkpoint(
        network,
        folder,
        dtype=torch.float32,
        parameterisation=layout.process,
        source_sha256=sha256(weights_file),
        conversion=layout.notes,
        **card,
    )


def _refuse_model(source: Path) -> None:
    """Say so where the files are a project's own model: no layout would tell why."""
    from core.checkpoints.cards import read_card, refuse_private

    card = None
    with suppress(UserError):  # There is none, or it is not one of ours.
        card = read_card(source if source.is_dir() else source.parent)
    # PRIVACY: an imported checkpoint counts as public from then on.
    refuse_private(card)


def _understand(
    source: Path, hints: Any
) -> tuple[Path, Any, Any, Callable[[str], Any]]:
    """The weights file, its layout, the shapes in it, and how to read a tensor."""
    from core.checkpoints import diffusers_folder, openai

    if source.is_dir():
        config, weights = diffusers_folder.find_files(source)
        found = type(hints)(process=diffusers_folder.scheduler_hint(source))
        shapes, read = _tensors(weights)
        layout = diffusers_folder.understand(config, shapes, hints.over(found))
        return weights, layout, shapes, read
    shapes, read = _tensors(source)
    if openai.is_openai(shapes):
        return source, openai.understand(shapes, hints), shapes, read
    raise UserError(
        f"The names of the tensors in {source} are those of no layout that Sfumato "
        "knows (diffusers folders, OpenAI improved-diffusion and guided-diffusion): "
        "choose another checkpoint."
    )


def _tensors(path: Path) -> tuple[dict[str, tuple[int, ...]], Callable[[str], Any]]:
    """Names and shapes in a weights file, and how to read a tensor."""
    if path.suffix == ".safetensors":
        return _safetensors(path)
    from core.checkpoints.torchfiles import StoredTensor, open_torch_file

    file = open_torch_file(path)
    content = file.content
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, StoredTensor)
        for name, value in content.items()
    ):
        raise UserError(
            f"The file {path} holds more than the weights of one network (a state of "
            "its training, for instance): ask its source for the averaged weights "
            "alone."
        )
    shapes = {name: tuple(stored.shape) for name, stored in content.items()}
    return shapes, lambda name: file.tensor(content[name])


def _safetensors(
    path: Path,
) -> tuple[dict[str, tuple[int, ...]], Callable[[str], Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="pt")
        shapes = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"The weights file {path} cannot be read ({error}): copy it again."
        ) from None
    return shapes, file.get_tensor


if __name__ == "__main__":
    sys.exit(main())
