"""The papers' recipes hold the papers' numbers, typed here from the papers again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.bundled import recipe_folder, recipe_names, recipe_titles
from core.cli import build_parser
from core.diffusion.networks import build_network, parameter_count
from core.diffusion.presets import PRESETS
from core.diffusion.process import Process, check_process
from core.training.recipe_loading import load_recipe
from core.training.wishes import changes_to_recipe, read_recipe
from core.workspace import Project

# Ghalebikesabi et al. 2023, Table 3, line by line: MNIST, CIFAR-10, Camelyon17.
COLUMNS = ("paper-mnist", "paper-cifar10", "paper-camelyon17")
TABLE_3 = {
    "steps": (4_000, 200, 200),
    "clip_norm": (1e-3, 1e-3, 1e-3),
    "batch_size": (4_096, 16_384, 16_384),
    "learning_rate": (5e-4, 1e-3, 1e-3),
    "warmup_steps": (0, 0, 0),
    "timestep_weights": ((0.05, 0.9, 0.05), *[(0.015, 0.785, 0.2)] * 2),
    "timestep_bounds": ((0, 200, 800, 1000), *[(0, 30, 600, 1000)] * 2),
    "augmentation_multiplicity": (128, 128, 128),
    "flip": (False, True, True),
    "ema_decay": (0.9999, 0.9999, 0.9999),
}
# Its text: sections 5.3, 5.5 and 5.4.
SYNTHETIC_IMAGES = (50_000, 50_000, 302_436)
CLASSES = (10, 10, 2)


@pytest.mark.parametrize("column", range(3), ids=COLUMNS)
def test_a_column_of_table_3(column):
    recipe = load_recipe(COLUMNS[column])
    for name, values in TABLE_3.items():
        assert getattr(recipe, name) == values[column], name
    process = Process.parse(recipe.parameterisation)
    assert process.name == "eps" and process.schedule.name == "linear-1000"
    assert recipe.images_per_class * CLASSES[column] == SYNTHETIC_IMAGES[column]
    assert (recipe.sampler, recipe.sampler_steps) == ("ancestral", 1000)
    assert (recipe.guidance, recipe.label_dropout, recipe.crop) == (0, 0, 0)
    assert recipe.moment_share == 0 and recipe.trained == ("all",)


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("paper-cifar10", 50_000),
        ("paper-cifar10", 45_000),  # While it was tuned.
        ("paper-camelyon17", 302_436),
        ("paper-mnist", 60_000),
        ("paper-mnist", 55_000),
        ("dpdm-lifelike", 60_000),
        ("dpdm-useful", 60_000),
        ("dpdm-colour", 50_000),
    ],
)
def test_no_batch_is_lowered_for_the_papers_own_data(name, declared):
    wishes = Project(recipe=name, declared_count=declared)
    assert read_recipe(wishes).batch_size == load_recipe(name).batch_size
    assert not any("too large" in told for told in changes_to_recipe(wishes))


def test_steps_follow_epsilon_where_the_paper_says_so():
    scaled = {name: load_recipe(name).steps_at_epsilon for name in COLUMNS}
    assert scaled == {"paper-mnist": 0, "paper-cifar10": 10, "paper-camelyon17": 0}


def test_what_the_columns_start_from():
    """4.2 million weights from nothing; a trained network of 80.4 million."""
    digits, *colour = (load_recipe(name) for name in COLUMNS)
    assert round(parameter_count(build_network(PRESETS[digits.network])), -5) == 4.2e6
    assert [recipe.network for recipe in colour] == ["", ""]


@pytest.mark.parametrize("trained_as", ["eps", "eps-linear-1000"])
def test_the_papers_own_pretraining_fits_its_recipes(trained_as):
    for name in COLUMNS:
        check_process("any", trained_as, load_recipe(name).parameterisation)


# Dockhorn et al. 2022, the configurations of nv-tlabs/DPDM: what all of them share.
DPDM = {
    "learning_rate": 3e-4,
    "warmup_steps": 0,
    "ema_decay": 0.999,
    "clip_norm": 1.0,
    "label_dropout": 0.1,
    "guidance": 0.0,
    "flip": False,
    "crop": 0,
    "parameterisation": "edm",
    "timestep_weights": (1.0,),
    "steps_at_epsilon": 0,
    "moment_share": 0,
}
# What differs: images, epochs, batch, views. mnist_28 and fmnist_28; cifar10_32.
GREY = {"batch_size": 4096, "augmentation_multiplicity": 32, "network": "dpdm-grey"}
GREY_STEPS = int(300 * 60_000 / 4096)
COLOUR = {"batch_size": 2048, "augmentation_multiplicity": 8, "network": "dpdm-colour"}
COLOUR_STEPS = int(500 * 50_000 / 2048)


@pytest.mark.parametrize(
    ("name", "own", "steps"),
    [
        ("dpdm-lifelike", GREY, GREY_STEPS),
        ("dpdm-useful", GREY, GREY_STEPS),
        ("dpdm-colour", COLOUR, COLOUR_STEPS),
    ],
)
def test_dpdm_trains_as_published(name, own, steps):
    recipe, expected = load_recipe(name), DPDM | own
    assert {field: getattr(recipe, field) for field in expected} == expected
    assert recipe.steps == steps


@pytest.mark.parametrize(("name", "side"), [("dpdm-grey", 7), ("dpdm-colour", 16)])
def test_dpdm_attends_at_one_resolution(name, side):
    config = PRESETS[name]
    sides = [config.resolution // 2**level for level in config.attention_levels]
    assert sides == [side]


def test_dpdm_draws_as_published_in_colour():
    """Deterministic DDIM, from σ = 80 down to 0.002 with ρ = 7."""
    recipe = load_recipe("dpdm-colour")
    assert (recipe.sampler, recipe.sampler_steps) == ("ddim", 50)
    assert recipe.images_per_class * 10 == 50_000
    levels = Process.parse(recipe.parameterisation).schedule.levels(50)
    ends = (0.002 ** (1 / 7), 80 ** (1 / 7))
    expected = torch.linspace(ends[1], ends[0], 50, dtype=torch.float64) ** 7
    torch.testing.assert_close(levels, expected)


@pytest.mark.parametrize("name", ["dpdm-lifelike", "dpdm-useful"])
def test_dpdm_predicts_v_for_its_smallest_epsilon(name):
    """train_eps_0.2.yaml, which differs from the others in this alone."""
    usual = load_recipe(name, epsilon=1.0)
    strict = load_recipe(name, epsilon=0.2)
    assert strict == replace(usual, parameterisation="v-tangent")


def test_dpdm_draws_as_published_for_classifiers():
    recipe = load_recipe("dpdm-useful")
    assert (recipe.sampler, recipe.sampler_steps) == ("euler-maruyama", 1000)


def test_dpdm_draws_as_published_for_the_best_fid():
    recipe = load_recipe("dpdm-lifelike")
    assert (recipe.sampler, recipe.sampler_steps) == ("heun", 1000)
    churn = recipe.churn
    assert (churn.amount, churn.from_sigma, churn.to_sigma) == (100, 0.05, 50)
    assert churn.noise == 1


def test_the_list_says_what_a_recipe_needs_and_begins_with_those_for_any_machine():
    titles = recipe_titles()
    costly = [name for name, title in titles.items() if "(needs " in title]
    assert set(titles) == set(recipe_names())
    assert list(titles)[-len(costly) :] == costly
    assert set(costly) == {*COLUMNS, "dpdm-colour", "dpdm-lifelike", "dpdm-useful"}
    assert all("large graphics card" in titles[name] for name in costly)
    assert len(set(titles.values())) == len(titles)


def test_the_help_lists_the_recipes(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["run", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    for name, title in recipe_titles().items():
        assert f"{name}: {title}".replace("- ", "-") in words.replace("- ", "-")


def test_every_number_of_a_papers_recipe_has_its_source():
    """A comment on its line, on the lines before it, or "unread"."""
    for path in sorted(recipe_folder().rglob("*.toml")):
        if path.stem in ("demo", "few", "starter", "upright", "useful"):
            continue
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        for line in lines:
            field = line.split(" = ")[0]
            told = field.startswith("moment_") or field in (
                "title", "needs", "trained", "timestep_bounds", "sampler"
            )  # fmt: skip
            assert not line or line[0] == "#" or "#" in line or told, (path.name, line)
