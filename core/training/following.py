"""A process that does not lead: it adds up gradients, and makes the same updates."""

from __future__ import annotations

import signal

import numpy as np

from core.diffusion.adapters import choose
from core.parallel import choose_hardware
from core.privacy.gradients.sums import Pace
from core.training import distributed, trainer
from core.training.plan import plan_from_facts
from core.training.state import TrainingState
from core.training.warmup import public_network


def follow() -> None:
    """Help with every training that the leader begins, until its run is over.

    Draws no unit, adds no noise, and opens neither project nor ledger.

    Raises:
        UserError: when the leader is gone, or the checkpoint cannot be read here.
    """
    # The leader hears Ctrl-C and stops at a safe point; when it ends, so does this.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for job in distributed.trainings():
        help_with(job)


def help_with(job: dict) -> None:
    """One training, as `trainer.invitation` describes it, from here to its end."""
    plan = plan_from_facts(job["plan"])
    with distributed.crew() as crew:
        hardware = crew.hardware(choose_hardware(job["device"]))
        network = public_network(plan).to(hardware.device)
        choose(network, plan.recipe.trained, plan.recipe.lora_rank)
        state = TrainingState.start(trainer.trained(network))
        state.updates = job["updates"]
        crew.share(trainer.held(network, state))
        optimiser = trainer.adam(plan, state)
        pace = Pace(**job["pace"])
        with trainer.summing(plan, network, hardware, pace, crew.size) as total_of:
            while (records := crew.receive()) is not None:
                units = np.arange(len(records))
                noisy = crew.hand_out(crew.add_up(total_of(units, records.__getitem__)))
                trainer.update(plan, state, optimiser, noisy)
                crew.compare(state.weights, state.updates)
