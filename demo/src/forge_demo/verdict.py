"""Whether all is as it should be, and if not: what, why, and where to look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from forge_demo.dagster_api import Check, DagsterApi
from forge_demo.watch import View

_ERROR_LINES = 12


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
        *_check_problems(view, checks, api),
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


def _check_problems(view: View, checks: Sequence[Check], api: DagsterApi) -> Iterator[str]:
    # A check that is newer than what it checks is done when that is made again.
    kept = {item.asset.name for item in view.assets if item.state == "kept"}
    for check in checks:
        if check.passed or check.is_warning or (check.asset in kept and not check.run_id):
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
