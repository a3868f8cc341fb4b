"""Faults of the private teacher: of its sum, its releases and what it is charged."""

from __future__ import annotations

from tests.privacy_mutations.harness import Mutant

SUM = "privacy/teacher.py"
TEACHER = "training/teacher.py"
BINDING = "training/binding.py"
PURSE = "training/purse.py"
WARMUP = "training/warmup.py"

OF_SUM = ("privacy/test_teacher.py",)
IN_RUN = "training/test_teacher.py::"

TEACHER_MUTANTS = (
    Mutant(
        name="the teacher's gradients are not clipped",
        file=SUM,
        correct="scales = 1 / lengths.clamp(min=1.0)",
        wrong="scales = torch.ones_like(lengths)",
        tests=OF_SUM,
    ),
    Mutant(
        name="the teacher's images are clipped one by one",
        file=SUM,
        correct="        total += (errors * scales[data.units[part], None]).T @ rows\n",
        wrong="        own = data.weights[part].double()\n"
        "        bounds = errors.norm(dim=1) * rows.norm(dim=1) / own\n"
        "        total += (errors / bounds.clamp(min=1.0)[:, None]).T @ rows\n",
        tests=OF_SUM,
    ),
    Mutant(
        name="every image of a patient teaches as much as a patient",
        file=SUM,
        correct="errors *= data.weights[part].double()[:, None]",
        wrong="errors *= 1.0",
        tests=OF_SUM,
    ),
    Mutant(
        name="the teacher's sum is handed on in single precision",
        file=SUM,
        correct="rows\n    return total\n",
        wrong="rows\n    return total.float()\n",
        tests=OF_SUM,
    ),
    Mutant(
        name="each image is a unit to the teacher",
        file=TEACHER,
        correct="owners.append(torch.full((len(own),), unit))",
        wrong="owners.append(torch.arange(len(own)) + 100 * unit)",
        tests=(IN_RUN + "test_a_patients_images_share_a_weight_and_a_number",),
    ),
    Mutant(
        name="features that are not finite spoil the teacher's sum",
        file=SUM,
        correct="finite = torch.isfinite(bounds)",
        wrong="finite = torch.ones_like(bounds, dtype=torch.bool)",
        tests=OF_SUM,
    ),
    Mutant(
        name="the teacher's sum is divided by who is there",
        file=SUM,
        correct="return noisy / declared_count",
        wrong="return noisy / max(1, len(read().units))",
        tests=(
            OF_SUM[0] + "::test_it_is_divided_by_the_declared_count_however_many"
            "_are_there",
        ),
    ),
    Mutant(
        name="the teacher's divisor is not the declared count",
        file=BINDING,
        correct="            declared_count=declared_count,\n        )\n\n"
        "    def at(noise: float) -> tuple[Charge, ...]:\n"
        "        return (of(noise).charge(recipe.teacher_steps),)",
        wrong="            declared_count=recipe.batch_size,\n        )\n\n"
        "    def at(noise: float) -> tuple[Charge, ...]:\n"
        "        return (of(noise).charge(recipe.teacher_steps),)",
        tests=(IN_RUN + "test_everything_together_keeps_the_budget",),
    ),
    Mutant(
        name="the teacher learns the labels without noise",
        file=SUM,
        correct="    noisy = private_sum(\n"
        "        lambda: sum_of_gradients(read(), model),\n"
        "        sensitivity=1.0,\n"
        "        noise_multiplier=noise_multiplier,\n"
        "        commit=commit,\n"
        "    )\n",
        wrong="    from core.privacy.accounting import Charge\n\n"
        "    commit(Charge(noise_multiplier=noise_multiplier, count=1))\n"
        "    noisy = sum_of_gradients(read(), model)\n",
        tests=OF_SUM,
    ),
    Mutant(
        name="the teacher's sensitivity is understated",
        file=SUM,
        correct="sensitivity=1.0",
        wrong="sensitivity=0.5",
        tests=OF_SUM,
    ),
    Mutant(
        name="the teacher looks before it pays",
        file=SUM,
        correct="    noisy = private_sum(\n        lambda: sum_of_gradients(read()",
        wrong="    data = read()\n"
        "    noisy = private_sum(\n        lambda: sum_of_gradients(data",
        tests=OF_SUM,
    ),
    Mutant(
        name="all of the teacher's releases are one charge",
        file=TEACHER,
        correct="return Charge(noise_multiplier=self.noise_multiplier, count=steps)",
        wrong="return Charge(noise_multiplier=self.noise_multiplier, count=1)",
        tests=(IN_RUN + "test_everything_together_keeps_the_budget",),
    ),
    Mutant(
        name="only the first of the teacher's releases is charged",
        file=WARMUP,
        correct="step=done, commit=purse.commit)",
        wrong="step=done, commit=[purse.commit, lambda _: None][done > 0])\n"
        "        if done > 0:\n            return",
        tests=(IN_RUN + "test_a_run_teaches_and_charges_each_release_once",),
    ),
    Mutant(
        name="the teacher is left out of the calibration",
        file=BINDING,
        correct="return charges_of(louder, moments, central, teacher)",
        wrong="return charges_of(louder, moments, central, None)",
        tests=(IN_RUN + "test_everything_together_keeps_the_budget",),
    ),
    Mutant(
        name="a release of the teacher is made again after a crash",
        file=PURSE,
        correct="return teacher.steps - counted(",
        wrong="return teacher.steps - 0 * counted(",
        tests=(IN_RUN + "test_a_crash_loses_a_release_and_no_more",),
    ),
    Mutant(
        name="the teacher begins anew after a crash",
        file=WARMUP,
        correct="    if not path.is_file():\n        teacher = new",
        wrong="    if True:\n        teacher = new",
        tests=(IN_RUN + "test_a_crash_loses_a_release_and_no_more",),
    ),
    Mutant(
        name="the teacher looks at many units together",
        file="training/teacher.py",
        correct="features += pool.map(seen, drawn)",
        wrong="features.append(seen((torch.cat([p for p, _ in drawn]),)))",
        tests=(
            "training/test_teacher.py::"
            "test_a_unit_s_lesson_does_not_hang_on_the_others",
        ),
    ),
    Mutant(
        name="the teacher's releases pass for the moments",
        file=PURSE,
        correct="return counted(self.charged(), *moments.charges()) if",
        wrong="return sum(c.count for c in self.charged() if not c.batch_cap) if",
        tests=(IN_RUN + "test_the_purse_tells_its_releases_from_the_moments",),
    ),
)
