"""Two processes that torchrun might have started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def in_two_processes(script: str, *arguments: str | Path) -> None:
    """Run a script as both ranks of one command; fails where one of them does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = os.environ | {
        "PYTHONPATH": str(ROOT), "TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env=common | {"RANK": rank, "LOCAL_RANK": rank},
            cwd=ROOT,
        )
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=400) for process in started] == [0, 0]
