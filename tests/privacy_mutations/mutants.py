"""The faults: those that other libraries had, and those of a bad day."""

from __future__ import annotations

from tests.privacy_mutations.accounting_mutants import (
    ACCOUNTING_MUTANTS,
    COMPARISON_MUTANTS,
    LOSS_MUTANTS,
)
from tests.privacy_mutations.cell_mutants import CELL_MUTANTS
from tests.privacy_mutations.checkpoint_mutants import CHECKPOINT_MUTANTS
from tests.privacy_mutations.data_mutants import DATA_MUTANTS
from tests.privacy_mutations.feature_mutants import FEATURE_MUTANTS
from tests.privacy_mutations.gradient_mutants import GRADIENT_MUTANTS
from tests.privacy_mutations.harness import Mutant
from tests.privacy_mutations.ledger_mutants import LEDGER_MUTANTS, SPENDING_MUTANTS
from tests.privacy_mutations.plan_mutants import (
    DEALING_MUTANTS,
    PLAN_MUTANTS,
    PURSE_MUTANTS,
)
from tests.privacy_mutations.teacher_mutants import TEACHER_MUTANTS

NOISE = "privacy/noise.py"
SAMPLING = "privacy/sampling.py"
MECHANISM = "privacy/mechanism.py"
MOMENTS = "privacy/moments.py"
CENTRAL = "privacy/central.py"
ACCOUNTING = "privacy/accounting.py"
LEDGER = "privacy/ledger.py"
PLAN = "training/plan.py"
UNITS = "training/units.py"

_NOISE = (
    Mutant(
        name="no noise",
        file=NOISE,
        correct="noise *= standard_deviation / DRAWS**0.5",
        wrong="total *= 0",
        tests=("privacy/test_noise.py",),
    ),
    Mutant(
        name="noise one per cent too small",
        file=NOISE,
        correct="noise *= standard_deviation / DRAWS**0.5",
        wrong="noise *= 0.99 * standard_deviation / DRAWS**0.5",
        tests=("privacy/test_noise.py",),
    ),
    Mutant(
        name="variance given for standard deviation",
        file=NOISE,
        correct="noise *= standard_deviation / DRAWS**0.5",
        wrong="noise *= standard_deviation**2 / DRAWS**0.5",
        tests=("privacy/test_noise.py",),
    ),
    Mutant(
        name="thirty-one bits of key",
        file=NOISE,
        correct="secrets.randbits(128)",
        wrong="secrets.randbits(31)",
        tests=("privacy/test_noise.py",),
    ),
    Mutant(
        name="key from the experiment's seed",
        file=NOISE,
        correct="key=secrets.randbits(128)",
        wrong="key=int(np.random.get_state()[1][0])",
        tests=("privacy/test_noise.py",),
    ),
    Mutant(
        name="the same key at every step",
        file=NOISE,
        correct="key=secrets.randbits(128)",
        wrong="key=42",
        tests=("privacy/test_noise.py",),
    ),
    Mutant(
        name="one draw taken four times",
        file=NOISE,
        correct="    for _ in range(DRAWS):\n"
        "        noise += generator.standard_normal(size)\n",
        wrong="    noise += DRAWS**0.5 * generator.standard_normal(size)\n",
        tests=("privacy/test_noise.py",),
    ),
    Mutant(
        name="every portion of the noise is alike",
        file=MECHANISM,
        correct="noise = gaussian(len(part), standard_deviation)",
        wrong="noise = noise[: len(part)] if first else "
        "gaussian(len(part), standard_deviation)",
        tests=("privacy/test_mechanism.py::test_every_portion_has_noise_of_its_own",),
    ),
    Mutant(
        name="noise in half precision",
        file=NOISE,
        correct="return torch.from_numpy(noise)",
        wrong="return torch.from_numpy(noise).bfloat16().double()",
        tests=("privacy/test_noise.py",),
    ),
    Mutant(
        name="uniform noise of the right variance",
        file=NOISE,
        correct="generator.standard_normal(size)",
        wrong="(generator.random(size) - 0.5) * 12**0.5",
        tests=("privacy/test_noise.py",),
    ),
    Mutant(
        name="noise in single precision",
        file=NOISE,
        correct="return torch.from_numpy(noise)",
        wrong="return torch.from_numpy(noise).float()",
        tests=(
            "privacy/test_mechanism.py::test_the_last_digits_do_not_tell_neighbours",
        ),
    ),
)

