"""Faults in how unit gradients are computed, bounded and added up."""

from __future__ import annotations

from tests.privacy_mutations.harness import Mutant

CLIPPING = "privacy/clipping.py"
SUMS = "privacy/gradients/sums.py"
ROWS = "privacy/gradients/rows.py"
TUNER = "privacy/gradients/tuner.py"
LAYERWISE = "privacy/gradients/layerwise.py"
FITNESS = "privacy/gradients/fitness.py"
OF_VIEWS = "training/gradients.py"

CLIPPING_TESTS = ("privacy/test_clipping.py",)
GRADIENT_TESTS = ("privacy/test_gradients.py",)
VIEW_TESTS = ("training/test_gradients.py",)


def _mutants(
    file: str, tests: tuple[str, ...], *faults: tuple[str, str, str]
) -> tuple[Mutant, ...]:
    return tuple(
        Mutant(name=name, file=file, correct=correct, wrong=wrong, tests=tests)
        for name, correct, wrong in faults
    )


GRADIENT_MUTANTS = (
    *_mutants(
        CLIPPING,
        CLIPPING_TESTS,
        ("nothing is clipped", "clip_norm / max(length, clip_norm)", "1.0"),
        (
            "short gradients are lengthened",
            "clip_norm / max(length, clip_norm)",
            "clip_norm / max(length, 1e-12)",
        ),
        ("clipped to twice the norm", "max(length, clip_norm)", "max(length / 2, 1.0)"),
        ("a gradient of NaN is added", "if factor > 0:", "if True:"),
        ("NaN is taken for short", "max(length, clip_norm)", "max(clip_norm, length)"),
        ("the norm in single precision", "rows.to(torch.float64)", "rows.float()"),
        (
            "each piece clipped by its own norm",
            "torch.linalg.vector_norm(norms, dim=0)",
            "norms.amax(dim=0)",
        ),
        (
            "added up in half precision",
            "torch.zeros(size, dtype=torch.float64, device=device)",
            "torch.zeros(size, dtype=torch.bfloat16, device=device)",
        ),
        (
            "added up in single precision",
            "torch.zeros(size, dtype=torch.float64, device=device)",
            "torch.zeros(size, device=device)",
        ),
        ("the last worker's sum is lost", "in others:", "in others[:-1]:"),
        ("a unit may be added twice", "if count != len(part):", "if False:"),
    ),
    *_mutants(
        SUMS,
        GRADIENT_TESTS,
        (
            "the last portion of the units is dropped",
            "range(0, len(part), portion)",
            "range(0, len(part) - portion + 1, portion)",
        ),
        (
            "units are left out when memory runs out",
            "                continue\n",
            "                first += len(portion)\n                continue\n",
        ),
        (
            "the last portion has a shape of its own",
            "self._portion(portion.filled(at_once))",
            "self._portion(portion)",
        ),
        (
            "who fills a portion up counts",
            "gradient[: len(portion)] for",
            "gradient for",
        ),
        (
            "only the last rows of a unit count",
            "torch._foreach_add_(total, gradients)",
            "total = gradients",
        ),
    ),
    *_mutants(
        TUNER,
        GRADIENT_TESTS,
        (
            "units of several sizes go together",
            "joint and not alike",
            "joint and False",
        ),
    ),
    *_mutants(
        ROWS,
        GRADIENT_TESTS,
        (
            "the batch's mean loss instead of each unit's",
            "(losses * rows.weights.flatten()).sum()",
            "losses.mean()",
        ),
        (
            "the sum over a unit's rows instead of their mean",
            "(losses * rows.weights.flatten()).sum()",
            "(losses * (rows.weights.flatten() > 0)).sum()",
        ),
    ),
    *_mutants(
        LAYERWISE,
        GRADIENT_TESTS,
        (
            "a layer used twice counts once",
            "gradient if known is None else known + gradient",
            "gradient",
        ),
        (
            "rows grouped to units in the wrong order",
            "put_in = given.reshape(b, -1, given.shape[-1])",
            "put_in = given.reshape(-1, b, given.shape[-1]).transpose(0, 1)",
        ),
        (
            "every unit has the batch's gradient",
            "in zip(given.chunk(b), came.chunk(b), strict=True)",
            "in [(given, came)] * b",
        ),
        (
            "what a unit's labels have learnt goes to the first unit",
            ".repeat_interleave(given.numel() // b)",
            ".repeat_interleave(given.numel() // b) * 0",
        ),
        (
            "the weights stay untrained afterwards",
            "weight.requires_grad_(True)",
            "weight.requires_grad_(False)",
        ),
    ),
    *_mutants(
        FITNESS,
        GRADIENT_TESTS,
        ("batch normalisation is let in", "isinstance(layer, _COUPLING)", "False"),
        (
            "a faint coupling of the batch is let in",
            "not close or _reaches_others(problem, rows)",
            "not close",
        ),
        ("an idle weight is let in", "if gradient is None:", "if False:"),
    ),
    *_mutants(
        OF_VIEWS,
        VIEW_TESTS,
        (
            "patients of several images go together",
            "alike = workload.images_per_unit == 1",
            "alike = True",
        ),
        (
            "copies that only fill up weigh as much as views",
            "weights=own / counts[:, None]",
            "weights=torch.ones(index.shape) / index.shape[1]",
        ),
        (
            "a patient's images weigh one each",
            "weights=own / counts[:, None]",
            "weights=own / recipe.augmentation_multiplicity",
        ),
        (
            "a unit is given its neighbour's views",
            "index = torch.where(own, first + place, first)",
            "index = torch.where(own, first + place + 1, first) % len(views.clean)",
        ),
    ),
)
