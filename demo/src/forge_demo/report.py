"""What happened, asset by asset, and whether all of it is as it should be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from forge_demo.arrival import Arrival
from forge_demo.dagster_api import Check, DagsterApi
from forge_demo.progress import count
from forge_demo.watch import ROW_COUNT, AssetProgress, View

_ERROR_LINES = 12


def print_report(console: Console, view: View, checks: Sequence[Check]) -> None:
    """Prints a line per asset, and the totals."""
    table = Table(title="What happened", title_justify="left", header_style="bold")
    for heading in ("location", "asset"):
        table.add_column(heading, no_wrap=True)
    for heading in ("rows in", "rows out", "rejected", "in table", "bytes", "seconds", "checks"):
        table.add_column(heading, justify="right", no_wrap=True)
    for item in view.assets:
        mine = [check for check in checks if check.asset == item.asset.name]
        table.add_row(item.asset.location, item.asset.name, *_cells(item), _tally(mine))
    table.add_section()
    table.add_row("all", f"{len(view.runs)} runs", *_totals(view.assets), _tally(checks))
    console.print(table)
    console.print(f"Runs took {view.run_seconds:.1f} s in all.")


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
    yield f"{sum(item.seconds for item in items):.1f}"


def _tally(checks: Sequence[Check]) -> str:
    if not checks:
        return ""
    passed = sum(check.passed for check in checks)
    missed = len(checks) - passed
    return f"{passed} passed" + (f", {missed} not" if missed else "")


def print_cost(console: Console, view: View) -> None:
    """Prints what the runs read and wrote, beside what there is."""
    table = Table(title="What was read and written", title_justify="left", header_style="bold")
    for heading in ("location", "asset"):
        table.add_column(heading, no_wrap=True)
    for heading in ("read", "new", "changed", "removed", "in table", "bytes", "runs", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    names = ("rows_read", "rows_inserted", "rows_updated", "rows_deleted", ROW_COUNT, "bytes")
    for item in view.assets:
        cells = (count(item.numbers.get(name)) for name in names)
        runs, seconds = str(item.steps or "-"), f"{item.seconds:.1f}"
        table.add_row(item.asset.location, item.asset.name, *cells, runs, seconds)
    console.print(table)


def print_arrivals(console: Console, arrivals: Sequence[Arrival]) -> None:
    """Prints which tables have what was changed."""
    table = Table(title="What arrived", title_justify="left", header_style="bold")
    for heading in ("table", "what", "found"):
        table.add_column(heading, no_wrap=True)
    for arrival in arrivals:
        found = f"{count(arrival.found)} of {count(arrival.expected)}"
        table.add_row(arrival.table, arrival.what, found)
    console.print(table)


def print_problems(
    console: Console, view: View, checks: Sequence[Check], api: DagsterApi
) -> list[str]:
    """Prints what is not as it should be, and returns what of it is wrong."""
    for warning in _warnings(checks):
        console.print(warning, style="yellow", soft_wrap=True, markup=False)
    wrong = problems(view, checks, api)
    for problem in wrong:
        console.print(problem, style="red", soft_wrap=True, markup=False)
    return wrong


def problems(view: View, checks: Sequence[Check], api: DagsterApi) -> list[str]:
    """Everything that is not as it should be: what, why, and where to look."""
    return [
        *_run_problems(view, api),
        *_check_problems(checks, api),
        *(f"{asset.name} was never made completely." for asset in view.missing_assets),
        *(f"Automation failed: {_short(error)}" for error in view.automation_errors),
    ]


def _run_problems(view: View, api: DagsterApi) -> Iterator[str]:
    for run in view.runs:
        if run.status == "SUCCESS":
            continue
        reasons = "\n".join(_short(error) for error in api.errors(run.id)) or "no reason is known"
        where = f"{api.url}/runs/{run.id}"
        yield f"The run {run.id} of {run.job} is {run.status}: {reasons}\nLook at {where}"


def _check_problems(checks: Sequence[Check], api: DagsterApi) -> Iterator[str]:
    for check in checks:
        if check.passed or check.is_warning:
            continue
        name = f"The check {check.name} of {check.asset}"
        if check.run_id:
            where = f"{api.url}/assets/{check.asset}?view=checks"
            yield f"{name} is {check.status}: {_short(check.description)}\nLook at {where}"
        else:
            yield f"{name} was not done on the newest data."


def _warnings(checks: Sequence[Check]) -> list[str]:
    """What checks found that is no error."""
    return [
        f"The check {check.name} of {check.asset} warns: {_short(check.description)}"
        for check in checks
        if check.is_warning
    ]


def _short(text: str) -> str:
    lines = text.splitlines()
    hidden = len(lines) - _ERROR_LINES
    return "\n".join(lines[:_ERROR_LINES]) + (f"\n… {hidden} more lines" if hidden > 0 else "")
