"""What the demo learns about runs from a real Dagster webserver."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from forge_demo.dagster_api import Asset, DagsterApi, Materialization, Run, RunDetails, Step
from forge_demo.demo import unfinished_runs
from forge_demo.ports import HOST, free_ports
from forge_demo.progress import progress
from forge_demo.report import print_report
from forge_demo.supervisor import Supervisor
from forge_demo.verdict import problems
from forge_demo.watch import ROW_COUNT, AssetProgress, View, Watch, progress_of
from forge_platform.errors import PermanentError, SourceUnavailable

DEFINITIONS = """
import dagster as dg

days = dg.StaticPartitionsDefinition(["1", "2", "3"])


@dg.asset
def good():
    metadata = {"rows_read": 10, "rows_inserted": 6, "rows_updated": 1, "rows_rejected": 3}
    return dg.MaterializeResult(metadata={**metadata, "bytes": 2048, "dagster/row_count": 6})


@dg.asset(deps=[good], partitions_def=days, backfill_policy=dg.BackfillPolicy.single_run())
def daily():
    return dg.MaterializeResult(metadata={"rows_read": 6})


@dg.asset
def bad():
    try:
        {}["column"]
    except KeyError as error:
        raise ValueError("the column is missing") from error


@dg.asset_check(asset=good)
def passes():
    return dg.AssetCheckResult(passed=True)


@dg.asset_check(asset=good)
def warns():
    severity = dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(passed=False, severity=severity, description="a bit odd")


@dg.asset_check(asset=good)
def fails():
    return dg.AssetCheckResult(passed=False, description="3 rows are wrong")


