"""Ranges of the key, and what a table holds in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import polars as pl

KEY = "_key"
DIGEST = "_digest"
PENDING = "_pending"


@dataclass(frozen=True)
class KeyRange:
    """Where the first column of the key is at or beyond ``low`` and before ``high``.

    None is no bound.
    """

    low: Any = None
    high: Any = None

    def split(self, edges: Sequence[Any]) -> list[KeyRange]:
        """The ranges between the edges, which are inside and in order."""
        bounds = [self.low, *edges, self.high]
        return [KeyRange(*pair) for pair in pairwise(bounds)]


@dataclass(frozen=True)
class Figures:
    """How many rows there are, and the sum of their digests."""

    rows: int = 0
    digest: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(self.rows + other.rows, self.digest + other.digest)


class Side(Protocol):
    """One of the two tables that are compared."""

    def figures(self, within: KeyRange, edges: Sequence[Any]) -> list[Figures]:
        """Of each range that the edges split the range into."""

    def edges(self, within: KeyRange, count: int) -> list[Any]:
        """Values inside the range, in order, that split its rows about evenly."""

    def rows(self, within: KeyRange) -> pl.DataFrame:
        """Key as text, digest and further columns of the side's own; ordered by nothing."""