_SAMPLING = (
    Mutant(
        name="a batch of fixed size",
        file=SAMPLING,
        correct="min(int(generator.binomial(present, probability)), cap)",
        wrong="min(round(present * probability), cap)",
        tests=("privacy/test_sampling.py",),
    ),
    Mutant(
        name="the rate rounded to one over a whole number",
        file=SAMPLING,
        correct="generator.binomial(present, probability)",
        wrong="generator.binomial(present, 1 / int(1 / probability))",
        tests=("privacy/test_sampling.py",),
    ),
    Mutant(
        name="empty batches are dropped",
        file=SAMPLING,
        correct="count = min(int(",
        wrong="count = max(1, int(",
        tests=("privacy/test_sampling.py",),
    ),
    Mutant(
        name="no cap on the sample",
        file=SAMPLING,
        correct="min(int(generator.binomial(present, probability)), cap)",
        wrong="int(generator.binomial(present, probability))",
        tests=("privacy/test_sampling.py",),
    ),
    Mutant(
        name="a unit can be drawn twice",
        file=SAMPLING,
        correct="replace=False",
        wrong="replace=True",
        tests=("privacy/test_sampling.py",),
    ),
    Mutant(
        name="neighbours are drawn together",
        file=SAMPLING,
        correct="return generator.choice(present, count, replace=False)",
        wrong="first = generator.integers(present)\n"
        "    return (first + np.arange(count)) % present",
        tests=("privacy/test_sampling.py",),
    ),
    Mutant(
        name="the same sample at every step",
        file=SAMPLING,
        correct="generator = fresh_generator()",
        wrong="generator = np.random.default_rng(0)",
        tests=("privacy/test_sampling.py",),
    ),
)

_MECHANISM = (
    Mutant(
        name="charged after the look",
        file=MECHANISM,
        correct="    commit(mechanism.charge(1))\n",
        wrong="",
        tests=("privacy/test_mechanism.py",),
    ),
    Mutant(
        name="half the noise multiplier",
        file=MECHANISM,
        correct="mechanism.noise_multiplier * mechanism.clip_norm",
        wrong="0.5 * mechanism.noise_multiplier * mechanism.clip_norm",
        tests=("privacy/test_mechanism.py",),
    ),
    Mutant(
        name="clip norm forgotten in the noise",
        file=MECHANISM,
        correct="mechanism.noise_multiplier * mechanism.clip_norm",
        wrong="mechanism.noise_multiplier",
        tests=("privacy/test_mechanism.py",),
    ),
    Mutant(
        name="divided by the size of the sample drawn",
        file=MECHANISM,
        correct="return noisy / mechanism.divisor",
        wrong="return noisy / max(1, len(units))",
        tests=("privacy/test_mechanism.py",),
    ),
    Mutant(
        name="sensitivity forgotten in the sum's noise",
        file=MECHANISM,
        correct="noise_multiplier * sensitivity",
        wrong="noise_multiplier",
        tests=("privacy/test_mechanism.py", "training/test_moments.py"),
    ),
    Mutant(
        name="an empty batch adds no noise",
        file=MECHANISM,
        correct="    noisy = _with_noise(total, ",
        wrong="    if not len(units):\n        return total\n"
        "    noisy = _with_noise(total, ",
        tests=("privacy/test_mechanism.py",),
    ),
    Mutant(
        name="noise only where the sum is not zero",
        file=MECHANISM,
        correct="= part + noise",
        wrong="= torch.where(part == 0, part, part + noise)",
        tests=("privacy/test_mechanism.py",),
    ),
    Mutant(
        name="noise added twice",
        file=MECHANISM,
        correct="= part + noise",
        wrong="= part + noise + gaussian(len(part), standard_deviation)",
        tests=("privacy/test_mechanism.py",),
    ),
    Mutant(
        name="the sum is rounded before its noise",
        file=MECHANISM,
        correct="flat[first : first + PORTION].double()",
        wrong="flat[first : first + PORTION].float()",
        tests=("privacy/test_mechanism.py::test_the_noise_comes_before_the_rounding",),
    ),
    Mutant(
        name="the sum of means is handed on in single precision",
        file=MOMENTS,
        correct="    return total\n",
        wrong="    return total.float()\n",
        tests=("privacy/test_moments.py",),
    ),
    Mutant(
        name="rows are shortened by a norm in single precision",
        file=MOMENTS,
        correct="vector_norm(vectors, dim=1, keepdim=True)",
        wrong="vector_norm(vectors.float(), dim=1, keepdim=True)",
        tests=("privacy/test_moments.py",),
    ),
    Mutant(
        name="the central images' sum is handed on in single precision",
        file=CENTRAL,
        correct="return total.index_add_(0, data.labels, rows).flatten()",
        wrong="return total.index_add_(0, data.labels, rows).float().flatten()",
        tests=("privacy/test_central.py",),
    ),
    Mutant(
        name="the sum of squares is handed on in single precision",
        file=MOMENTS,
        correct="return squares[:, upper[0], upper[1]] * stretch",
        wrong="return (squares[:, upper[0], upper[1]] * stretch).float()",
        tests=("privacy/test_moments.py",),
    ),
    Mutant(
        name="more units than were declared",
        file=MECHANISM,
        correct="min(present, mechanism.population)",
        wrong="present",
        tests=("privacy/test_mechanism.py",),
    ),
    Mutant(
        name="the batch counts as drawn from those present",
        file=MECHANISM,
        correct="        mechanism.sampling_probability,\n        mechanism.batch_cap,",
        wrong="        mechanism.divisor / max(present, 1),\n"
        "        mechanism.batch_cap,",
        tests=("privacy/test_mechanism.py",),
    ),
    Mutant(
        name="the sum is not charged",
        file=MECHANISM,
        correct="    commit(Charge(noise_multiplier=noise_multiplier, count=1))\n",
        wrong="",
        tests=("privacy/test_mechanism.py",),
    ),
)

