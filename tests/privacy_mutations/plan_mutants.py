"""Faults of the plan, the purse and the state: more is done than was promised."""

from __future__ import annotations

from tests.privacy_mutations.harness import Mutant

PLAN = "training/plan.py"
BINDING = "training/binding.py"
WISHES = "training/wishes.py"
PURSE = "training/purse.py"
STATE = "training/state.py"
TRAINER = "training/trainer.py"
BUDGET = "privacy/budget.py"
MECHANISM = "privacy/mechanism.py"
DISTRIBUTED = "training/distributed.py"

IN_PLAN = "training/test_plan.py::"
IN_PURSE = "training/test_purse.py::"
IN_TRAINER = "training/test_trainer.py::"
DEALT = "training/test_distributed.py::test_each_unit_is_dealt_to_one_process"

PLAN_MUTANTS = (
    Mutant(
        name="the moments are left out of the calibration",
        file=BINDING,
        correct="return charges_of(louder, moments, central, teacher)",
        wrong="return charges_of(louder, None, central, teacher)",
        tests=(IN_PLAN + "test_the_calibration_is_over_everything",),
    ),
    Mutant(
        name="one release of moments is left out",
        file="training/moments.py",
        correct="            Charge(noise_multiplier=self.squares_noise, count=1),\n"
        "            *(",
        wrong="            *(",
        tests=(IN_PLAN + "test_the_calibration_is_over_everything",),
    ),
    Mutant(
        name="fewer steps are accounted than are made",
        file=BINDING,
        correct="releases += (mechanism.charge(mechanism.steps),)",
        wrong="releases += (mechanism.charge(mechanism.steps - 1),)",
        tests=(IN_PLAN + "test_the_calibration_is_over_everything",),
    ),
    Mutant(
        name="pictures from the moments forget what the teacher costs",
        file=BINDING,
        correct="return charges_of(None, of(noise), None, teacher)",
        wrong="return charges_of(None, of(noise), None, None)",
        tests=(
            "training/test_pictures.py::test_the_moments_have_what_the_teacher_leaves",
        ),
    ),
    Mutant(
        name="a class that nobody confirmed is in the release",
        file=WISHES,
        correct="if set(project.classes) == set(class_names):",
        wrong="if set(project.classes) <= set(class_names):",
        tests=(
            "test_declarations.py::"
            "test_nothing_is_planned_for_classes_that_nobody_confirmed",
        ),
    ),
    Mutant(
        name="any delta will do",
        file=BINDING,
        correct="    budget.check_delta(declared_count)\n",
        wrong="",
        tests=(IN_PLAN + "test_wishes_that_do_not_fit_are_refused",),
    ),
    Mutant(
        name="delta may be one over the count",
        file=BUDGET,
        correct="if self.delta >= 1 / declared_count:",
        wrong="if self.delta > 1 / declared_count:",
        tests=(IN_PLAN + "test_wishes_that_do_not_fit_are_refused",),
    ),
    Mutant(
        name="the count is that of the folder",
        file=PLAN,
        correct="        budget, project.declared_count, recipe, len(class_names)\n",
        wrong="        budget, units_present, recipe, len(class_names)\n",
        tests=(IN_PLAN + "test_its_numbers_are_the_declared_ones",),
    ),
    Mutant(
        name="more units than were declared are planned for",
        file=PLAN,
        correct="if units_present > project.declared_count:",
        wrong="if False:",
        tests=(IN_PLAN + "test_wishes_that_do_not_fit_are_refused",),
    ),
    Mutant(
        name="the second opinion is ignored",
        file=PLAN,
        correct="if not max(opinions) <= budget.epsilon:",
        wrong="if not opinions[0] <= budget.epsilon:",
        tests=(IN_PLAN + "test_no_plan_is_made_when_one_accountant_finds_more",),
    ),
    Mutant(
        name="the plan states the smaller of two opinions",
        file=PLAN,
        correct="return max(opinions)",
        wrong="return min(opinions)",
        tests=(
            IN_PLAN + "test_the_plan_states_the_larger_of_two_opinions_whichever_it_is",
        ),
    ),
    Mutant(
        name="a claim is rounded down",
        file=PLAN,
        correct="text = short if float(short) == number else repr(number)",
        wrong="text = short",
        tests=(IN_PLAN + "test_a_claim_is_never_rounded",),
    ),
    Mutant(
        name="calibrated for another relation than is promised",
        file=BINDING,
        correct="calibrate(at, budget.epsilon, budget.delta, budget.relation)",
        wrong="calibrate(at, budget.epsilon, budget.delta, Relation.REPLACE_SPECIAL)",
        tests=(IN_PLAN + "test_the_calibration_is_over_everything",),
    ),
    Mutant(
        name="the rate is rounded where the plan is bound",
        file=MECHANISM,
        correct="probability = batch_size / population",
        wrong="probability = 1 / max(2, population // batch_size)",
        tests=("privacy/test_mechanism.py",),
    ),
    Mutant(
        name="charged after the sum",
        file=MECHANISM,
        correct="    total = clipped_sum(units)\n",
        wrong="    total = clipped_sum(units)\n    commit(mechanism.charge(1))\n",
        tests=("privacy/test_mechanism.py",),
    ),
)
PURSE_MUTANTS = (
    Mutant(
        name="one step more than was committed",
        file=PURSE,
        correct="return self._plan.steps - self.steps_charged()",
        wrong="return self._plan.steps + 1 - self.steps_charged()",
        tests=(IN_PURSE + "test_it_counts_what_the_ledger_holds",),
    ),
    Mutant(
        name="the step that was lost is not counted after a resume",
        file=PURSE,
        correct="steps_among(self.charged())",
        wrong="steps_among(self.charged()[:-1])",
        tests=(IN_PURSE + "test_it_counts_what_the_ledger_holds",),
    ),
    Mutant(
        name="the purse has no bottom",
        file=PURSE,
        correct=", allowed=self._plan.charges())",
        wrong=")",
        tests=(IN_PURSE + "test_it_charges_the_plan_and_no_more",),
    ),
    Mutant(
        name="a release that was begun may be made again",
        file=PURSE,
        correct="return counted(self.charged(), *moments.charges()) if",
        wrong="return 0 and counted(self.charged(), *moments.charges()) if",
        tests=(IN_PURSE + "test_it_counts_what_the_ledger_holds",),
    ),
    Mutant(
        name="less is shown than was charged",
        file=PURSE,
        correct="stride * math.ceil(charge.count / stride)",
        wrong="stride * (charge.count // stride)",
        tests=(
            IN_PURSE
            + "test_the_accountant_is_asked_now_and_then_and_never_shows_too_little",
        ),
    ),
    Mutant(
        name="other runs' charges are this one's",
        file=PURSE,
        correct="run=self._account.run)",
        wrong="run=None)",
        tests=(IN_PURSE + "test_it_counts_what_the_ledger_holds",),
    ),
    Mutant(
        name="a damaged state is taken for whole",
        file=STATE,
        correct='if read_json(path.with_suffix(".json"))["sha256"] != sha256(path):',
        wrong="if False:",
        tests=("training/test_state.py",),
    ),
    Mutant(
        name="a step that was cut short is charged to nobody",
        file=TRAINER,
        correct="                noisy = private_step(",
        wrong="                purse.commit = lambda charge: None\n"
        "                noisy = private_step(",
        tests=("training/test_resume.py",),
    ),
    Mutant(
        name="steps are counted by what reached the weights",
        file=TRAINER,
        correct="while (left := purse.steps_left()) > 0:",
        wrong="while (left := steps - state.updates) > 0:",
        tests=(IN_TRAINER + "test_a_kill_after_the_charge_loses_the_step_and_no_more",),
    ),
    Mutant(
        name="a sum of the moments is made again after a crash",
        file="training/warmup.py",
        correct="        if charged > sums.kept:\n",
        wrong="        if False:\n",
        tests=(
            IN_TRAINER + "test_a_crash_within_a_sum_of_the_moments_makes_it_only_once",
        ),
    ),
    Mutant(
        name="releases that the ledger does not hold are gone on from",
        file="training/purse.py",
        correct="    if kept > charged:\n",
        wrong="    if False:\n",
        tests=(IN_TRAINER + "test_what_the_ledger_does_not_hold_is_not_gone_on_from",),
    ),
    Mutant(
        name="sums of another run are taken",
        file="training/sums.py",
        correct="            if file.metadata() != stamp:\n",
        wrong="            if False:\n",
        tests=("training/test_sums.py",),
    ),
    Mutant(
        name="sums that are kept are read again, for nothing",
        file="training/sums.py",
        correct="        if number < self.kept:\n",
        wrong="        if number < 0:\n",
        tests=("training/test_sums.py",),
    ),
    Mutant(
        name="the first charge pays for all sums",
        file="training/sums.py",
        correct="number + charge.count",
        wrong="number + 100",
        tests=("training/test_sums.py",),
    ),
    Mutant(
        name="the sums are never charged",
        file="training/sums.py",
        correct="                self._commit(charge)\n",
        wrong="",
        tests=("training/test_sums.py",),
    ),
    Mutant(
        name="sums are kept after all of them are made",
        file="training/sums.py",
        correct="        self._keep()\n        return noisy\n",
        wrong="        return noisy\n",
        tests=("training/test_sums.py",),
    ),
    Mutant(
        name="a run whose states are gone begins anew",
        file=TRAINER,
        correct='if purse.steps_charged() or any(folder.glob("state-*.safetensors")):',
        wrong="if False:",
        tests=(
            IN_TRAINER
            + "test_a_run_whose_states_are_all_damaged_is_not_passed_off_as_trained",
        ),
    ),
)

# What only real processes show is in tests/core/training/test_distributed.py: noise of
# every process, a sum that is lost or in half precision, weights that drift.
DEALING_MUTANTS = (
    Mutant(
        name="two processes are dealt the same units",
        file=DISTRIBUTED,
        correct="for unit in part]), rank)",
        wrong="for unit in parts[0]]), rank)",
        tests=(DEALT,),
    ),
    Mutant(
        name="the leader keeps what it deals",
        file=DISTRIBUTED,
        correct="        return own\n",
        wrong="        return drawn\n",
        tests=(DEALT,),
    ),
    Mutant(
        name="units that do not divide are dropped",
        file=DISTRIBUTED,
        correct="np.array_split(drawn, self.size)",
        wrong="np.split(drawn[: len(drawn) // self.size * self.size], self.size)",
        tests=(DEALT,),
    ),
)
