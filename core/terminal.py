"""Progress bars on a terminal, and Ctrl-C as a request to stop at a safe point."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tqdm import tqdm

from core.events import Progress, Watcher

ECHO = 1.0
"""Seconds within which a second request to stop is the first one again."""


class Bars:
    """One bar for each activity, with the time left."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._activity = ""

    def report(self, progress: Progress) -> None:
        """Move the bar of this activity; start a new one for a new activity."""
        if self._bar is None or progress.activity != self._activity:
            self.close()
            self._activity = progress.activity
            self._bar = tqdm(
                desc=progress.activity,
                total=progress.total,
                initial=progress.done,
                file=sys.stderr,
                unit="",
                dynamic_ncols=True,
                # In a log file a line now and then is enough.
                mininterval=0.2 if sys.stderr.isatty() else 15,
                bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
                "[{elapsed} gone, {remaining} left{postfix}]",
            )
        if progress.figures:
            figures = {name: f"{value:.3f}" for name, value in progress.figures.items()}
            self._bar.set_postfix(figures, refresh=False)
        self._bar.update(progress.done - self._bar.n)
        if progress.done >= progress.total:
            # What is printed next must not share its line.
            self.close()

    def close(self) -> None:
        """Leave the last bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def watching() -> Iterator[Watcher]:
    """A watcher that draws bars and stops at the first Ctrl-C.

    A second Ctrl-C ends the program at once; what was charged stays charged.
    """
    bars = Bars()
    asked: list[float] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())
        # torchrun passes on what the terminal has sent to every process already.
        if asked[-1] - asked[0] > ECHO:
            raise KeyboardInterrupt
        if len(asked) == 1:
            print("\nStopping at the next safe point ...", file=sys.stderr)

    before = {
        name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield Watcher(report=bars.report, stop_requested=lambda: bool(asked))
    finally:
        bars.close()
        for name, handler in before.items():
            signal.signal(name, handler)
