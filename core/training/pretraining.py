"""Pretraining on a public folder: a checkpoint of a site's own, without privacy.

What is read here is learned by heart as far as the network can: no patient may be in
it. The checkpoint's card says where the images came from, in the operator's words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.bundled import pretraining_folder, pretraining_names
from core.checkpoints.cards import CARD, CheckpointCard, read_card
from core.checkpoints.starter import STARTER_NETWORK
from core.checkpoints.store import save_checkpoint
from core.data import ImageDataset, load
from core.data.options import ReadOptions
from core.diffusion.networks import DenoisingNetwork, NetworkConfig, build_network
from core.diffusion.presets import PRESETS
from core.diffusion.process import Process
from core.diffusion.timesteps import TimestepMixture
from core.diffusion.views import to_network
from core.errors import UserError
from core.events import Watcher
from core.files import private_folder, read_json, write_json
from core.parallel import choose_hardware
from core.recipe_files import check_kinds, read_recipe_file, refusal
from core.training.distributed import LEADER, Crew, team
from core.training.public import Batch, PublicTraining, train, write_log

NETWORKS: dict[str, NetworkConfig] = {"starter": STARTER_NETWORK, **PRESETS}
STATE, WISHES, LOG = "pretraining-state.safetensors", "wishes.json", "pretraining.json"


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe:
    """Every hyper-parameter of a pretraining; a field is as in `Recipe`.

    Attributes:
        network: A key of `NETWORKS`; its classes are the folder's.
        learning_rate: Adam's, after a linear rise over `warmup_steps`.
        decay: Whether a cosine then takes it down to zero.
        crop, label_dropout: As `make_views` has them. A network that is to be guided
            one day needs the latter.
        gradient_norm: As in `PublicTraining`.
    """

    name: str
    title: str
    network: str
    parameterisation: str
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    decay: bool
    ema_decay: float
    timestep_weights: tuple[float, ...]
    timestep_bounds: tuple[int, ...]
    flip: bool
    crop: int = 0
    label_dropout: float = 0.0
    gradient_norm: float = 1.0
    needs: str = ""

    def __post_init__(self) -> None:
        """Refuse settings that cannot run.

        Raises:
            UserError: naming the field.
        """
        check_kinds(self)
        for name in ("steps", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise refusal(self, name, "above 0")
        for name in ("warmup_steps", "crop", "gradient_norm"):
            if getattr(self, name) < 0:
                raise refusal(self, name, "0 or more")
        if not 0 <= self.ema_decay <= 1:
            raise refusal(self, "ema_decay", "between 0 and 1")
        if not 0 <= self.label_dropout < 1:
            raise refusal(self, "label_dropout", "at least 0 and below 1")
        if self.network not in NETWORKS:
            raise refusal(self, "network", f"one of {', '.join(NETWORKS)}")
        if self.crop >= NETWORKS[self.network].resolution:
            raise refusal(self, "crop", "smaller than the images")
        _ = Process.parse(self.parameterisation), self.timesteps

    @property
    def timesteps(self) -> TimestepMixture:
        """The mixture as a type."""
        return TimestepMixture(
            weights=self.timestep_weights, bounds=self.timestep_bounds
        )


def load_pretraining(name: str, **changes: Any) -> PretrainingRecipe:
    """Read settings; `changes` that are not None replace their fields.

    Args:
        name: Bundled ones, or the path of a TOML file.

    Raises:
        UserError: when there are none, or a field is missing, unknown or out of range.
    """
    return read_recipe_file(
        PretrainingRecipe, name, pretraining_folder(), pretraining_names(), changes
    )


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What only the operator knows of the images; it goes onto the card.

    Attributes:
        data: What they are and where they come from.
        licences: Theirs.
        licence: Of the checkpoint.
        title: Of the checkpoint, for people; "" for its folder's name.
    """

    data: str
    licences: str
    licence: str
    title: str = ""


def pretrain(
    source: Path,
    folder: Path,
    recipe: PretrainingRecipe,
    provenance: Provenance,
    *,
    options: ReadOptions | None = None,
    device: str = "auto",
    seed: int = 0,
    watcher: Watcher,
) -> CheckpointCard:
    """Train a network on all images of a public folder, and write the checkpoint.

    Started again with the same wishes it goes on from its last state. Started under
    torchrun, the processes share each batch; they must all see both folders.

    Guarantee: none. The weights may give back any image of the folder.

    Raises:
        UserError: when nothing is said of the images, the folder holds no data set, or
            the checkpoint's folder holds another one already.
        Stopped: when the watcher asks; the state is on disk.
    """
    if not provenance.data.strip():
        raise UserError(
            "Say what the images are and where they come from (--data): whoever uses "
            "the checkpoint must judge whether it could contain their patients."
        )
    if (folder / CARD).exists():
        raise UserError(
            f"{folder} already holds a checkpoint: choose another folder, or delete it."
        )
    with team() as crew:
        leads = crew.rank == LEADER
        read = _reader(source, folder, recipe, options, watcher)
        # One process decodes the images; the others find them decoded.
        dataset = read() if leads else None
        crew.wait()
        dataset = dataset or read()
        if leads:
            facts = {"data": dataset.fingerprint, "seed": seed}
            facts["groups"] = NETWORKS[recipe.network].groups
            same_wishes(folder, _plain(recipe) | facts)
        network = _fresh(recipe, dataset, seed)
        make(
            folder,
            network,
            _batches(dataset, network),
            _training(recipe, seed),
            process=Process.parse(recipe.parameterisation),
            device=device,
            save=lambda: _save(network, folder, recipe, provenance, dataset, seed),
            watcher=watcher,
            crew=crew,
        )
    return read_card(folder)