defs = dg.Definitions(
    assets=[good, daily, bad],
    asset_checks=[passes, warns, fails],
    jobs=[dg.define_asset_job("some_job", ["good", "bad"])],
    executor=dg.in_process_executor,
)
"""
INSTANCE = """
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
telemetry: {enabled: false}
"""
LOCATION = "things.py"
EXAMPLE = Run(
    id="example",
    job="__ASSET_JOB",
    location=LOCATION,
    status="SUCCESS",
    created=1,
    started=1,
    ended=2,
    assets=frozenset({"daily"}),
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterApi]:
    folder = tmp_path_factory.mktemp("dagster")
    (folder / LOCATION).write_text(DEFINITIONS)
    (folder / "dagster.yaml").write_text(INSTANCE)
    supervisor = Supervisor(folder, folder / "logs", {**os.environ, "DAGSTER_HOME": str(folder)})
    [port] = free_ports(1)
    webserver = str(Path(sys.executable).with_name("dagster-webserver"))
    supervisor.start("webserver", [webserver, "-h", HOST, "-p", str(port), "-f", LOCATION])
    api = DagsterApi(f"http://{HOST}:{port}")
    try:
        wait_until(lambda: LOCATION in loaded(api))
        yield api
    finally:
        api.close()
        supervisor.stop()


def loaded(api: DagsterApi) -> dict[str, str | None]:
    try:
        return api.loaded_locations()
    except SourceUnavailable:
        return {}


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@dataclass(frozen=True)
class Watched:
    """A run that is over, what is then to be seen, and what was shown meanwhile."""

    run: Run
    view: View
    shown: list[str]


@pytest.fixture(scope="module")
def watched(api: DagsterApi) -> Watched:
    console = Console(width=140, record=True)
    watch = Watch(api, time.time())
    run_id = api.launch(LOCATION, "some_job")
    with progress(console) as show:

        def is_quiet() -> bool:
            view = watch.look()
            show(view)
            return view.is_quiet

        wait_until(is_quiet)
    view = watch.look()
    [run] = view.runs
    assert run.id == run_id
    return Watched(run, view, console.export_text().splitlines())


def items(view: View) -> dict[str, AssetProgress]:
    return {item.asset.name: item for item in view.assets}


def test_assets_are_those_of_the_workspace(api: DagsterApi) -> None:
    assets = {asset.name: asset for asset in api.assets()}
    assert assets.keys() == {"good", "daily", "bad"}
    assert assets["daily"].partitions == 3
    assert "some_job" in assets["good"].jobs
    assert assets["good"].location == LOCATION


def test_asset_that_was_made(watched: Watched) -> None:
    good = items(watched.view)["good"]
    assert good.state == "done"
    assert good.numbers["rows_read"] == 10
    assert good.numbers[ROW_COUNT] == 6
    assert good.steps == 1
    assert good.seconds > 0


def test_asset_that_was_not_made(watched: Watched) -> None:
    assert items(watched.view)["daily"].state == "waiting"
    assert {asset.name for asset in watched.view.missing_assets} == {"daily", "bad"}


def test_run_is_told(watched: Watched) -> None:
    run = watched.run
    assert (run.status, run.job, run.location) == ("FAILURE", "some_job", LOCATION)
    assert 0 < run.seconds == pytest.approx(watched.view.run_seconds)


def test_failure_is_explained(api: DagsterApi, watched: Watched) -> None:
    assert items(watched.view)["bad"].state == "failed"
    [error] = api.errors(watched.run.id)
    assert error.startswith("bad: KeyError")
    text = "\n".join(problems(watched.view, [], api))
    assert error in text
    assert f"{api.url}/runs/{watched.run.id}" in text
    assert "bad was never made completely" in text


def test_checks_are_told_apart(api: DagsterApi, watched: Watched) -> None:
    checks = {check.name: check for check in api.checks()}
    assert checks["passes"].passed
    assert checks["warns"].is_warning
    assert not checks["fails"].passed
    text = "\n".join(problems(watched.view, list(checks.values()), api))
    assert "3 rows are wrong" in text
    assert "a bit odd" not in text


def test_report_adds_up(api: DagsterApi, watched: Watched) -> None:
    console = Console(width=140, record=True)
    print_report(console, watched.view, api.checks())
    line = next(line for line in console.export_text().splitlines() if " good " in line)
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[1:7] == ["good", "10", "7", "3", "6", "2,048"]
    assert cells[8] == "1 passed, 2 not"


def test_progress_outside_a_terminal_is_a_line_per_change(watched: Watched) -> None:
    [line] = [line for line in watched.shown if "done" in line]
    assert "good" in line
    assert "6 rows" in line
    assert [line.split()[-1] for line in watched.shown if " bad " in line][-1] == "failed"


def test_step_that_makes_many_partitions_counts_once() -> None:
    daily = Asset(
        name="daily",
        location=LOCATION,
        step="daily",
        is_automated=True,
        jobs=frozenset(),
        partitions=3,
        made_partitions=3,
    )
    step = Step(key="daily", status="SUCCESS", seconds=2.0)
    made = Materialization(asset="daily", step="daily", numbers={"rows_read": 6, ROW_COUNT: 3})
    details = RunDetails(steps={"daily": step}, materializations=[made] * 3)
    runs = [replace(EXAMPLE, id=name) for name in ("first", "second")]
    item = progress_of(daily, runs, dict.fromkeys(("first", "second"), details))
    assert item.numbers == {"rows_read": 12, ROW_COUNT: 3}
    assert (item.steps, item.seconds, item.state) == (2, 4.0, "done")


def test_runs_that_overlap_count_once() -> None:
    times = [(20, 21), (1, 11), (6, 13), (None, 15), (30, None)]
    runs = [replace(EXAMPLE, started=start, ended=end) for start, end in times]
    view = View(assets=[], runs=runs, is_quiet=True, automation_errors=[])
    assert view.run_seconds == 13


def test_run_that_did_not_end_well_is_found_and_repeated(api: DagsterApi, watched: Watched) -> None:
    assert unfinished_runs(api, watched.run.created) == []
    assert unfinished_runs(api, time.time()) == [watched.run]
    moment = time.time()
    repeated = api.repeat(watched.run)
    wait_until(lambda: all(run.is_over for run in api.runs(moment)))
    [again] = api.runs(moment)
    assert again.id == repeated != watched.run.id
    assert again.job == watched.run.job
    assert unfinished_runs(api, time.time()) == [again]


def test_runs_before_the_moment_are_not_watched(api: DagsterApi) -> None:
    view = Watch(api, time.time()).look()
    assert view.runs == []
    assert view.is_quiet
    assert view.run_seconds == 0


def test_job_that_does_not_exist(api: DagsterApi) -> None:
    with pytest.raises(PermanentError, match="no_job"):
        api.launch(LOCATION, "no_job")


def test_webserver_that_is_not_there() -> None:
    [port] = free_ports(1)
    with pytest.raises(SourceUnavailable, match=f"{port}"):
        DagsterApi(f"http://{HOST}:{port}").runs()
