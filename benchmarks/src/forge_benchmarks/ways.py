"""What a benchmark is made of: ways to do the same work, each run in a process of its own."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Role(StrEnum):
    """Floor: the least that the work can cost. Ours and peers are compared with it."""

    FLOOR = "floor"
    OURS = "ours"
    PEER = "peer"


@dataclass
class Watch:
    """What the work took; what precedes it (imports, connecting) takes no time.

    Attributes:
        seconds: of the work.
        peak_mb: most memory that the process, and those that it runs, had until the end of the
            work; what follows it, the comparison of the rows, does not count.
    """

    seconds: float = 0.0
    peak_mb: int = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts the time of the block."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began
        self.peak_mb = _peak_mb()


@dataclass(frozen=True)
class Way:
    """One way to do a work.

    Attributes:
        run: does it; returns what proves that it did the same as the others.
        slow: only with ``--slow``.
    """

    name: str
    role: Role
    run: Callable[[Watch, Mapping[str, Any]], Mapping[str, Any]]
    slow: bool = False


@dataclass(frozen=True)
class Benchmark:
    """One work, the ways to do it, and what is asked of ours.

    Attributes:
        prepare: makes what the ways need, given the parameters; not measured.
        goals: way of ours to the largest ratio to the floor.
        times_faster: peer to how many times faster than it the first way of ours is at least.
        finds: facts that every run of ours must find.
        most_mb: largest peak memory of ours.
        most_seconds: longest time of ours.
    """

    name: str
    title: str
    ways: Sequence[Way]
    prepare: Callable[[Mapping[str, Any]], None]
    goals: Mapping[str, float] = field(default_factory=dict)
    times_faster: Mapping[str, float] = field(default_factory=dict)
    finds: Mapping[str, Any] = field(default_factory=dict)
    most_mb: int | None = None
    most_seconds: float | None = None


def _peak_mb(process: str = "self") -> int:
    """Of this program and of those that it runs; ``getrusage`` begins with the parent's peak."""
    folder = Path("/proc") / process
    kilobytes = re.findall(r"VmHWM:\s+(\d+) kB", (folder / "status").read_text())
    children = " ".join(file.read_text() for file in folder.glob("task/*/children")).split()
    return sum(map(int, kilobytes)) // 1024 + sum(map(_peak_mb, children))
