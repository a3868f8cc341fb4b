"""`sfumato-app [PROJECT_FOLDER]`: opens the wizard."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Open the window, and return when it is closed."""
    parser = argparse.ArgumentParser(
        prog="sfumato-app", description="Open the Sfumato wizard."
    )
    parser.add_argument(
        "project",
        nargs="?",
        type=Path,
        metavar="PROJECT_FOLDER",
        help="go on with the project in this folder, or start one there",
    )
    options = parser.parse_args(arguments)

    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication

    from app import crash, theme
    from app.engine import PipelineEngine
    from app.window import Window

    application = QApplication(sys.argv[:1])
    application.setOrganizationName("Sfumato")
    application.setApplicationName("Sfumato")
    theme.install(application)
    folder = options.project.expanduser().absolute() if options.project else None
    window = Window(PipelineEngine(), folder)
    crash.install(window.show_crash)
    window.show()
    # Ctrl+C and a kill close the window the safe way. Python only hears of a signal
    # when its own code runs, hence the timer.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: window.close())
    listener = QTimer()
    listener.timeout.connect(lambda: None)
    listener.start(500)
    return application.exec()


if __name__ == "__main__":
    raise SystemExit(main())
