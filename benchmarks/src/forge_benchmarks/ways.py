"""What a benchmark is made of: ways to do the same work, each run in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """Floor: the least that the work can cost. Ours and peers are compared with it."""

    FLOOR = "floor"
    OURS = "ours"
    PEER = "peer"


@dataclass
class Watch:
    """Seconds that the work took; what precedes it (imports, connecting) is left out."""

    seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts the time of the block."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began


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
        most_mb: largest peak memory of ours.
    """

    name: str
    title: str
    ways: Sequence[Way]
    prepare: Callable[[Mapping[str, Any]], None]
    goals: Mapping[str, float] = field(default_factory=dict)
    most_mb: int | None = None
