"""The noisy sums of the moments, each kept as soon as it is made.

A sum is paid for once and cannot be had again; what is computed from it can. So a run
that is stopped between two charges goes on from the sums that it has.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.files import require_space, write_atomically
from core.privacy.accounting import Charge
from core.privacy.mechanism import Commit, private_sum
from core.training.kept import DAMAGED

FORMAT = "1"
"""To be raised when something else is summed: what is kept then says nothing."""

ROOM = 2**26
"""Bytes that must be free before a sum is paid for, beside twice what is kept."""


class NoisySums:
    """Sums over all records, asked for in the order in which they are charged.

    Guarantee: each is one use of the Gaussian mechanism and is made at most once. One
    that was kept is given again without a look at the records; any other is charged
    before it reads one.
    """

    def __init__(
        self, commit: Commit, path: Path | None = None, *, run: str = ""
    ) -> None:
        """Go on from the sums of this run in `path`; without one, nobody keeps them."""
        self._commit, self._path = commit, path
        self._stamp = {"run": run, "format": FORMAT}
        self._kept = _read(path, self._stamp) if path else []
        self._given, self._paid = 0, self.kept

    @property
    def kept(self) -> int:
        """How many there are."""
        return len(self._kept)

    def next(self, bounded_sum: Callable[[], Tensor], charge: Charge) -> Tensor:
        """The next sum: float32, of the shape of `bounded_sum`.

        Args:
            bounded_sum: Reads the records; one unit moves it by at most 1.
            charge: Pays for this sum, and for those after it that its count has.

        Raises:
            UserError: when it cannot be charged, or the disk has no room for it; then
                nothing was read.
        """
        number = self._given
        self._given += 1
        if number < self.kept:
            return self._kept[number]

        def pay(_: Charge) -> None:
            if number >= self._paid:
                self._require_room()
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

    def _require_room(self) -> None:
        if self._path:
            held = sum(kept.nbytes for kept in self._kept)
            require_space(self._path.parent, 2 * held + ROOM)

    def _keep(self) -> None:
        if self._path:
            tensors = {str(n): kept.contiguous() for n, kept in enumerate(self._kept)}
            write_atomically(
                self._path, lambda file: save_file(tensors, file, self._stamp)
            )


def _read(path: Path, stamp: dict[str, str]) -> list[Tensor]:
    """What is kept under this stamp; nothing when it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            # PRIVACY: sums of another run were charged to that one.
            if file.metadata() != stamp:
                return []
            # Copied: what safetensors gives is the file itself, mapped to memory, and
            # some systems do not let a mapped file be replaced.
            return [
                file.get_tensor(str(number)).clone()
                for number in range(len(file.keys()))
            ]
    except DAMAGED:
        return []
