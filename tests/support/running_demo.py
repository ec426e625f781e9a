"""The demo as tests use it: one process of ``forge-demo run``, as a user has it in a terminal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

ROOT = Path(__file__).parents[2]
LOCATIONS = sorted(path.parent.name for path in (ROOT / "code_locations").glob("*/pyproject.toml"))
ASSETS = re.findall(r"^### (\w+)$", (ROOT / "docs" / "assets.md").read_text(), re.MULTILINE)

_FORGE_DEMO = Path(sys.executable).with_name("forge-demo")
_START_SECONDS = 600
_CHANGE_SECONDS = 660
_STOP_SECONDS = 60
_FULL_RUN = {"key": "forge/mode", "value": "full"}

_FIRST_LOOK = """
{
  assetNodes {
    assetKey { path }
    isMaterializable
    groupName
    repository { location { name } }
    partitionStats { numPartitions numMaterialized }
    assetMaterializations(limit: 1) { timestamp }
    assetChecksOrError {
      ... on AssetChecks { checks { name executionForLatestMaterialization { status } } }
    }
  }
  runsOrError {
    ... on Runs {
      results {
        runId
        jobName
        status
        repositoryOrigin { repositoryLocationName }
        assetSelection { path }
        tags { key value }
      }
    }
  }
}
"""
_MATERIALIZATIONS = """
query Materializations($after: Float!) {
  runsOrError(filter: {createdAfter: $after}) {
    ... on Runs {
      results {
        tags { key value }
        assetMaterializations {
          assetKey { path }
          metadataEntries { label ... on IntMetadataEntry { intRepr } }
        }
      }
    }
  }
}
"""


@dataclass
class Command:
    """A ``forge-demo`` command that goes on in the background."""

    process: subprocess.Popen[bytes]
    printed: Path

    @classmethod
    def start(cls, printed: Path, *arguments: str) -> Self:
        """Starts it as a shell does: in a process group of its own, which gets the Ctrl-C."""
        with printed.open("wb") as output:
            process = subprocess.Popen(
                [_FORGE_DEMO, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, printed)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.printed.read_text()

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        """Waits until it has printed a text, and returns that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            if found := re.search(pattern, self.output):
                return found
            assert not ended, f"It ended by itself:\n{self.output}"
            time.sleep(0.5)
        raise TimeoutError(f"It has not printed {pattern!r} in {seconds} s:\n{self.output}")

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(_STOP_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What ``forge-demo change`` did.

    Attributes:
        counts: the numbers in the metadata of each asset, added up over its ``runs``.
        was_alone: whether no schedule came in between and had everything made anew.
    """

    exit_code: int
    output: str
    counts: Mapping[str, Mapping[str, int]]
    was_alone: bool


@dataclass(frozen=True, kw_only=True)
class End:
    """How the demo ended.

    Attributes:
        started: command lines of the processes that belonged to it.
        left: those of them that live, and of whatever else has to do with it.
    """

    exit_code: int
    started: Sequence[str]
    left: Sequence[str]
    bystander_lives: bool


@dataclass
class RunningDemo:
    """A demo that has come to rest."""

    state: Path
    wanted_port: int
    command: Command
    _changing: tuple[float, Command] | None = field(default=None, init=False)

    @cached_property
    def url(self) -> str:
        """Where the UI is."""
        return self.command.wait_for(r"UI: (http://\S+)", _START_SECONDS)[1]

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.command.output

    @cached_property
    def first_look(self) -> Mapping[str, Any]:
        """What the webserver tells after the first runs: ``assetNodes`` and ``runsOrError``."""
        return self.ask(_FIRST_LOOK)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The first runs, oldest first, their tags as a dictionary."""
        return [
            {**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}}
            for run in reversed(self.first_look["runsOrError"]["results"])
        ]

    @property
    def variables(self) -> Mapping[str, str]:
        """The content of the file ``env``."""
        lines = (self.state / "env").read_text().splitlines()
        return dict(line.split("=", maxsplit=1) for line in lines)

    def ask(self, document: str, **variables: object) -> dict[str, Any]:
        """The data that the webserver answers to a GraphQL document."""
        body = {"query": document, "variables": variables}
        answer = httpx.post(f"{self.url}/graphql", json=body, timeout=120).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def try_command(self, name: str) -> subprocess.CompletedProcess[str]:
        """Runs another command on the same state to its end."""
        command = (_FORGE_DEMO, name, "--folder", self.state)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def begin_change(self) -> None:
        """Starts to change the source; nothing more when that is going on already."""
        if self._changing is None:
            began = time.time()
            printed = self.state.with_name("change.txt")
            command = Command.start(printed, "change", "--folder", str(self.state))
            self._changing = began, command

    def finish_change(self) -> Change:
        """Waits until the change has arrived."""
        self.begin_change()
        assert self._changing is not None
        began, command = self._changing
        exit_code = command.process.wait(_CHANGE_SECONDS)
        runs = self.ask(_MATERIALIZATIONS, after=began)["runsOrError"]["results"]
        return Change(
            exit_code=exit_code,
            output=command.output,
            counts=_counts(runs),
            was_alone=not any(_FULL_RUN in run["tags"] for run in runs),
        )

    def interrupt(self) -> End:
        """Presses Ctrl-C while somebody else is at work in the demo's folder."""
        started = self.processes()
        command = [sys.executable, "-c", "input()", str(self.state)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=self.state) as bystander:
            try:
                exit_code = self.command.interrupt()
                bystander_lives = bystander.poll() is None
            finally:
                bystander.kill()
        left = {process: line for process, line in started.items() if _lives(process)}
        return End(
            exit_code=exit_code,
            started=list(started.values()),
            left=list({**left, **self.processes()}.values()),
            bystander_lives=bystander_lives,
        )

    def processes(self) -> Mapping[psutil.Process, str]:
        """All that have to do with its folder and all below them, with their command lines."""
        found = {process for process in psutil.process_iter() if self._is_about_us(process)}
        for process in list(found):
            with suppress(psutil.NoSuchProcess):
                found.update(process.children(recursive=True))
        return {process: _command_line(process) for process in found if _lives(process)}

    def kill(self) -> None:
        """Ends it if it lives, by force if it must be."""
        if self._changing:
            self._changing[1].process.kill()
            self._changing[1].process.wait()
        if self.command.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self.command.interrupt()
        for process in self.processes():
            process.kill()

    def _is_about_us(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):
            texts = [*process.cmdline(), *process.environ().values()]
            return any(str(self.state) in text for text in texts)
        return False


