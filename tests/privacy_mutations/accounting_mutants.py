"""Faults of the accountant: each makes some ε smaller than it is."""

from __future__ import annotations

from tests.privacy_mutations.harness import Mutant

ACCOUNTING = "privacy/accounting.py"
LOSSES = "privacy/losses.py"
PAIRS = "privacy/pairs.py"
COMPARISON = "privacy/comparison.py"
LIFETIME = "privacy/lifetime.py"
SECOND = "privacy/second_opinion.py"

IN_ACCOUNTING = "privacy/test_accounting.py::"
IN_GRID = "privacy/test_accounting_grid.py::"
IN_COMPARISON = "privacy/test_comparison.py::"

ACCOUNTING_MUTANTS = (
    Mutant(
        name="one step fewer is accounted",
        file=ACCOUNTING,
        correct="charge.count) for charge in gathered]",
        wrong="max(1, charge.count - 1)) for charge in gathered]",
        tests=(
            IN_ACCOUNTING + "test_runs_with_different_settings_add_up_as_elsewhere",
        ),
    ),
    Mutant(
        name="a run is forgotten in the composition",
        file=ACCOUNTING,
        correct="counts[kind] = counts.get(kind, 0) + charge.count",
        wrong="counts[kind] = charge.count",
        tests=(IN_ACCOUNTING + "test_equal_releases_compose_like_one_with_less_noise",),
    ),
    Mutant(
        name="only the first kind of charge is composed",
        file=ACCOUNTING,
        correct="charge.count) for charge in gathered]",
        wrong="charge.count) for charge in gathered[:1]]",
        tests=(
            IN_ACCOUNTING + "test_runs_with_different_settings_add_up_as_elsewhere",
        ),
    ),
    Mutant(
        name="the accounted rate is one over a whole number",
        file=ACCOUNTING,
        correct="q = charge.noise_multiplier, charge.sampling_probability\n",
        wrong="q = charge.noise_multiplier, charge.sampling_probability\n"
        "    q = 1 / math.ceil(1 / q)\n",
        tests=(IN_GRID + "test_one_step_is_the_closed_form",),
    ),
    Mutant(
        name="an exchange is accounted as a removal",
        file=ACCOUNTING,
        correct="exchanged = relation is Relation.REPLACE_ONE\n"
        "    if exchanged and size > 1:",
        wrong="exchanged = False\n    if exchanged and size > 1:",
        tests=(
            IN_ACCOUNTING + "test_exchanging_a_record_costs_more_than_removing_one",
        ),
    ),
    Mutant(
        name="relations are mixed up",
        file=ACCOUNTING,
        correct="exchanged = relation is Relation.REPLACE_ONE\n"
        "    if exchanged and size > 1:",
        wrong="exchanged = relation is Relation.REPLACE_SPECIAL\n"
        "    if exchanged and size > 1:",
        tests=(
            IN_ACCOUNTING + "test_exchanging_a_record_costs_more_than_removing_one",
        ),
    ),
    Mutant(
        name="the cap is left out",
        file=ACCOUNTING,
        correct="    if charge.batch_cap is None:\n        return loss\n",
        wrong="    return loss\n",
        tests=(IN_ACCOUNTING + "test_a_low_cap_is_accounted",),
    ),
    Mutant(
        name="the cap has room for one more",
        file=ACCOUNTING,
        correct="charge.batch_cap - size\n",
        wrong="charge.batch_cap\n",
        tests=(
            IN_ACCOUNTING
            + "test_the_cap_is_priced_by_how_often_others_fill_the_sample",
        ),
    ),
    Mutant(
        name="whoever is pushed out costs nothing",
        file=ACCOUNTING,
        correct="doubled, relation = exchange(noise / 2, q)",
        wrong="doubled, relation = exchange(noise, q)",
        tests=(
            IN_ACCOUNTING
            + "test_the_cap_is_priced_by_how_often_others_fill_the_sample",
        ),
    ),
    Mutant(
        name="epsilon is rounded down",
        file=ACCOUNTING,
        correct="return 0.0 if loss is None else float(loss.epsilons([delta])[0])",
        wrong="found = 0.0 if loss is None else float(loss.epsilons([delta])[0])\n"
        "    return math.floor(found * 1e3) / 1e3",
        tests=(IN_ACCOUNTING + "test_one_full_release_is_the_analytic_gaussian",),
    ),
    Mutant(
        name="equal releases are taken for one",
        file=ACCOUNTING,
        correct="kind.noise_multiplier / math.sqrt(count)",
        wrong="kind.noise_multiplier",
        tests=(IN_ACCOUNTING + "test_equal_releases_compose_like_one_with_less_noise",),
    ),
    Mutant(
        name="what has no noise is passed over",
        file=ACCOUNTING,
        correct="        return UNBOUNDED\n    grid =",
        wrong="        gathered = [c for c in gathered if _bounds_something(c, size)]\n"
        "    grid =",
        tests=(IN_ACCOUNTING + "test_what_nothing_bounds_is_infinite",),
    ),
    Mutant(
        name="a sampled charge has no event of sampling",
        file=ACCOUNTING,
        correct="if self.sampling_probability < 1:",
        wrong="if False:",
        tests=(IN_ACCOUNTING + "test_a_charges_event_is_all_of_it",),
    ),
    Mutant(
        name="the event is one of fewer steps",
        file=ACCOUNTING,
        correct="SelfComposedDpEvent(gaussian, self.count)",
        wrong="SelfComposedDpEvent(gaussian, max(1, self.count - 1))",
        tests=(IN_ACCOUNTING + "test_a_charges_event_is_all_of_it",),
    ),
    Mutant(
        name="what is calibrated was never evaluated",
        file=ACCOUNTING,
        correct="while epsilon(charges_at(noise), delta, relation) > aim:",
        wrong="while False:",
        tests=(IN_ACCOUNTING + "test_calibration_corrects_an_optimistic_search",),
    ),
    Mutant(
        name="calibration goes a little beyond its target",
        file=ACCOUNTING,
        correct="aim = target * (1 - MARGIN)",
        wrong="aim = target * 1.001",
        tests=(IN_ACCOUNTING + "test_calibrated_noise_never_exceeds_its_target",),
    ),
)
LOSS_MUTANTS = (
    Mutant(
        name="only the removal of a unit counts",
        file=LOSSES,
        correct="np.maximum(self.removed.deltas(at), self.added.deltas(at))",
        wrong="self.removed.deltas(at)",
        tests=("privacy/test_losses.py",),
    ),
    Mutant(
        name="the better direction is shown",
        file=LOSSES,
        correct="worse = np.maximum(self.removed.epsilons(at)",
        wrong="worse = np.minimum(self.removed.epsilons(at)",
        tests=("privacy/test_losses.py",),
    ),
    Mutant(
        name="the tail beyond the window is dropped",
        file=LOSSES,
        correct="+ beyond + steps * ROUNDING",
        wrong="+ steps * ROUNDING",
        tests=("privacy/test_losses.py",),
    ),
    Mutant(
        name="the rounding of transforms is dropped",
        file=LOSSES,
        correct="+ beyond + steps * ROUNDING",
        wrong="+ beyond",
        tests=("privacy/test_losses.py",),
    ),
    Mutant(
        name="unbounded losses of all steps but one are dropped",
        file=LOSSES,
        correct="finite += count * math.log1p(-part.infinite)",
        wrong="finite += math.log1p(-part.infinite)",
        tests=("privacy/test_losses.py",),
    ),
    Mutant(
        name="unbounded losses are left out of delta",
        file=LOSSES,
        correct="np.cumsum(masses[::-1])[::-1] + self.infinite",
        wrong="np.cumsum(masses[::-1])[::-1]",
        tests=("privacy/test_losses.py",),
    ),
    Mutant(
        name="a power too few",
        file=LOSSES,
        correct="_power(transform, count)",
        wrong="_power(transform, max(1, count - 1))",
        tests=("privacy/test_losses.py",),
    ),
    Mutant(
        name="a mixture forgets its unbounded part",
        file=LOSSES,
        correct="infinite = (1 - share) * self.infinite + share * other.infinite",
        wrong="infinite = (1 - share) * self.infinite",
        tests=("privacy/test_losses.py",),
    ),
    Mutant(
        name="losses are rounded down",
        file=PAIRS,
        correct="    result[1:] += up\n    result[:-1] += masses - up\n",
        wrong="    result[:-1] += masses\n",
        tests=("privacy/test_pairs.py",),
    ),
    Mutant(
        name="losses are rounded to the nearest",
        file=PAIRS,
        correct="    result[1:] += up\n    result[:-1] += masses - up\n",
        wrong="    result[1:] += masses / 2\n    result[:-1] += masses / 2\n",
        tests=("privacy/test_pairs.py",),
    ),
    Mutant(
        name="the far tail of a step is dropped",
        file=PAIRS,
        correct="infinite=self.upper.above(places[-1]),",
        wrong="infinite=0.0,",
        tests=("privacy/test_pairs.py",),
    ),
    Mutant(
        name="the far tail of an addition is dropped",
        file=PAIRS,
        correct="infinite=self.lower.below(places[0]),",
        wrong="infinite=0.0,",
        tests=("privacy/test_pairs.py",),
    ),
    Mutant(
        name="a removal is taken to be symmetric",
        file=PAIRS,
        correct="place=place, symmetric=still == 0.0)",
        wrong="place=place, symmetric=True)",
        tests=("privacy/test_pairs.py",),
    ),
    Mutant(
        name="one of the group moves the sum",
        file=PAIRS,
        correct="binom.pmf(counts, size, probability)",
        wrong="binom.pmf(counts, min(size, 1), probability)",
        tests=("privacy/test_pairs.py",),
    ),
    Mutant(
        name="an exchange in a group moves one sensitivity",
        file=PAIRS,
        correct="exchange(noise_multiplier / count, 1.0)",
        wrong="exchange(noise_multiplier, 1.0)",
        tests=("privacy/test_pairs.py",),
    ),
)
COMPARISON_MUTANTS = (
    Mutant(
        name="a group is one unit smaller",
        file=COMPARISON,
        correct="loss = privacy_loss(charges, relation, size=size)",
        wrong="loss = privacy_loss(charges, relation, size=size - 1)",
        tests=(
            IN_COMPARISON + "test_a_group_in_a_full_release_is_that_many_sensitivities",
        ),
    ),
    Mutant(
        name="a group is one unit",
        file=COMPARISON,
        correct="    if size == 1:\n",
        wrong="    if size >= 1:\n",
        tests=(
            IN_COMPARISON + "test_a_group_in_a_full_release_is_that_many_sensitivities",
        ),
    ),
    Mutant(
        name="delta is not grown when exchanges are chained",
        file=COMPARISON,
        correct="shares * delta * np.exp(-first)",
        wrong="shares * delta",
        tests=(
            IN_COMPARISON + "test_an_exchanged_group_is_removed_and_others_are_added",
        ),
    ),
    Mutant(
        name="delta is spent twice when exchanges are chained",
        file=COMPARISON,
        correct="(1 - shares) * delta",
        wrong="delta + 0 * shares",
        tests=(
            IN_COMPARISON + "test_an_exchanged_group_is_removed_and_others_are_added",
        ),
    ),
    Mutant(
        name="an image of a patient costs what the patient does",
        file=COMPARISON,
        correct="return epsilon(charges, delta, Relation.REPLACE_ONE)",
        wrong="return epsilon(charges, delta, relation)",
        tests=(
            IN_COMPARISON
            + "test_an_image_under_a_plan_for_patients_turns_its_patients_vector",
        ),
    ),
    Mutant(
        name="a patient costs what an image does",
        file=COMPARISON,
        correct="return group_epsilon(charges, images, delta, relation)",
        wrong="return group_epsilon(charges, 1, delta, relation)",
        tests=(IN_COMPARISON + "test_a_patient_under_a_plan_for_images_is_a_group",),
    ),
    Mutant(
        name="what cannot be compared is left out of the lifetime",
        file=LIFETIME,
        correct="    if not all(comparable(under, terms) for under in spent):\n"
        "        return math.inf\n",
        wrong="    spent = {u: c for u, c in spent.items() if comparable(u, terms)}\n",
        tests=("privacy/test_lifetime.py",),
    ),
    Mutant(
        name="images bound what patients spend",
        file=LIFETIME,
        correct="return one.unit in (other.unit, UnitKind.PATIENT)",
        wrong="return True",
        tests=("privacy/test_lifetime.py",),
    ),
    Mutant(
        name="any column tells the same patients",
        file=LIFETIME,
        correct='return all(a == b or "" in (a, b) for a, b in pairs)',
        wrong="return True",
        tests=("privacy/test_lifetime.py",),
    ),
    Mutant(
        name="two columns pass where the terms name none",
        file=LIFETIME,
        correct="max(len(columns), len(groupings)) > 1:",
        wrong="len(groupings) > 1:",
        tests=("privacy/test_lifetime.py",),
    ),
    Mutant(
        name="two groupings pass where the terms name none",
        file=LIFETIME,
        correct="max(len(columns), len(groupings)) > 1:",
        wrong="len(columns) > 1:",
        tests=("privacy/test_lifetime.py",),
    ),
    Mutant(
        name="a corrected table tells the same patients",
        file=LIFETIME,
        correct="pairs = (one.column, other.column), (one.grouping, other.grouping)",
        wrong="pairs = ((one.column, other.column),)",
        tests=("privacy/test_lifetime.py",),
    ),
    Mutant(
        name="the ledger does not hear how the images were grouped",
        file="pipeline.py",
        correct="membership=dataset.membership,",
        wrong='membership="",',
        tests=(
            "test_pipeline.py::test_the_ledger_tells_a_corrected_table_from_the_first",
        ),
    ),
    Mutant(
        name="an image more is taken for a patient more",
        file=LIFETIME,
        correct="        relation = Relation.REPLACE_ONE\n",
        wrong="        pass\n",
        tests=("privacy/test_lifetime.py",),
    ),
    Mutant(
        name="the lifetime ends with the first terms",
        file=LIFETIME,
        correct="for charges in spent.values() for charge",
        wrong="for charges in list(spent.values())[:1] for charge",
        tests=("privacy/test_lifetime.py",),
    ),
    Mutant(
        name="lifetime runs are looked at one by one",
        file=LIFETIME,
        correct="return epsilon(everything, delta, relation)",
        wrong="return max(epsilon([c], delta, relation) for c in everything)",
        tests=("privacy/test_lifetime.py",),
    ),
    Mutant(
        name="the second opinion knows one relation only",
        file=SECOND,
        correct="NeighboringRelation[relation.name]",
        wrong="NeighboringRelation.ADD_OR_REMOVE_ONE",
        tests=("privacy/test_second_opinion.py",),
    ),
    Mutant(
        name="the second opinion hears of one charge only",
        file=SECOND,
        correct="for charge in charges:",
        wrong="for charge in list(charges)[:1]:",
        tests=("privacy/test_second_opinion.py",),
    ),
)
