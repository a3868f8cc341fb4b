"""A recipe that cannot run is refused in a sentence; older ones still read."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields

import pytest

from core.diffusion.samplers import STILL
from core.errors import UserError
from core.training.recipe import Recipe
from core.training.recipe_loading import load_recipe
from tests.core.tiny import LATER_FIELDS, write_recipe


def refused(tmp_path, **changes: object) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(str(write_recipe(tmp_path, **changes)))
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": '"3"'}, "steps must be a whole number"),
        ({"steps": "3.0"}, "steps must be a whole number"),
        ({"steps": "true"}, "steps must be a whole number"),
        ({"clip_norm": '"0.1"'}, "clip norm must be a number"),
        ({"clip_norm": "true"}, "clip norm must be a number"),
        ({"clip_norm": "nan"}, "clip norm must be a number"),
        ({"learning_rate": "inf"}, "learning rate must be a number"),
        ({"flip": "1"}, "flip must be true or false"),
        ({"flip": '"no"'}, "flip must be true or false"),
        ({"title": "3"}, "title must be a text"),
        ({"sampler": '["ddim"]'}, "sampler must be a text"),
        ({"timestep_weights": "1.0"}, "weights must be a list of numbers"),
        ({"timestep_weights": '["1"]'}, "weights must be a list of numbers"),
        ({"timestep_bounds": "[0, 0.5, 1000]"}, "bounds must be a list of whole num"),
        ({"moment_frequencies": "[2]"}, "frequencies must be a list of 2 whole num"),
        ({"moment_frequencies": "[2, 1, 1]"}, "must be a list of 2 whole numbers"),
        ({"trained": '"all"'}, "trained must be a list of texts"),
        ({"lora_rank": "4.0"}, "lora rank must be a whole number"),
        ({"crop": "1.5"}, "crop must be a whole number"),
        ({"guidance": '"much"'}, "guidance must be a number"),
        ({"network": "1"}, "network must be a text"),
    ],
)
def test_a_value_of_the_wrong_kind_names_its_field(tmp_path, changes, words):
    assert words in refused(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"moment_means_share": 0}, "moment means share must be above 0 and below 1"),
        ({"moment_means_share": 1}, "moment means share must be above 0 and below 1"),
        ({"moment_share": -0.1}, "moment share must be at least 0 and below 1"),
        ({"moment_frequencies": "[0, 0]"}, "moment frequencies"),
        ({"moment_frequencies": "[2, -1]"}, "moment frequencies"),
        ({"moment_norm": 0}, "moment norm must be above 0"),
        ({"moment_images": 0}, "moment images must be above 0"),
        ({"moment_noise_edge": -1}, "moment noise edge must be 0 or more"),
        ({"moment_cells": 0}, "moment cells must be above 0"),
        ({"moment_cells": 257}, "moment cells must be at most 256"),
        ({"moment_cells": 2}, "moment cells must be 1 with a moment residual"),
        ({"moment_cell_rounds": 101}, "moment cell rounds must be at most 100"),
        ({"moment_cell_norm": 1e7}, "moment cell norm must be at most 1e"),
        ({"moment_cells_share": 0.0}, "moment cells share must be between 0.01"),
        ({"moment_features_share": 1.0}, "moment features share must be between 0"),
        ({"moment_features_rounds": 0}, "moment features rounds must be between 1"),
        ({"moment_features_cells": 257}, "moment features cells must be at most 256"),
        ({"moment_features_cells": 0}, "moment features cells must be above 0"),
        ({"moment_features_from": -1}, "moment features from must be 0 or more"),
        ({"moment_cells_from": -1}, "moment cells from must be 0 or more"),
        ({"moment_cell_edge": -0.1}, "moment cell edge must be 0 or more"),
        ({"warmup_steps": -1}, "warmup steps must be 0 or more"),
        ({"ema_decay": 1.1}, "ema decay must be between 0 and 1"),
        ({"trained": "[]"}, "trains nothing"),
        ({"trained": '["head"]'}, "no part 'head'"),
        ({"trained": '["all", "attention"]'}, "take the other parts off"),
        ({"lora_rank": 4}, "set lora_rank to 0"),
        ({"trained": '["attention"]', "lora_rank": 4}, "set lora_rank to 0"),
        ({"trained": "[]", "lora_rank": 65}, "lora rank must be between"),
        ({"trained": "[]", "lora_rank": -1}, "lora rank must be between"),
        (
            {"trained": "[]", "lora_rank": 4, "moment_share": 0},
            'trained must be a list with "label embedding"',
        ),
        (
            {"trained": '["middle block"]', "moment_share": 0},
            'trained must be a list with "label embedding"',
        ),
        ({"crop": -1}, "crop must be 0 or more"),
        ({"steps_at_epsilon": -1}, "steps at epsilon must be 0 or more"),
        ({"label_dropout": 1}, "label dropout must be at least 0 and below 1"),
        ({"label_dropout": -0.1}, "label dropout must be at least 0 and below 1"),
        ({"guidance": 1}, "label dropout must be above 0 for a sampler with guidance"),
        ({"guidance": -1, "label_dropout": 0.1}, "Guidance must be between"),
        ({"churn_amount": 1}, "Only the sampler heun takes churn"),
        ({"churn_amount": -1, "sampler": '"heun"'}, "amount of 0 or more"),
        ({"outer_images": -1}, "outer images must be 0 or more"),
        ({"outer_source": '"photographs"'}, "outer source must be one of"),
        (
            {"outer_images": 4, "outer_source": '"moments"', "moment_share": 0},
            "outer source must be another without noisy moments",
        ),
        ({"private_timesteps": "[600, 30]"}, "private timesteps must be rising"),
        ({"private_timesteps": "[30, 1001]"}, "private timesteps must be rising"),
        ({"private_timesteps": "[-1, 30]"}, "private timesteps must be rising"),
        ({"outer_images": 4, "private_timesteps": "[0, 1000]"}, "leaves no timesteps"),
        (
            {
                "outer_images": 4,
                "timestep_weights": "[1, 0]",
                "private_timesteps": "[500, 900]",
            },
            "leaves no timesteps",
        ),
        ({"parameterisation": '"epsilon"'}, "'epsilon' is unknown"),
        ({"network": '"dpdm"', "parameterisation": '"edm"'}, "network must be empty"),
        ({"network": '"dpdm-grey"'}, "parameterisation must be named"),
        (
            {
                "network": '"dpdm-grey"',
                "parameterisation": '"edm"',
                "trained": '["attention"]',
            },
            'trained must be ["all"]',
        ),
    ],
)
def test_a_value_out_of_range_names_its_field(tmp_path, changes, words):
    assert words in refused(tmp_path, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 1},
        {"moment_share": 0, "moment_means_share": 0, "moment_images": 0},
        {"trained": "[]", "lora_rank": 4},
        {"trained": '["label embedding", "norms and biases"]', "lora_rank": 8},
        {"trained": '["attention", "time embedding"]'},
        {"trained": '["label embedding"]', "lora_rank": 4, "moment_share": 0},
        {"crop": 4, "label_dropout": 0.1, "guidance": 2.5},
        {"sampler": '"heun"', "churn_amount": 40, "churn_to": 80, "churn_noise": 1.003},
        {"network": '"dpdm-grey"', "parameterisation": '"edm"'},
        {"parameterisation": '"eps-cosine-4000-rescaled"'},
        {"outer_images": 4, "outer_source": '"moments"'},
        {"outer_images": 4, "moment_share": 0},
    ],
)
def test_what_can_run_is_not_refused(tmp_path, changes):
    recipe = load_recipe(str(write_recipe(tmp_path, **changes)))
    for name, value in changes.items():
        if not isinstance(value, str):
            assert getattr(recipe, name) == value


def test_a_file_that_is_no_text_is_refused_in_a_sentence(tmp_path):
    path = write_recipe(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"Tiny", b"T\xe9ny"))
    with pytest.raises(UserError, match="UTF-8"):
        load_recipe(str(path))


def test_a_recipe_without_the_newer_fields_does_what_it_did(tmp_path):
    recipe = load_recipe(str(write_recipe(tmp_path)))
    assert (recipe.trained, recipe.lora_rank) == (("all",), 0)
    assert (recipe.network, recipe.parameterisation, recipe.needs) == ("", "", "")
    assert (recipe.crop, recipe.label_dropout, recipe.guidance) == (0, 0, 0)
    assert (recipe.churn, recipe.steps_at_epsilon) == (STILL, 0)
    assert recipe.outer_images == 0 and recipe.shown_timesteps == recipe.timesteps


def test_a_field_of_the_first_version_is_never_guessed():
    """Only fields that came later have a default; a kept plan must name the others."""
    later = {field.name for field in fields(Recipe) if field.default is not MISSING}
    assert later == LATER_FIELDS


def test_a_change_replaces_what_the_file_says(tmp_path):
    path = str(write_recipe(tmp_path))
    first, changed = load_recipe(path), load_recipe(path, steps=9, batch_size=None)
    assert asdict(changed) == asdict(first) | {"steps": 9}