def make(
    folder: Path,
    network: DenoisingNetwork,
    batch: Batch,
    training: PublicTraining,
    *,
    process: Process,
    device: str,
    save: Callable[[], object],
    watcher: Watcher,
    crew: Crew,
) -> None:
    """Train the network, and write checkpoint and log into the folder.

    Args:
        device: As the operator names it.
        save: Writes the checkpoint; called in one process.
        crew: All of whom call this with the same network and batches.

    Raises:
        Stopped: when the watcher asks; the state is on disk.
    """
    losses = train(
        network,
        batch,
        training,
        process=process,
        hardware=crew.hardware(choose_hardware(device)),
        activity="Pretraining on public images, without privacy",
        watcher=heard(watcher, crew),
        state=folder / STATE,
        crew=crew,
    )
    if crew.rank == LEADER:
        write_log(folder / LOG, losses, training)
        save()
        (folder / STATE).unlink(missing_ok=True)
    crew.wait()


def heard(watcher: Watcher, crew: Crew) -> Watcher:
    """The watcher, who is told of progress by one process of the crew only."""
    leads = crew.rank == LEADER
    return watcher if leads else replace(watcher, report=lambda _: None)


def _reader(
    source: Path,
    folder: Path,
    recipe: PretrainingRecipe,
    options: ReadOptions | None,
    watcher: Watcher,
) -> Callable[[], ImageDataset]:
    config = NETWORKS[recipe.network]

    def read() -> ImageDataset:
        return load(
            source.expanduser(),
            private_folder(folder) / "cache",
            resolution=config.resolution,
            grey=config.image_channels == 1,
            options=options,
            watcher=watcher,
        )

    return read


def same_wishes(folder: Path, wishes: dict[str, Any]) -> None:
    """Refuse to go on from the state of another training; else keep these wishes.

    Args:
        wishes: All that the training hangs on, as JSON types.

    Raises:
        UserError: when the folder holds a state of other wishes, or of none.
    """
    kept = folder / WISHES
    begun_as = read_json(kept) if kept.is_file() else {}
    if "gradient_norm" in wishes:  # An older version clipped to 1, and did not say so.
        begun_as = {"gradient_norm": 1.0} | begun_as
    if "groups" in wishes:  # Nor of how many groups the starter's norms had.
        starter = wishes.get("network", "starter") == "starter"
        begun_as = {"groups": 32 if starter else wishes["groups"]} | begun_as
    if (folder / STATE).is_file() and begun_as != wishes:
        raise UserError(
            f"{folder} holds a pretraining under other settings or on other images: "
            "set them back, or choose another folder."
        )
    write_json(kept, wishes)


def _plain(recipe: PretrainingRecipe) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(recipe).items()
    }


def _fresh(
    recipe: PretrainingRecipe, dataset: ImageDataset, seed: int
) -> DenoisingNetwork:
    """Random weights, with a row for every class of the folder."""
    config = replace(
        NETWORKS[recipe.network],
        classes=len(dataset.class_names),
        null_class=recipe.label_dropout > 0,
    )
    return fresh_network(config, seed)


def fresh_network(config: NetworkConfig, seed: int) -> DenoisingNetwork:
    """Random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(config)


def _batches(dataset: ImageDataset, network: DenoisingNetwork) -> Batch:
    channels = network.config.image_channels

    def batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(dataset.labels), (count,), generator=generator)
        rows = chosen.numpy()
        pixels = torch.from_numpy(np.array(dataset.images[rows]))
        labels = torch.from_numpy(np.array(dataset.labels[rows], dtype=np.int64))
        return to_network(pixels).expand(-1, channels, -1, -1), labels

    return batch


def _training(recipe: PretrainingRecipe, seed: int) -> PublicTraining:
    return PublicTraining(
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps,
        decay=recipe.decay,
        ema_decay=recipe.ema_decay,
        timesteps=recipe.timesteps.on(Process.parse(recipe.parameterisation).schedule),
        flip=recipe.flip,
        crop=recipe.crop,
        label_dropout=recipe.label_dropout,
        gradient_norm=recipe.gradient_norm,
        seed=seed,
    )


def _save(
    network: DenoisingNetwork,
    folder: Path,
    recipe: PretrainingRecipe,
    provenance: Provenance,
    dataset: ImageDataset,
    seed: int,
) -> None:
    save_checkpoint(
        network,
        folder,
        dtype=torch.float32,
        name=folder.name,
        title=provenance.title or folder.name,
        description=(
            f"Pretrained without privacy on {len(dataset.labels):,} images of "
            f"{len(dataset.class_names):,} classes ({dataset.format_name})."
        ),
        licence=provenance.licence,
        pretraining_data=provenance.data,
        pretraining_licences=provenance.licences,
        parameterisation=Process.parse(recipe.parameterisation).name,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        command=f"sfumato pretrain OUT --source FOLDER --recipe {recipe.name} "
        f"--steps {recipe.steps} --batch-size {recipe.batch_size} --seed {seed}",
    )
