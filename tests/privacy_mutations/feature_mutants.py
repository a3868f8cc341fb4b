"""Faults of the features that pictures are moved to: of their cost, and who counts."""

from __future__ import annotations

from tests.privacy_mutations.harness import Mutant

MATCHING = "training/matching.py"
DOWNHILL = "training/downhill.py"
CELLS = "training/cell_matching.py"
IN_MATCHING = "training/test_matching.py::"
ORDER = IN_MATCHING + "test_they_are_charged_last_and_nothing_is_read_before"
COST = IN_MATCHING + "test_they_share_what_the_moments_have"
ONE = IN_MATCHING + "test_a_unit_moves_the_sum_by_at_most_one"
HALVES = IN_MATCHING + "test_classes_and_cells_share_alike"
ALONE = IN_MATCHING + "test_a_unit_s_features_do_not_hang_on_the_others"

FEATURE_MUTANTS = (
    Mutant(
        name="features cost nothing",
        file="training/moments.py",
        correct="            *(self.features.charges() if self.features else ()),\n",
        wrong="",
        tests=(COST,),
    ),
    Mutant(
        name="features are looked at before they are paid for",
        file=DOWNHILL,
        correct="        noisy = self.sums.next(bounded_sum, charge)\n",
        wrong="        bounded_sum()\n"
        "        noisy = self.sums.next(bounded_sum, charge)\n",
        tests=(ORDER,),
    ),
    Mutant(
        name="each image of a patient counts whole in the features",
        file=DOWNHILL,
        correct="equal_weights(len(own)) for own in groups",
        wrong="torch.ones(len(own)) for own in groups",
        tests=(ONE,),
    ),
    Mutant(
        name="a patient's weights add up to a little more than one",
        file="training/units.py",
        correct="torch.full((count,), 1 / count, dtype=torch.float64)",
        wrong="torch.full((count,), 1 / count)",
        tests=(
            "training/test_units.py::test_a_units_weights_add_up_to_one_and_no_more",
        ),
    ),
    Mutant(
        name="features of many units are looked at together",
        file=DOWNHILL,
        correct="pool.map(seen, drawn), strict=True)\n",
        wrong="[seen((torch.cat([p for p, _ in drawn]),\n"
        "                torch.cat([own for _, own in drawn])))], strict=True)\n",
        tests=(ALONE,),
    ),
    Mutant(
        name="squares of features are not shortened with them",
        file=DOWNHILL,
        correct="                    total += sum_of_means(part, norm)\n",
        wrong="                    total += sum_of_means(part, norm)\n"
        "                    total[:, width:-1] += torch.zeros_like(total[:, width:-1])"
        ".index_add_(\n                        0, part.labels, "
        "part.coefficients[:, width:].double() / norm)\n",
        tests=(ONE,),
    ),
    Mutant(
        name="cells of features cost nothing",
        file=MATCHING,
        correct="        return (one, one) if self.cells > 1 else (one,)\n",
        wrong="        return (one,)\n",
        tests=(HALVES, ORDER),
    ),
    Mutant(
        name="features are charged to nobody",
        file=DOWNHILL,
        correct="        noisy = self.sums.next(bounded_sum, charge)\n",
        wrong="        noisy = NoisySums(lambda _: None).next(bounded_sum, charge)\n",
        tests=(ORDER,),
    ),
    Mutant(
        name="a record's cell hangs on how many there are",
        file=CELLS,
        correct="        return seen, nearest(seen * scales, own, centres)\n",
        wrong="        return seen, own * number + records.units.present % number\n",
        tests=(ALONE,),
    ),
)
