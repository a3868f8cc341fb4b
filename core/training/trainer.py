"""The DP fine-tune: warm-up on noisy moments, then DP-SGD, one logical step at a time.

    charge → draw units → clip each unit's gradient → sum → noise once → divide
    → Adam → moving average → state

The first line of that is `privacy.mechanism.private_step`; the second is
post-processing and lives here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.checkpoints.cards import STARTED_FROM
from core.checkpoints.store import WEIGHTS, save_checkpoint
from core.data.dataset import ImageDataset
from core.diffusion import ema
from core.diffusion.adapters import merge
from core.diffusion.networks import DenoisingNetwork
from core.errors import Stopped, Unfinishable
from core.events import Watcher
from core.parallel import Hardware, choose_hardware
from core.privacy.accounting import Charge
from core.privacy.gradients.sums import Pace
from core.privacy.ledger import Ledger
from core.privacy.mechanism import Commit, private_step
from core.training import gradients
from core.training.distributed import ProcessLost, crew
from core.training.forecast import workload
from core.training.frozen import narrow
from core.training.gradients import Sum
from core.training.outer import outer_timesteps
from core.training.plan import Plan, plan_facts, started_from
from core.training.purse import Purse, refuse_unpaid
from core.training.state import TrainingState, load_newest, save_state
from core.training.units import UnitImages, group_units
from core.training.warmup import public_checkpoint, public_network, release, warmed_up

SECONDS_BETWEEN_STATES = 60.0
MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """The private fine-tune's result.

    Attributes:
        folder: A checkpoint: the averaged weights, their config and card. Holds none
            where the pictures are drawn from the moments.
        updates: Steps that reached the weights.
        steps_charged: Steps that the ledger charged; never fewer.
        epsilon_charged: ε of everything charged to this run.
    """

    folder: Path
    updates: int
    steps_charged: int
    epsilon_charged: float


def fine_tune(
    plan: Plan,
    dataset: ImageDataset,
    folder: Path,
    ledger: Ledger,
    *,
    device: str,
    watcher: Watcher,
) -> FineTuned:
    """Run the plan to its committed end; called again after a stop, it goes on.

    Guarantee: everything it does to the private images is charged first to the ledger,
    in total at most `plan.charges()`, whose ε is at most the budget. A resumed run
    draws fresh samples and fresh noise, and charges for them again.

    Raises:
        Stopped: at a safe point, when the watcher asks; the state is on disk.
        UserError: when the ledger or the disk cannot be written.
    """
    hardware = choose_hardware(device)
    units = group_units(dataset, plan.budget.unit)
    purse = Purse(plan, dataset.fingerprint, ledger)
    if plan.mechanism is None:
        return _without_network(plan, units, purse, folder, hardware, watcher)
    # PRIVACY: first, as it refuses a network that is not fit, before anything is spent.
    pace = _pace(plan, hardware, watcher)
    network = _start(plan, units, purse, folder, hardware, watcher)
    _descend(plan, network, units, purse, folder, hardware, pace, watcher)
    charged = purse.steps_charged()
    state = TrainingState.start(trained(network))
    load_newest(state, folder)
    _fill(network, state.average)
    merge(network)
    _save_model(network, plan, folder / MODEL, state.updates)
    return FineTuned(
        folder=folder / MODEL,
        updates=state.updates,
        steps_charged=charged,
        epsilon_charged=purse.epsilon(),
    )


def _without_network(
    plan: Plan, units: UnitImages, purse: Purse, folder: Path, hardware: Hardware,
    watcher: Watcher,
) -> FineTuned:  # fmt: skip
    """The noisy releases alone, which the pictures are drawn from.

    Raises:
        Unfinishable: when the moments were paid for and lost: never made twice.
        UserError: when the network that is to clean the pictures cannot be used.
    """
    # PRIVACY: before anything is spent on pictures that it could never clean.
    if plan.checkpoint:
        public_checkpoint(plan)
    if release(plan, units, purse, folder, hardware, watcher) is None:
        raise Unfinishable(
            f"The noisy statistics in {folder} are incomplete, as the program was "
            "broken off while it measured, and nothing is measured twice: start a new "
            "project, or restore a backup in which they are complete; what was charged "
            "stays charged."
        )
    return FineTuned(
        folder=folder / MODEL, updates=0, steps_charged=0,
        epsilon_charged=purse.epsilon(),
    )  # fmt: skip


def _start(
    plan: Plan,
    units: UnitImages,
    purse: Purse,
    folder: Path,
    hardware: Hardware,
    watcher: Watcher,
) -> DenoisingNetwork:
    """The public network, warmed up; the recipe's parts trainable."""
    resuming = any(folder.glob("state-*.safetensors"))
    if resuming:  # Its weights are read from the state.
        network = public_network(plan).to(hardware.device)
    else:
        network = warmed_up(plan, units, purse, folder, hardware, watcher)
    narrow(network, plan.recipe, folder, resuming=resuming)
    return network


