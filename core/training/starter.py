"""How the bundled starter checkpoint was made: `sfumato pretrain` calls this."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from core.checkpoints.cards import CARD, CheckpointCard, read_card
from core.checkpoints.public_images import KINDS, draw_public_images
from core.checkpoints.starter import STARTER_NETWORK
from core.checkpoints.store import save_checkpoint
from core.diffusion.networks import DenoisingNetwork
from core.diffusion.process import Parameterisation, Process
from core.diffusion.timesteps import TimestepMixture
from core.diffusion.views import to_network
from core.errors import UserError
from core.events import Watcher
from core.files import private_folder
from core.training.distributed import LEADER, team
from core.training.pretraining import fresh_network, heard, make, same_wishes
from core.training.public import Batch, PublicTraining

PROCESS = Process.usual(Parameterisation.VELOCITY)

# Ghalebikesabi et al. 2023, Table 3, column ImageNet32.
PRETRAINING_TIMESTEPS = TimestepMixture(
    weights=(0.03, 0.77, 0.2), bounds=(0, 30, 800, 1000)
)


def pretrain_starter(
    folder: Path,
    *,
    steps: int = 30_000,
    images: int = 63_000,
    batch_size: int = 64,
    device: str = "auto",
    seed: int = 0,
    watcher: Watcher,
) -> CheckpointCard:
    """Draw public images, train the starter network on them, write the checkpoint.

    Started again with the same wishes it goes on from its last state. Started under
    torchrun, the processes share each batch; they must all see the folder.

    Raises:
        UserError: when steps, images or batch size are not positive, or the folder
            already holds a checkpoint, or a training under other wishes.
        Stopped: when the watcher asks; the state is on disk.
    """
    if min(steps, images, batch_size) < 1:
        raise UserError("Pretraining needs at least 1 step, 1 image and a batch of 1.")
    if (folder / CARD).exists():
        raise UserError(
            f"{folder} already holds a checkpoint: choose another folder, or delete it."
        )
    network = fresh_network(STARTER_NETWORK, seed)
    training = PublicTraining(
        steps=steps,
        batch_size=batch_size,
        learning_rate=1e-3,
        warmup_steps=500,
        ema_decay=0.9995,
        timesteps=PRETRAINING_TIMESTEPS,
        flip=False,
        seed=seed,
    )
    wishes = {"images": images, "steps": steps, "batch_size": batch_size, "seed": seed}
    wishes["groups"] = STARTER_NETWORK.groups
    with team() as crew:
        if crew.rank == LEADER:
            private_folder(folder)
            same_wishes(folder, wishes)
        make(
            folder,
            network,
            _batches(images, seed, heard(watcher, crew)),
            training,
            process=PROCESS,
            device=device,
            save=lambda: _save(network, folder, training, images),
            watcher=watcher,
            crew=crew,
        )
    return read_card(folder)


def _batches(images: int, seed: int, watcher: Watcher) -> Batch:
    pixels, kinds = draw_public_images(
        images, STARTER_NETWORK.resolution, seed=seed, watcher=watcher
    )
    pool, labels = torch.from_numpy(pixels), torch.from_numpy(kinds)

    def batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(0, len(pool), (count,), generator=generator)
        return to_network(pool[chosen]), labels[chosen]

    return batch


def _save(
    network: DenoisingNetwork, folder: Path, training: PublicTraining, images: int
) -> CheckpointCard:
    return save_checkpoint(
        network,
        folder,
        dtype=torch.float32,
        name="starter",
        title="Starter, 32×32 colour",
        description=(
            "A small network for two CPU cores, trained on procedural pictures: a "
            "first checkpoint for any small images, and quick to try."
        ),
        licence="Apache-2.0",
        pretraining_data=(
            f"{images:,} procedural pictures of {len(KINDS)} kinds "
            f"({'; '.join(KINDS)}) drawn by core/checkpoints/public_images.py with "
            f"seed {training.seed}; the photographs are crops of nine pictures "
            "that ship with scikit-image. No clinical image, and no person but an "
            "astronaut's official portrait."
        ),
        pretraining_licences=(
            "procedural: none needed; glyphs: DejaVu (free) and STIX (OFL-1.1) fonts; "
            "photographs: public domain or CC0, as scikit-image states"
        ),
        parameterisation=PROCESS.name,
        steps=training.steps,
        batch_size=training.batch_size,
        command=(
            f"sfumato pretrain OUT --steps {training.steps} --images {images} "
            f"--batch-size {training.batch_size} --seed {training.seed}"
        ),
    )
