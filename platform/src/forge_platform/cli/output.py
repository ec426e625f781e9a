"""Tables, JSON and progress bars."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")

Advance = Callable[[int, int], None]


def print_json(value: object) -> None:
    """Prints a value as JSON; what JSON has no form for as text."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(rows: Sequence[Mapping[str, Any]], numbers: Sequence[str] = ()) -> None:
    """Prints rows with the same keys; whole, also where nobody looks at a terminal."""
    table = Table(header_style="bold")
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "), justify="right" if name in numbers else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


@contextmanager
def progress_bar(title: str, *, hidden: bool) -> Iterator[Advance]:
    """A bar on the standard error output, told what is done and of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=hidden or not console.is_terminal,
    ) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