def _descend(
    plan: Plan,
    network: DenoisingNetwork,
    units: UnitImages,
    purse: Purse,
    folder: Path,
    hardware: Hardware,
    pace: Pace,
    watcher: Watcher,
) -> None:
    """DP-SGD until the committed steps are charged."""
    state = _state(network, purse, folder)
    optimiser = adam(plan, state)
    outer = outer_timesteps(plan, network.config.null_label, folder, watcher)
    invite = partial(invitation, plan, hardware, pace, state.updates)
    with (
        crew(invite) as others,
        summing(
            plan, network, others.hardware(hardware), pace, others.size
        ) as total_of,
    ):
        others.share(held(network, state))

        def sums(drawn: np.ndarray) -> Tensor:
            own = others.deal(drawn, units.draw)
            return others.add_up(total_of(own, units.draw))

        saved = time.monotonic()
        steps = plan.mechanism.steps
        while (left := purse.steps_left()) > 0:
            try:
                noisy = private_step(
                    plan.mechanism,
                    present=units.present,
                    clipped_sum=sums,
                    commit=_reporting(purse.commit, watcher, steps - left, steps),
                )
                if outer:  # Public, and made from noisy weights: post-processing.
                    noisy += outer.gradient(total_of, state.updates)
                noisy = others.hand_out(noisy)
            except ProcessLost:
                save_state(state, folder)
                raise
            update(plan, state, optimiser, noisy)
            others.compare(state.weights, state.updates)
            stopping = watcher.stop_requested()
            if stopping or time.monotonic() - saved > SECONDS_BETWEEN_STATES:
                save_state(state, folder)
                saved = time.monotonic()
            done = steps - left + 1
            watcher.progress(
                "Training with privacy", done, steps, epsilon=purse.epsilon()
            )
            if stopping and done < steps:
                raise Stopped
        save_state(state, folder)


def _state(network: DenoisingNetwork, purse: Purse, folder: Path) -> TrainingState:
    """The newest one on disk, or the one before the first update.

    Raises:
        UserError: when there were others and none is whole, or the ledger does not hold
            what they learned.
    """
    state = TrainingState.start(trained(network))
    if not load_newest(state, folder):
        if purse.steps_charged() or any(folder.glob("state-*.safetensors")):
            raise Unfinishable(
                f"The training state in {folder} is damaged or gone: restore it from a "
                "backup, or start a new project; what was charged stays charged."
            )
        save_state(state, folder)
    refuse_unpaid(state.updates, purse.steps_charged(), folder)
    return state


def _pace(plan: Plan, hardware: Hardware, watcher: Watcher) -> Pace:
    watcher.progress("Looking for the fastest way to train", 0, 1)
    limit = plan.budget.unit.max_images_per_unit
    device = hardware.device.type
    return gradients.find_pace(workload(started_from(plan), plan.recipe, limit, device))


