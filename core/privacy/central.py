"""Central images: the sum behind a noisy mean image of every class.

After DP-FETA (arXiv 2504.01395): a Poisson draw of units, their images reduced and
added up class by class, noise. The published code divides by the number of images that
a class really has in the draw, and is not private then; here the sum is bounded, the
noise is added in `mechanism.private_step`, and what it is divided by is public.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.privacy.moments import Contributions, shortened


def sum_of_images(data: Contributions) -> Tensor:
    """Σ weight·v per class, each v shortened to norm 1.

    Guarantee: one unit, added or removed, moves it by at most 1 in L2 norm: its images'
    vectors have norm ≤ 1 each, and their weights add up to 1 or less, so the sum over
    its classes has norm ≤ Σ weight·‖v‖ ≤ 1. A vector that is not finite counts as
    zero. How many images a class has enters nowhere.

    Args:
        data: Of the units drawn; none at all gives zeros.

    Returns:
        float64 [classes · d].
    """
    # PRIVACY: the sensitivity of the sum; in double precision, where 1 is 1.
    short = shortened(data.coefficients, 1.0)
    # PRIVACY: all images of one unit together weigh no more than one image.
    rows = short * data.weights.double()[:, None]
    total = torch.zeros(data.classes, rows.shape[1], dtype=torch.float64)
    return total.index_add_(0, data.labels, rows).flatten()
