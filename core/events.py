"""What a running stage tells its caller, and how the caller asks it to stop.

The engine knows neither terminals nor windows: every stage takes a `Watcher`, reports
`Progress` to it, and asks it between two safe points whether to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from core.errors import Stopped


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One report of a running stage.

    Attributes:
        activity: What is being done, in the custodian's words ("Reading images").
        done: Units of work finished, 0 ≤ done ≤ total.
        total: Units of work altogether, > 0.
        figures: Public figures worth showing beside the bar, such as the ε charged so
            far. Never anything computed on private records (rule 6).
    """

    activity: str
    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


def _ignore(_: Progress) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """The caller's side of a running stage; the default listens to nothing."""

    report: Callable[[Progress], None] = _ignore
    stop_requested: Callable[[], bool] = _never

    def progress(self, activity: str, done: int, total: int, **figures: float) -> None:
        """Report that `done` of `total` units of `activity` are finished."""
        self.report(
            Progress(activity=activity, done=done, total=total, figures=figures)
        )

    def stop_if_requested(self) -> None:
        """Raise `Stopped` when the caller asked to. Call it at safe points only."""
        if self.stop_requested():
            raise Stopped