@contextmanager
def running_demo(folder: Path) -> Iterator[RunningDemo]:
    """A demo whose assets are made, with its state in ``<folder>/state``; its port is taken."""
    state = folder / "state"
    with _listener() as taken:
        port = taken.getsockname()[1]
        arguments = ("run", "--folder", str(state), "--port", str(port))
        demo = RunningDemo(state, port, Command.start(folder / "printed.txt", *arguments))
        try:
            demo.command.wait_for("Ctrl-C stops everything", _START_SECONDS)
            assert demo.first_look
            yield demo
        finally:
            demo.kill()


def _counts(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Mapping[str, int]]:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        # A run that makes many partitions tells the same about each of them.
        events = {event["assetKey"]["path"][-1]: event for event in run["assetMaterializations"]}
        for asset, event in events.items():
            numbers = [entry for entry in event["metadataEntries"] if "intRepr" in entry]
            counts[asset].update({entry["label"]: int(entry["intRepr"]) for entry in numbers})
            counts[asset]["runs"] += 1
    return counts


def _listener() -> socket.socket:
    """Listens on a port whose successor is free, below those that the system gives to clients."""
    first = 20_000 + os.getpid() % 10_000
    for port in range(first, first + 1_000, 2):
        with suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return socket.create_server(("127.0.0.1", port))
    raise OSError(f"No two ports in a row are free above {first}.")


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _command_line(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return f"process {process.pid}"
