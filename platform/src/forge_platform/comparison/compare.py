"""Finds the ranges of the key in which two tables differ, without reading all of either twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from forge_platform.comparison.ranges import Figures, KeyRange, Side

FANOUT = 64
LEAF_ROWS = 20_000

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many ranges were looked at, and of how many that are known."""


@dataclass(frozen=True)
class Difference:
    """A range that is not the same in both, small enough to be read or not to be split."""

    within: KeyRange
    source: Figures
    table: Figures


@dataclass(frozen=True)
class Comparison:
    """Two tables, as a whole and where they differ."""

    source: Figures
    table: Figures
    differences: list[Difference]


def compare(source: Side, table: Side, progress: Progress | None = None) -> Comparison:
    """Compares counts and digests of ranges, and splits those that differ."""
    first = _split(source, table, KeyRange(), table)
    found: list[Difference] = []
    pending = [part for part in first if part.source != part.table]
    done = 0
    while pending:
        if progress:
            progress(done, done + len(pending))
        part = pending.pop()
        done += 1
        larger = source if part.source.rows > 2 * part.table.rows else table
        parts = [] if _is_leaf(part) else list(_split(source, table, part.within, larger))
        if len(parts) <= 1:
            found.append(part)
        else:
            pending.extend(inner for inner in parts if inner.source != inner.table)
    if progress:
        progress(done, done)
    found.reverse()
    return Comparison(
        source=sum((part.source for part in first), Figures()),
        table=sum((part.table for part in first), Figures()),
        differences=found,
    )


def _is_leaf(part: Difference) -> bool:
    rows = (part.source.rows, part.table.rows)
    return min(rows) == 0 or max(rows) <= LEAF_ROWS


def _split(source: Side, table: Side, within: KeyRange, by: Side) -> list[Difference]:
    edges = by.edges(within, FANOUT)
    sides = (side.figures(within, edges) for side in (source, table))
    return [
        Difference(part, *figures)
        for part, *figures in zip(within.split(edges), *sides, strict=True)
    ]
