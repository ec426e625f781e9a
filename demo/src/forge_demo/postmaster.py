"""The embedded PostgreSQL's own process, as its data directory tells."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import psutil

_WAIT_SECONDS = 10


def postmaster(data_dir: Path) -> psutil.Process | None:
    """The server that runs on the data directory, if one does."""
    with suppress(OSError, ValueError, IndexError, psutil.Error):
        process = psutil.Process(int((data_dir / "postmaster.pid").read_text().splitlines()[0]))
        if str(data_dir) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def stop_postmaster(data_dir: Path) -> None:
    """Stops a server that outlived the demo that started it."""
    process = postmaster(data_dir)
    if process is None:
        return
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT)  # fast shutdown: clients are sent away
        psutil.wait_procs([process], timeout=_WAIT_SECONDS)
