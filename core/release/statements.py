"""What the audit document says of every run alike: nothing of a run can change it.

A sentence that a run could word would be a place for anything; these are compared by
`verify` with what stands here.
"""

from __future__ import annotations

from typing import Any

DP_VARIANT = (
    "(ε, δ)-differential privacy, by the privacy loss distribution (PLD) of the "
    "composed Gaussian mechanisms"
)
NEAR_DUPLICATES = (
    "Near-duplicates are not joined: each counts as a unit of its own unless the "
    "grouping column joins them."
)
LABELS = (
    "class list confirmed by the custodian, who may have seen which classes have images"
)
TRUSTED = (
    "the operator",
    "the operating system of the custodian's machine",
    "its hardware",
)
OPERATOR_VIEWS = (
    "counts and problems of the private images, and images that look alike",
    "accuracies measured on private images after training",
)
NETWORK = (
    "Built to run without a network: no feature sends or fetches anything. Connections "
    "were not monitored."
)
FITNESS = (
    "before the first step, on random numbers: no layer mixes the images of a batch, "
    "and the loss of a unit depends on no other and is the same alone as beside others"
)
CROSS_CHECKS = {
    "accountant": "dp-accounting PLD, as its authors compose it",
    "result": "evaluated for the same events before anything was charged: both figures "
    "kept the budget, else nothing would have been planned",
}
SETTINGS = (
    "not by this run; the custodian may have seen internal figures (field 32) of "
    "earlier runs, those that field 49 counts and those on other versions of the data: "
    "what such a choice of settings reveals is not covered by the bound"
)
RATIONALE = "Typed in by the custodian as a public upper bound."
NORMALISATION = {
    "pixel_scale": "x / 127.5 − 1",
    "origin": "range of 8-bit pixels, not fitted to any data",
}
FLOATING_POINT = (
    "Gradients may be computed in bfloat16; clip norms, sums, noise and its addition "
    "are double precision, and only the noisy sum is rounded, to single precision. The "
    "bound is proven for real numbers; attacks on the rounding of double precision are "
    "blunted by summing four draws, not excluded."
)
SIDE_CHANNELS = (
    "the release shows neither times nor counts of the private data: file times are "
    "set to 1980-01-01, names are counters, the number of images per class was chosen "
    "by the custodian; the time that training took is not reported"
)
METADATA = (
    "every image was encoded anew from its pixels; its file holds the PNG chunks IHDR, "
    "IDAT and IEND only"
)
ANNEX = (
    "Figures computed on private records (similarity, membership tests, accuracy on "
    "private images) stay in the custodian's annex: they are not differentially "
    "private, and publishing them voids the claim."
)
CLAIMS_NOT_MADE = (
    "no conclusion under data protection law: that is left to the data protection "
    "officer",
    "no statement that the images cannot be linked to anyone by other means",
    "no statement on medical correctness or fitness for diagnosis",
)
LIMITATIONS = (
    "The bound holds for the program as described; an error in the program, in its "
    "libraries or in the hardware could break it.",
    "The bound rests on the declared unit and on the declared number of records; where "
    "these are wrong, it is wrong.",
    "Floating-point numbers only approximate the mathematics of the proof (field 61).",
    "Whatever the checkpoint was trained on before is not protected (field 57).",
    "What was deleted on the custodian's machine may survive in swap, hibernation "
    "files, snapshots and backups.",
    "The hashes prove integrity, not who made the release.",
)
VOID_IF = (
    "the same records are used in a run outside the shared ledger",
    "figures of the custodian's annex are published",
    "random keys of the run are disclosed",
    "checkpoints or other files beside those listed in field 11 are shared",
)


def unprotected(unit: str, declared_count: int) -> list[str]:
    """What the release tells beside the noisy outputs, with no noise; field 29.

    Args:
        unit: "image" or "patient".
        declared_count: N.
    """
    return [
        f"number of {unit}s, N = {declared_count:,}: declared by the custodian",
        "label set: " + LABELS,
        "image size and colour: chosen in the project",
        "images per class of the release, and that it is released: chosen by the "
        "custodian, who may have seen internal figures (field 32), not the private "
        "class frequencies",
        "settings of the run: the recipe and the project",
        f"that there was a run: it tells that there were at least two {unit}s to train "
        "on and at most N, and that no record and no name of a class was of a kind "
        "that is refused",
        "the number and the ε of the runs on these data (field 49): they tell whether "
        "the data were exactly those of earlier runs",
    ]


def of_steps() -> dict[str, Any]:
    """What is said of the steps of any network."""
    return {
        "algorithm": "differentially private gradient descent (Abadi et al. 2016, "
        "arXiv 1607.00133) with views averaged inside the clip (Ghalebikesabi et al. "
        "2023, arXiv 2302.13861) and truncated Poisson batches (arXiv 2508.15089)",
        "clip_scope": "flat: the mean gradient of a unit over all trainable weights",
        "nan_policy": "a gradient that is not finite counts as zero",
        "loss_averaging_inside_clip": True,
        "forbidden_layers_check": FITNESS,
    }


def without_steps() -> dict[str, Any]:
    """What is said of a release that is drawn from noisy sums."""
    return {
        "algorithm": "the Gaussian mechanism on sums over all records, each record's "
        "part shortened to norm 1 (Dwork & Roth 2014, theorem A.1); the images are "
        "drawn from what it gave",
        "clip_scope": "each record's part of each of the sums that the events list",
        "nan_policy": "a record that is not finite counts as zero",
    } | dict.fromkeys(
        ("clip_norm", "noise_multiplier", "noise_std_abs", "normaliser",
         "augmentation_multiplicity", "loss_averaging_inside_clip",
         "forbidden_layers_check"), NO_STEPS,
    )  # fmt: skip


NO_STEPS = "not applicable: no network is trained, so there are no steps"