def invitation(plan: Plan, hardware: Hardware, pace: Pace, updates: int) -> dict:
    """What another process must know to help with a training, as JSON types."""
    return {
        "plan": plan_facts(plan),
        "device": hardware.device.type,
        "pace": asdict(pace),
        "updates": updates,
    }


def held(network: DenoisingNetwork, state: TrainingState) -> list[Tensor]:
    """What every process of a training must hold alike, beside the updates' number."""
    return [*network.state_dict().values(), *state.first, *state.second]


@contextmanager
def summing(
    plan: Plan,
    network: DenoisingNetwork,
    hardware: Hardware,
    pace: Pace,
    processes: int = 1,
) -> Iterator[Sum]:
    """`gradients.summing` as the plan has it, in each of so many processes."""
    with gradients.summing(
        plan.recipe,
        network,
        started_from(plan).predicts,
        hardware,
        pace,
        images_per_unit=plan.budget.unit.max_images_per_unit,
        units=plan.recipe.batch_size / processes,
        clip_norm=plan.mechanism.clip_norm,
    ) as total_of:
        yield total_of


def _reporting(commit: Commit, watcher: Watcher, done: int, steps: int) -> Commit:
    """The same commit; the caller hears that a step has begun."""

    def reporting(charge: Charge) -> None:
        commit(charge)
        watcher.progress("Training with privacy", done, steps)

    return reporting


def adam(plan: Plan, state: TrainingState) -> torch.optim.Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) that works on the state's own tensors.

    Its ε is in units of the clipping norm, as gradients are: with a norm of 0.001 and
    the published batch of 16,384, noise alone is of 5e-8, and 1e-8 would shorten steps.
    """
    optimiser = torch.optim.Adam(
        state.weights,
        lr=plan.recipe.learning_rate,
        eps=1e-8 * plan.mechanism.clip_norm,
    )
    for weight, first, second in zip(
        state.weights, state.first, state.second, strict=True
    ):
        optimiser.state[weight] = {
            "step": torch.tensor(float(state.updates)),
            "exp_avg": first,
            "exp_avg_sq": second,
        }
    return optimiser


def update(
    plan: Plan, state: TrainingState, optimiser: torch.optim.Adam, noisy: Tensor
) -> None:
    """Move the weights along the noisy gradient, then their average."""
    parts = noisy.split([weight.numel() for weight in state.weights])
    for weight, part in zip(state.weights, parts, strict=True):
        weight.grad = part.view_as(weight)
    rise = min(1.0, (state.updates + 1) / max(1, plan.recipe.warmup_steps))
    optimiser.param_groups[0]["lr"] = plan.recipe.learning_rate * rise
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    ema.update(state.average, state.weights, state.updates, plan.recipe.ema_decay)
    state.updates += 1


def trained(network: DenoisingNetwork) -> list[Tensor]:
    return [p for p in network.parameters() if p.requires_grad]


@torch.no_grad()
def _fill(network: DenoisingNetwork, values: list[Tensor]) -> None:
    for parameter, value in zip(trained(network), values, strict=True):
        parameter.copy_(value)


def _save_model(
    network: DenoisingNetwork, plan: Plan, folder: Path, updates: int
) -> None:
    (folder / WEIGHTS).unlink(missing_ok=True)
    card = started_from(plan)
    save_checkpoint(
        network,
        folder,
        dtype=torch.float32,
        name=f"fine-tuned-{plan.run}",
        title="Privately fine-tuned",
        description=plan.sentence(),
        licence="for the custodian to choose",
        pretraining_data=f"private images, with noise; {STARTED_FROM}{card.name}",
        pretraining_licences=card.licence,
        parameterisation=card.parameterisation,
        steps=updates,
        batch_size=plan.recipe.batch_size,
        command="sfumato run",
        # PRIVACY: without it the next project could take the model for a public one.
        private_run=plan.run,
    )
