"""Shows the platform at work: a live table in a terminal, a line per change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from forge_demo.watch import ROW_COUNT, AssetProgress, View

_STYLES = {"running": "yellow", "done": "green", "failed": "bold red"}

_AT_REST = frozenset({"waiting", "kept"})
_FILE_WIDTH = 140

Show = Callable[[View], None]


def make_console() -> Console:
    """A console whose tables are whole in a log file too."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)


def count(number: float | None) -> str:
    """A number of things, with thousands separated; a dash when it is not known."""
    return "-" if number is None else f"{number:,.0f}"


@contextmanager
def progress(console: Console) -> Iterator[Show]:
    """How to show a view, in a way that suits the console."""
    started = time.monotonic()
    if not console.is_terminal:
        yield _plain(console, started)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield lambda view: live.update(_table(view, time.monotonic() - started))


def _plain(console: Console, started: float) -> Show:
    states: dict[str, str] = {}

    def show(view: View) -> None:
        for item in view.assets:
            known = states.get(item.asset.name)
            if item.state != known and item.state not in _AT_REST:
                console.print(_line(item, time.monotonic() - started), soft_wrap=True)
            states[item.asset.name] = item.state

    return show


def _line(item: AssetProgress, elapsed: float) -> str:
    line = f"{elapsed:6.1f} s  {item.asset.location:10} {item.asset.name:26} {item.state}"
    if item.state != "done":
        return line
    return f"{line:54} {count(item.numbers.get(ROW_COUNT)):>9} rows  {item.seconds:5.1f} s"


def _table(view: View, elapsed: float) -> Table:
    table = Table(title=_title(view, elapsed), title_justify="left", header_style="bold")
    for heading in ("location", "asset", "state"):
        table.add_column(heading)
    table.add_column("rows", justify="right")
    table.add_column("seconds", justify="right")
    for item in view.assets:
        table.add_row(
            item.asset.location,
            item.asset.name,
            Text(_state(item), style=_STYLES.get(item.state, "dim")),
            count(item.numbers.get(ROW_COUNT)),
            f"{item.seconds:.1f}" if item.seconds else "",
        )
    return table


def _state(item: AssetProgress) -> str:
    asset = item.asset
    if asset.partitions > 1 and not asset.is_made:
        return f"{item.state} {asset.made_partitions}/{asset.partitions}"
    return item.state


def _title(view: View, elapsed: float) -> str:
    over = sum(run.is_over for run in view.runs)
    return f"{elapsed:.0f} s · runs: {over} ended, {len(view.runs) - over} queued or going on"
