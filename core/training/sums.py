"""The noisy sums of the moments, each kept as soon as it is made.

A sum is paid for once and cannot be had again; what is computed from it can. So a run
that is stopped between two sums goes on from those that it has.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from core.files import write_atomically
from core.privacy.accounting import Charge
from core.privacy.mechanism import Commit, private_sum


class NoisySums:
    """Sums over all records, asked for in the order in which they are charged.

    Guarantee: each is one use of the Gaussian mechanism and is made at most once. One
    that was kept is given again without a look at the records; any other is charged
    before it reads one.
    """

    def __init__(self, commit: Commit, path: Path | None = None) -> None:
        """Go on from the sums in `path`; without one, they are kept by nobody."""
        self._commit, self._path = commit, path
        kept = load_file(path) if path and path.is_file() else {}
        self._kept = [kept[str(number)] for number in range(len(kept))]
        self._given, self._paid = 0, len(kept)

    @property
    def kept(self) -> int:
        """How many there are."""
        return len(self._kept)

    def next(self, bounded_sum: Callable[[], Tensor], charge: Charge) -> Tensor:
        """The next sum: float32, of the shape of `bounded_sum`.

        Args:
            bounded_sum: Reads the records; one unit moves it by at most 1.
            charge: Pays for this sum, and for those after it that its count has.
        """
        number = self._given
        self._given += 1
        if number < self.kept:
            return self._kept[number]

        def pay(_: Charge) -> None:
            if number >= self._paid:
                # PRIVACY: all sums of a charge are charged ahead of the first, so that
                # each event of the audit is charged whole or not at all.
                self._commit(charge)
                self._paid = number + charge.count

        noisy = private_sum(
            bounded_sum,
            sensitivity=1.0,
            noise_multiplier=charge.noise_multiplier,
            commit=pay,
        )
        self._kept.append(noisy)
        self._keep()
        return noisy

    def _keep(self) -> None:
        if self._path:
            tensors = {str(n): kept.contiguous() for n, kept in enumerate(self._kept)}
            write_atomically(self._path, lambda file: save_file(tensors, file))
