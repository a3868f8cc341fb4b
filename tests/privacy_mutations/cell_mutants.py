"""Faults of the cells within the classes: of what they cost, and of who lies where."""

from __future__ import annotations

from tests.privacy_mutations.harness import Mutant

CELLS = "training/cells.py"
MOMENTS = "training/moments.py"
EXACT = "privacy/exact.py"
IN_CELLS = "training/test_cells.py::"
ORDER = IN_CELLS + "test_every_charge_comes_before_the_records_are_read_for_it"
COST = IN_CELLS + "test_they_share_what_the_moments_have"
ALONE = IN_CELLS + "test_a_record_s_place_and_coefficients_do_not_hang_on_the_others"

CELL_MUTANTS = (
    Mutant(
        name="fewer rounds of cells are accounted than are made",
        file=CELLS,
        correct="Charge(noise_multiplier=self.means_noise, count=self.rounds),",
        wrong="Charge(noise_multiplier=self.means_noise, count=1),",
        tests=(ORDER,),
    ),
    Mutant(
        name="the cells' squares are left out of the calibration",
        file=CELLS,
        correct="            Charge(noise_multiplier=self.squares_noise, count=1),\n",
        wrong="",
        tests=(COST,),
    ),
    Mutant(
        name="cells cost nothing",
        file=MOMENTS,
        correct="            *(self.cells.charges() if self.cells else ()),\n",
        wrong="",
        tests=(COST,),
    ),
    Mutant(
        name="records are sorted into cells before they are paid for",
        file=CELLS,
        correct="        borders = centres\n",
        wrong="        borders = centres\n        _sorted(read(), borders, used)\n",
        tests=(ORDER,),
    ),
    Mutant(
        name="the rounds of the cells are charged as if they were louder",
        file=CELLS,
        correct="        release.charges()[0],\n",
        wrong="        replace(release.charges()[0], noise_multiplier="
        "release.squares_noise),\n",
        tests=(ORDER,),
    ),
    Mutant(
        name="a record is counted in two cells",
        file=CELLS,
        correct="    return replace(records, labels=cells, "
        "classes=records.classes * number)\n",
        wrong="    twice = torch.cat([cells, cells // number * number])\n"
        "    return replace(records, labels=twice,\n"
        "        coefficients=torch.cat([records.coefficients] * 2),\n"
        "        weights=torch.cat([records.weights] * 2),\n"
        "        classes=records.classes * number)\n",
        tests=(IN_CELLS + "test_a_patient_moves_all_cells_together_by_at_most_one",),
    ),
    Mutant(
        name="the nearest cell is told from a rounded product",
        file=CELLS,
        correct="        alike = exact_product(records.coefficients[own], "
        "centres[label].T, GRID, GRID)\n",
        wrong="        alike = records.coefficients[own] @ centres[label].T\n",
        tests=(IN_CELLS + "test_a_tie_is_a_tie_in_whatever_order_it_is_added_up",),
    ),
    Mutant(
        name="cells are told from rounded products",
        file=EXACT,
        correct="    return product.mul_(left.step * right.step)\n",
        wrong="    return (rows.float() @ columns.float()).double()\n",
        tests=("privacy/test_exact.py",),
    ),
    Mutant(
        name="sums too large to be exact are let through",
        file=EXACT,
        correct="if largest > EXACT:",
        wrong="if largest > 2 * EXACT * EXACT:",
        tests=("privacy/test_exact.py",),
    ),
    Mutant(
        name="coefficients hang on who else is there",
        file=MOMENTS,
        correct="product = exact_product(planes, basis, PIXELS, DIRECTIONS)",
        wrong="product = planes.float() @ basis * (1 + 1e-6 * len(planes))",
        tests=(ALONE,),
    ),
    Mutant(
        name="directions hang on who else is there",
        file=MOMENTS,
        correct="along = exact_product(centred, axes[label], COEFFICIENTS, DIRECTIONS)",
        wrong="along = centred @ axes[label] * (1 + 1e-6 * len(centred))",
        tests=(ALONE,),
    ),
)
