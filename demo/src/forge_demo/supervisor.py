"""Starts the demo's processes, notices when one ends, stops them all and nothing else."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from forge_platform.errors import PermanentError

# In the environment of every child and of all that it starts, such as runs; nobody else has it.
MARKER = "FORGE_DEMO_FOLDER"
PATIENCE_SECONDS = 6.0
_TAIL_LINES = 25
_ENDED = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


class ChildEnded(PermanentError):
    """A process that the demo needs ended by itself."""


@dataclass
class Supervisor:
    """Runs child processes, each in a session of its own: a terminal's Ctrl-C is not for them.

    Attributes:
        folder: the demo's folder.
        logs: folder for what the children print.
        environment: variables of every child.
    """

    folder: Path
    logs: Path
    environment: Mapping[str, str]
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Starts a child; what it prints goes to ``<logs>/<name>.log``."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with self._log(name).open("wb") as log:
            self._children[name] = subprocess.Popen(  # noqa: S603
                command,
                cwd=self.folder,
                env={**self.environment, MARKER: str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Looks whether all children live.

        Raises:
            ChildEnded: one does not; the text shows the end of its log.
        """
        for name, child in self._children.items():
            if child.poll() is not None:
                raise ChildEnded(
                    f"The process {name} ended by itself ({_ending(child.returncode)}). "
                    f"The end of {self._log(name)}:\n{_tail(self._log(name))}"
                )

    def stop(self) -> None:
        """Stops all children and whatever they started."""
        stop_processes(self.folder)
        for child in self._children.values():
            # Just started, it has no environment yet by which it could have been found.
            child.kill()
            child.wait()
        self._children.clear()

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def stop_processes(folder: Path) -> int:
    """Asks the processes of the demo in a folder to end, and ends those that do not in time.

    Whoever started them need not live any more, so this also cleans up after a demo that was
    killed.

    Returns:
        How many there were.
    """
    found: set[psutil.Process] = set()
    for number, patience in ((signal.SIGTERM, PATIENCE_SECONDS), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + patience
        asked: set[psutil.Process] = set()
        while (left := _left(folder, found)) and time.monotonic() < deadline:
            for process in left - asked:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            asked |= left
            found |= left
            time.sleep(0.05)
    return len(found)


def _left(folder: Path, found: set[psutil.Process]) -> set[psutil.Process]:
    # A process that is ending loses its environment a moment before it is gone.
    return {
        process for process in {*found, *psutil.process_iter()} if _is_left(process, folder, found)
    }


def _is_left(process: psutil.Process, folder: Path, found: set[psutil.Process]) -> bool:
    try:
        ours = process in found or process.environ().get(MARKER) == str(folder)
        return ours and process.is_running() and process.status() not in _ENDED
    except (psutil.Error, OSError):  # ended meanwhile, or another user's
        return False


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
