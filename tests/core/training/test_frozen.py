"""Fine-tuning parts and adapters: what stays as it was, what is saved, and a resume."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from core.checkpoints.store import load_checkpoint
from core.errors import Stopped, UserError
from core.events import Watcher
from core.plan_words import adapters, frozen_parts
from core.training.frozen import START, narrow, trained_parameters
from core.training.state import TrainingState, load_newest
from core.training.warmup import public_network
from tests.core.tiny import make_network, make_plan

pytestmark = pytest.mark.usefixtures("quick_accountant")

CHOICES = {
    "adapters": {"trained": (), "lora_rank": 2},
    "both": {"trained": ("label embedding", "norms and biases"), "lora_rank": 2},
    "part": {"trained": ("attention",), "lora_rank": 0},
}
QUERY = "unet.mid_block.attentions.0.to_q.weight"
LABELS = "unet.class_embedding.weight"
CONVOLUTION = "unet.conv_in.weight"


@pytest.fixture
def trained(tune):
    """The weights that so many steps of a plan come to."""

    def run(plan, stop_after=100):
        seen = []
        watcher = Watcher(
            report=lambda progress: seen.append(
                progress.activity == "Training with privacy"
            ),
            stop_requested=lambda: sum(seen) >= stop_after,
        )
        tuned = tune(plan, watcher=watcher)
        return load_checkpoint(tuned.folder).network.state_dict()

    return run


@pytest.mark.parametrize("choice", CHOICES)
def test_only_the_choice_is_trained_and_it_is_saved_merged(
    trained, tmp_path, folder, choice
):
    plan = make_plan(tmp_path, moments=True, **CHOICES[choice])
    model, start = trained(plan), load_file(folder / START)
    assert model.keys() == start.keys()
    moved = {name for name in model if not torch.equal(model[name], start[name])}
    assert CONVOLUTION not in moved and QUERY in moved
    assert (LABELS in moved) == (choice == "both")
    if choice != "part":
        difference = (model[QUERY] - start[QUERY]).double()
        assert torch.linalg.matrix_rank(difference, atol=1e-6) <= 2


def test_the_adapters_averages_are_what_is_merged(trained, tmp_path, folder):
    model = trained(make_plan(tmp_path, **CHOICES["adapters"]))
    start = load_file(folder / START)
    network = make_adapted(folder)
    state = TrainingState.start(network)
    assert load_newest(state, folder) and len(state.average) == 8
    down, up = state.average[:2]
    torch.testing.assert_close(model[QUERY], start[QUERY] + up @ down)


def make_adapted(folder) -> list[torch.Tensor]:
    stored = load_file(sorted(folder.glob("state-*.safetensors"))[-1])
    count = sum(name.startswith("weight.") for name in stored)
    return [torch.zeros_like(stored[f"weight.{index}"]) for index in range(count)]


def test_the_warm_up_trains_everything_and_a_resume_keeps_what_it_did(
    trained, tmp_path, folder
):
    """The states hold the adapters only; the rest must not fall back to the public."""
    plan = make_plan(tmp_path, moments=True, **CHOICES["adapters"])
    with pytest.raises(Stopped):
        trained(plan, stop_after=1)
    start = load_file(folder / START)
    public = public_network(plan).state_dict()
    assert not torch.equal(start[CONVOLUTION], public[CONVOLUTION])
    model = trained(plan)
    assert torch.equal(model[CONVOLUTION], start[CONVOLUTION])
    assert not torch.equal(model[QUERY], start[QUERY])


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_start_that_is_damaged_or_gone_is_refused(trained, tmp_path, folder, damage):
    plan = make_plan(tmp_path, **CHOICES["adapters"])
    with pytest.raises(Stopped):
        trained(plan, stop_after=1)
    if damage == "gone":
        (folder / START).unlink()
    else:
        (folder / START).write_bytes((folder / START).read_bytes()[:100])
    with pytest.raises(UserError, match=START):
        trained(plan)


def test_a_resume_leaves_the_weights_where_they_are(tmp_path, folder):
    """On a graphics card, say; what was kept is read into memory."""
    recipe = make_plan(tmp_path, **CHOICES["part"]).recipe
    networks = [make_network().double() for _ in range(2)]
    with torch.no_grad():
        networks[1].unet.conv_in.weight.zero_()
    for resuming, network in enumerate(networks):
        before = {name: p.data_ptr() for name, p in network.named_parameters()}
        narrow(network, recipe, folder, resuming=bool(resuming))
        after = {name: p.data_ptr() for name, p in network.named_parameters()}
        assert after == before
        assert {p.dtype for p in network.parameters()} == {torch.float64}
    assert networks[1].unet.conv_in.weight.any()


def test_everything_needs_no_start(trained, tmp_path, folder):
    trained(make_plan(tmp_path))
    assert not (folder / START).exists()


def test_how_many_numbers_were_trained(trained, tmp_path, folder):
    plan = make_plan(tmp_path, **CHOICES["adapters"])
    trained(plan)
    assert trained_parameters(folder / "model", plan.recipe) == 4 * 2 * 16 * 2
    whole = make_plan(tmp_path / "all").recipe
    card = load_checkpoint(folder / "model").card
    assert trained_parameters(folder / "model", whole) == card.parameters


@pytest.mark.parametrize(
    ("trained", "rank", "frozen", "beside"),
    [
        (("all",), 0, "none: every", "none"),
        (("attention", "up blocks"), 0, "but those of: attention, up blocks", "none"),
        ((), 4, "every weight of the network", "of rank 4, beside"),
    ],
)
def test_the_audit_says_what_was_not_trained(tmp_path, trained, rank, frozen, beside):
    recipe = make_plan(tmp_path, trained=trained, lora_rank=rank).recipe
    assert frozen in frozen_parts(recipe) and adapters(recipe).startswith(beside)