_MOMENTS = (
    Mutant(
        name="rows of the moments are not clipped",
        file=MOMENTS,
        correct="scale = 1 / torch.clamp(norms, min=clip_norm)",
        wrong="scale = 1 / clip_norm",
        tests=("privacy/test_moments.py",),
    ),
    Mutant(
        name="the count is left out of the sensitivity",
        file=MOMENTS,
        correct="torch.ones(len(short), 1)], dim=1) / 2**0.5",
        wrong="torch.ones(len(short), 1)], dim=1)",
        tests=("privacy/test_moments.py",),
    ),
    Mutant(
        name="a patient weighs as much as their images",
        file=MOMENTS,
        correct="rows * data.weights[part][:, None])",
        wrong="rows * data.weights[part][:, None].ceil())",
        tests=("privacy/test_moments.py",),
    ),
    Mutant(
        name="weights forgotten in the squares",
        file=MOMENTS,
        correct="        rows *= data.weights[part].sqrt()[:, None]\n",
        wrong="",
        tests=("privacy/test_moments.py",),
    ),
    Mutant(
        name="a row of NaN spoils the moments",
        file=MOMENTS,
        correct="torch.where(finite, vectors * scale, torch.zeros_like(vectors))",
        wrong="vectors * scale",
        tests=("privacy/test_moments.py",),
    ),
    Mutant(
        name="off-diagonals stretched too far",
        file=MOMENTS,
        correct="1.0, 2**0.5)\n    return squares",
        wrong="1.0, 2.0)\n    return squares",
        tests=("privacy/test_moments.py",),
    ),
)

_CENTRAL = (
    Mutant(
        name="central images are not shortened",
        file=CENTRAL,
        correct="short = shortened(data.coefficients, 1.0)",
        wrong="short = data.coefficients.double()",
        tests=("privacy/test_central.py",),
    ),
    Mutant(
        name="a patient weighs as much as their central images",
        file=CENTRAL,
        correct="short * data.weights.double()[:, None]",
        wrong="short",
        tests=("privacy/test_central.py",),
    ),
    Mutant(
        name="central images divided by who was drawn",
        file="training/central.py",
        correct="divisor = batch_size / classes",
        wrong="divisor = float(batch_size)",
        tests=("training/test_central.py",),
    ),
    Mutant(
        name="a draw of central images made again",
        file="training/purse.py",
        correct="return central.mechanism.steps - made",
        wrong="return central.mechanism.steps - 0 * made",
        tests=("training/test_central.py",),
    ),
)

_PLAN_AND_UNITS = (
    Mutant(
        name="all of a patient's images are used",
        file=UNITS,
        correct="if len(rows) > self.limit:",
        wrong="if False:",
        tests=("training/test_units.py",),
    ),
    Mutant(
        name="every image passes for a patient",
        file=UNITS,
        correct="if unit.kind is UnitKind.PATIENT and not dataset.has_groups:",
        wrong="if False:",
        tests=("training/test_units.py",),
    ),
    Mutant(
        name="a patient split into single images",
        file=UNITS,
        correct="if unit.kind is UnitKind.IMAGE:",
        wrong="if True:",
        tests=("training/test_units.py",),
    ),
    Mutant(
        name="held-out images are trained on",
        file=UNITS,
        correct="rows = dataset.subset(Split.TRAIN)",
        wrong="rows = np.arange(len(dataset.labels))",
        tests=("training/test_units.py",),
    ),
)

MUTANTS = (
    *_NOISE, *_SAMPLING, *_MECHANISM, *_MOMENTS, *_CENTRAL, *_PLAN_AND_UNITS,
    *ACCOUNTING_MUTANTS, *LOSS_MUTANTS, *COMPARISON_MUTANTS,
    *LEDGER_MUTANTS, *SPENDING_MUTANTS,
    *PLAN_MUTANTS, *PURSE_MUTANTS, *DEALING_MUTANTS, *GRADIENT_MUTANTS,
    *CHECKPOINT_MUTANTS,
    *TEACHER_MUTANTS,
    *CELL_MUTANTS, *FEATURE_MUTANTS, *DATA_MUTANTS,
)  # fmt: skip
