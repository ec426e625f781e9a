"""What happened, asset by asset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from forge_demo.arrival import Arrival
from forge_demo.dagster_api import Check
from forge_demo.progress import count
from forge_demo.watch import ROW_COUNT, AssetProgress, View

_WIDE = 125
_TEXTS = frozenset({"location", "asset"})


def print_report(console: Console, view: View, checks: Sequence[Check]) -> None:
    """Prints a line per asset, and the totals."""
    table = _AssetTable(
        console,
        "What happened",
        ("rows in", "rows out", "rejected", "in table", "bytes", "seconds", "checks"),
        left_out_if_narrow={"in table"},
    )
    for item in view.assets:
        mine = [check for check in checks if check.asset == item.asset.name]
        table.add(item.asset.location, item.asset.name, *_cells(item), _tally(mine))
    table.add_section()
    runs, seconds = f"{len(view.runs)} runs", f"{view.run_seconds:.1f}"
    table.add("all", runs, *_totals(view.assets), seconds, _tally(checks))
    table.print()
    console.print(f"Runs took {seconds} s in all.", highlight=False)


def print_cost(console: Console, view: View) -> None:
    """Prints what the runs read and wrote, beside what there is."""
    table = _AssetTable(
        console,
        "What was read and written",
        ("read", "new", "changed", "removed", "in table", "bytes", "runs", "seconds"),
        left_out_if_narrow={"bytes"},
    )
    names = ("rows_read", "rows_inserted", "rows_updated", "rows_deleted", ROW_COUNT, "bytes")
    for item in view.assets:
        cells = (count(item.numbers.get(name)) for name in names)
        runs, seconds = str(item.steps or "-"), f"{item.seconds:.1f}"
        table.add(item.asset.location, item.asset.name, *cells, runs, seconds)
    table.print()


def print_arrivals(console: Console, arrivals: Iterable[Arrival]) -> None:
    """Prints which tables have what was changed."""
    table = Table("table", "what", "found", title="What arrived", title_justify="left")
    for arrival in arrivals:
        found = f"{count(arrival.found)} of {count(arrival.expected)}"
        table.add_row(arrival.table, arrival.what, found)
    console.print(table)


class _AssetTable:
    """A table with a line per asset, which does without some columns in a narrow terminal."""

    def __init__(
        self,
        console: Console,
        title: str,
        headings: Sequence[str],
        left_out_if_narrow: set[str],
    ) -> None:
        self._console = console
        is_narrow = console.width < _WIDE
        left_out = {"location", *left_out_if_narrow} if is_narrow else set()
        every = ("location", "asset", *headings)
        self._kept = [heading not in left_out for heading in every]
        self._table = Table(title=title, title_justify="left")
        if is_narrow:
            self._table.box, self._table.padding, self._table.show_edge = box.SIMPLE_HEAD, 0, False
        for heading in compress(every, self._kept):
            justify: Literal["left", "right"] = "left" if heading in _TEXTS else "right"
            self._table.add_column(heading, justify=justify, overflow="fold")

    def add(self, *cells: str) -> None:
        self._table.add_row(*compress(cells, self._kept))

    def add_section(self) -> None:
        self._table.add_section()

    def print(self) -> None:
        self._console.print(self._table)


def _cells(item: AssetProgress) -> Iterator[str]:
    numbers = item.numbers
    yield count(numbers.get("rows_read"))
    yield count(rows_out(numbers))
    yield count(numbers.get("rows_rejected"))
    yield count(numbers.get(ROW_COUNT))
    yield count(numbers.get("bytes"))
    yield f"{item.seconds:.1f}"


def rows_out(numbers: Mapping[str, float]) -> float | None:
    """Rows that were written: new ones and new versions of known ones."""
    written = [numbers[name] for name in ("rows_inserted", "rows_updated") if name in numbers]
    return sum(written) if written else None


def _totals(items: Sequence[AssetProgress]) -> Iterator[str]:
    yield count(sum(item.numbers.get("rows_read", 0) for item in items))
    yield count(sum(rows_out(item.numbers) or 0 for item in items))
    yield count(sum(item.numbers.get("rows_rejected", 0) for item in items))
    yield count(sum(item.numbers.get(ROW_COUNT, 0) for item in items))
    yield count(sum(item.numbers.get("bytes", 0) for item in items))


def _tally(checks: Sequence[Check]) -> str:
    if not checks:
        return ""
    passed = sum(check.passed for check in checks)
    missed = len(checks) - passed
    return f"{passed} passed" + (f", {missed} not" if missed else "")
