"""Faults of the public network: another than was asked about, or a private one."""

from __future__ import annotations

from tests.privacy_mutations.harness import Mutant

PLAN = "training/plan.py"
WISHES = "training/wishes.py"
TRAINER = "training/trainer.py"

STARTING = "test_private_start.py::"
IMPORTING = "checkpoints/test_importing.py::"
IN_PLAN = "training/test_plan.py::"
IN_TRAINER = "training/test_trainer.py::"

CHECKPOINT_MUTANTS = (
    Mutant(
        name="another checkpoint than the one that was asked about cleans the pictures",
        file="checkpoints/cards.py",
        correct="same = found.sha256 == sha256 and ",
        wrong="same = ",
        tests=(
            "training/test_pictures.py::test_a_network_that_was_replaced_draws_nothing",
        ),
    ),
    Mutant(
        name="the planned weights compute something else than was planned",
        file="checkpoints/cards.py",
        correct='config_sha256 in ("", found.config_sha256)',
        wrong="True",
        tests=(
            "training/test_pictures.py::test_another_config_is_another_network_than_"
            "was_planned",
        ),
    ),
    Mutant(
        name="a config that was changed under its card is gone on with",
        file="checkpoints/store.py",
        correct='if card.config_sha256 not in ("", ',
        wrong='if False and card.config_sha256 not in ("", ',
        tests=(
            "checkpoints/test_store.py::test_a_config_that_changed_is_found_where_all_"
            "sizes_stay",
        ),
    ),
    Mutant(
        name="the network that cleans pictures is looked at when all is spent",
        file=TRAINER,
        correct="        public_checkpoint(plan)\n    if release(",
        wrong="        pass\n    if release(",
        tests=(
            "training/test_pictures.py::test_a_network_that_cannot_clean_is_refused_"
            "before_anything_is_spent",
        ),
    ),
    Mutant(
        name="a network that is not fit is found out when its moments are measured",
        file=TRAINER,
        correct="    pace = _pace(plan, hardware, watcher)\n    network = _start("
        "plan, units, purse, folder, hardware, watcher)\n",
        wrong="    network = _start(plan, units, purse, folder, hardware, watcher)\n"
        "    pace = _pace(plan, hardware, watcher)\n",
        tests=(IN_TRAINER + "test_a_network_that_is_not_fit_costs_nothing",),
    ),
    Mutant(
        name="whoever imported a network answers for the people of today",
        file=WISHES,
        correct="    if is_scratch(card.name):\n        return card.overlap",
        wrong="    if is_scratch(card.name) or not project.overlap_answer:\n"
        "        return card.overlap",
        tests=(IN_PLAN + "test_the_answer_given_at_the_import_is_about_other_people",),
    ),
    Mutant(
        name="an answer about one checkpoint holds for the next",
        file="arguments.py",
        correct="about_one and meant.checkpoint != project.checkpoint",
        wrong="False",
        tests=(
            "test_arguments.py::test_an_answer_is_about_one_checkpoint_and_these_people",
        ),
    ),
    Mutant(
        name="an answer about one checkpoint holds for another that took its place",
        file=WISHES,
        correct="    if project.checkpoint in asked:\n",
        wrong="    if False:\n",
        tests=(
            "test_pipeline.py::test_what_was_said_of_a_network_is_not_said_of_another_"
            "in_its_place",
        ),
    ),
    Mutant(
        name="a plan without a network lets the one that was asked about be forgotten",
        file=WISHES,
        correct='asked = dict(kept.get("asked", ()))',
        wrong="asked = {}",
        tests=(
            "test_pipeline.py::test_what_was_said_of_a_network_is_not_said_of_another_"
            "in_its_place",
        ),
    ),
    Mutant(
        name="an answer about some people is taken for one about others",
        file="run.py",
        correct="if not overlap_said and not pipeline.planned_for(workspace, dataset):",
        wrong="if False:",
        tests=("test_cli.py::test_images_that_moved_are_of_the_same_people",),
    ),
    Mutant(
        name="another folder is taken for the one that was asked about",
        file="arguments.py",
        correct="overlap=answered or same",
        wrong="overlap=True",
        tests=("test_cli.py::test_images_that_moved_are_of_the_same_people",),
    ),
    Mutant(
        name="a plan of an older version is spent on without an answer",
        file="pipeline.py",
        correct="if plan.checkpoint and not _spent(workspace, kept):",
        wrong="if False:",
        tests=(
            "test_pipeline.py::test_a_plan_of_an_older_version_gets_the_answer_that_it_"
            "lacks",
        ),
    ),
    Mutant(
        name="a genuine file elsewhere in the folder vouches for the one that is read",
        file="checkpoints/importing.py",
        correct="            return file\n",
        wrong="            return found[0]\n",
        tests=(
            IMPORTING + "test_of_a_folder_the_file_that_the_catalogue_means_is_read",
        ),
    ),
    Mutant(
        name="a file that is exchanged before it is read passes for the catalogue's",
        file="checkpoints/importing.py",
        correct='if known and known.sha256 not in ("", found.source_sha256):',
        wrong="if False:",
        tests=(
            IMPORTING + "test_a_file_that_was_exchanged_before_it_was_read_is_not_the_"
            "catalogues",
        ),
    ),
    Mutant(
        name="a folder that calls itself untrained is not asked about",
        file="checkpoints/catalogue.py",
        correct="    if is_scratch(card.name):\n",
        wrong="    if False:\n",
        tests=(
            "checkpoints/test_store.py::test_a_folder_cannot_call_itself_untrained",
        ),
    ),
    Mutant(
        name="nobody asks whether the network that cleans pictures knew these people",
        file=PLAN,
        correct="recipe.pictures == NETWORK or recipe.starts_from_checkpoint",
        wrong="recipe.pictures == NETWORK",
        tests=(
            "training/test_pictures.py::test_refining_asks_whether_the_network_knew_"
            "these_people",
        ),
    ),
    Mutant(
        name="the next project starts from the model of this one",
        file=WISHES,
        correct="    refuse_private(card)\n",
        wrong="",
        tests=(STARTING + "test_no_project_starts_from_it",),
    ),
    Mutant(
        name="a private model does not say which run trained it",
        file=TRAINER,
        correct="private_run=plan.run",
        wrong='private_run=""',
        tests=(STARTING + "test_the_model_names_the_run_that_trained_it",),
    ),
    Mutant(
        name="a private model passes for a public one by what its card says else",
        file="checkpoints/cards.py",
        correct="bool(self.private_run) or self.command",
        wrong="self.command",
        tests=(STARTING + "test_no_project_starts_from_it",),
    ),
    Mutant(
        name="a private model of an older version passes for a public one",
        file="checkpoints/cards.py",
        correct="bool(self.private_run) or self.command == _TRAINED_BY",
        wrong="bool(self.private_run)",
        tests=(STARTING + "test_no_project_starts_from_it",),
    ),
    Mutant(
        name="a private model is imported",
        file="checkpoints/conversion.py",
        correct="    refuse_private(card)\n",
        wrong="",
        tests=(STARTING + "test_it_is_not_imported",),
    ),
    Mutant(
        name="a private model is offered among the checkpoints",
        file="training/preview.py",
        correct="    if card.is_private:\n",
        wrong="    if False:\n",
        tests=(
            STARTING + "test_it_is_locked_where_it_was_copied_among_the_checkpoints",
        ),
    ),
    Mutant(
        name="an older plan to start from a private model is gone on with",
        file="pipeline.py",
        correct="            refuse_private(plan.checkpoint)\n"
        "            # PRIVACY: and",
        wrong="            # PRIVACY: and",
        tests=(STARTING + "test_a_plan_that_an_older_version_made_from_it_is_refused",),
    ),
    Mutant(
        name="images of a model that began as a private one are released",
        file="pipeline.py",
        correct="    refuse_private(plan.checkpoint)\n    training =",
        wrong="    training =",
        tests=(STARTING + "test_a_plan_that_an_older_version_made_from_it_is_refused",),
    ),
    Mutant(
        name="people who are in the checkpoint are promised something",
        file=WISHES,
        correct='if told_overlap(project, card)[0] == "yes":',
        wrong="if False:",
        tests=(IN_PLAN + "test_wishes_that_do_not_fit_are_refused",),
    ),
)
