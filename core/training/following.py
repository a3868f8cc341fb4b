"""A process that does not lead: it adds up gradients, and makes the same updates."""

from __future__ import annotations

import signal
from pathlib import Path

from core.data.cache import reopened
from core.data.dataset import ImageDataset
from core.diffusion.adapters import choose
from core.errors import UserError
from core.parallel import choose_hardware
from core.training import distributed, trainer
from core.training.plan import plan_from_facts
from core.training.state import TrainingState
from core.training.units import group_units


def follow() -> None:
    """Help with every training that the leader begins, until its run is over.

    Draws no unit, adds no noise, and opens neither project nor ledger.

    Raises:
        UserError: when the leader is gone, or the prepared images cannot be read here.
    """
    # The leader hears Ctrl-C and stops at a safe point; when it ends, so does this.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for job in distributed.trainings():
        help_with(job)


def help_with(job: dict) -> None:
    """One training, as `trainer.invitation` describes it, from here to its end."""
    plan = plan_from_facts(job["plan"])
    units = group_units(_opened(Path(job["dataset"])), plan.budget.unit)
    whole = choose_hardware(job["device"])
    with distributed.crew(plan.mechanism.batch_cap) as crew:
        hardware = crew.hardware(whole)
        network = trainer.public_network(plan).to(hardware.device)
        choose(network, plan.recipe.trained, plan.recipe.lora_rank)
        state = TrainingState.start(trainer.trained(network))
        state.updates = job["updates"]
        crew.share([*network.state_dict().values(), *state.first, *state.second])
        optimiser = trainer.adam(plan, state)
        with trainer.summing(plan, network, units, hardware) as sums:
            while (share := crew.deal()) is not None:
                noisy = crew.hand_out(crew.add_up(sums(share)))
                trainer.update(plan, state, optimiser, noisy)
                crew.compare(state.weights, state.updates)


def _opened(folder: Path) -> ImageDataset:
    dataset = reopened(folder)
    if dataset is None:
        raise UserError(
            f"This process cannot read the prepared images in {folder}: put the "
            "project on a disk that every machine of the run has under the same path."
        )
    return dataset
