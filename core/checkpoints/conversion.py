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
        _limit(source.stat().st_size)
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
        source: A weight file, alone or in a diffusers folder.
        hints: Fields of `Hints`.
        card: Fields of the card that the file cannot tell; what "conversion" says comes
            after what was read.

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
    digest = sha256(source)
    shapes, read = _tensors(source)
    layout = _understand(source, shapes, Hints(**hints))
    weights = assembled(layout, shapes, read)
    with torch.device("meta"):
        network = build_network(layout.config)
    network.load_state_dict(weights, assign=True)
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise UserError(
            f"The weights in {source} hold values that are not numbers: choose another "
            "checkpoint."
        )
    if not _answers(network):
        raise UserError(
            f"The network in {source} answers with values that are not numbers: choose "
            "another checkpoint."
        )
    if sha256(source) != digest:
        raise UserError(f"The file {source} changed while it was read: start again.")
    notes = ", ".join(filter(None, (layout.notes, card.get("conversion"))))
    told = card | {"conversion": notes, "parameterisation": layout.process}
    save_checkpoint(network, folder, dtype=torch.float32, source_sha256=digest, **told)


def _answers(network: Any) -> bool:
    """Whether it makes numbers of noise, at little and at much of it."""
    import torch

    config = network.config
    noise = torch.randn(
        1, config.image_channels, config.resolution, config.resolution,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    label = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        return all(
            bool(network(noise, torch.tensor([time]), label).isfinite().all())
            for time in (0, 999)
        )


def _refuse_model(source: Path) -> None:
    """Say so where the files are a project's own model: no layout would tell why."""
    from core.checkpoints.cards import read_card, refuse_private

    card = None
    with suppress(UserError):  # There is none, or it is not one of ours.
        card = read_card(source.parent)
    # PRIVACY: an imported checkpoint counts as public from then on.
    refuse_private(card)


def _understand(source: Path, shapes: Any, hints: Any) -> Any:
    """The layout of the weights, by where they lie and what they are called."""
    from core.checkpoints import diffusers_folder, openai

    if diffusers_folder.is_diffusers(source):
        config = source.parent / diffusers_folder.CONFIG
        return diffusers_folder.understand(config, shapes, hints)
    if openai.is_openai(shapes):
        return openai.understand(shapes, hints)
    if "conv_in.weight" in shapes and "time_embedding.linear_1.weight" in shapes:
        raise UserError(
            f"The file {source} is a part of a diffusers folder, and alone it does not "
            "say what its network is: put the config.json that belongs to it beside "
            f"it, and call it {' or '.join(diffusers_folder.WEIGHTS)}."
        )
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
