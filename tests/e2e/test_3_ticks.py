"""Schedules and sensors tick in the daemon, and how long a run takes from launch to end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import pytest
from changed_image import append
from dagster_client import REPOSITORY, Dagster
from installation import Installation
from on_cluster import wait_until
from toy_location import ToyLocation

RUNNING_SENSORS = {
    "ingestion": {"new_data_sensor", "s3_file_sensor", "new_file_sensor"},
    "customers": {"automation"},
    "orders": {"automation", "restated_days_sensor"},
}
CLOCK = """
import dagster as dg


@dg.op
def nothing(context):
    context.log.info("done nothing")


@dg.job(executor_def=dg.in_process_executor)
def trivial():
    nothing()


minutely = dg.ScheduleDefinition(
    name="minutely",
    job=trivial,
    cron_schedule="* * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
defs = dg.Definitions(jobs=[trivial], schedules=[minutely])
"""

_STATES = """
query States($selector: RepositorySelector!) {
  schedulesOrError(repositorySelector: $selector) {
    ... on Schedules { results { name scheduleState { ...State } } }
  }
  sensorsOrError(repositorySelector: $selector) {
    ... on Sensors { results { name sensorState { ...State } } }
  }
}
fragment State on InstigationState {
  status
  ticks(limit: 5) { status timestamp error { message } runIds }
}
"""


def states(ui: Dagster, location: str, kind: str) -> Mapping[str, Mapping[str, Any]]:
    selector = {"repositoryName": REPOSITORY, "repositoryLocationName": location}
    found = ui.ask(_STATES, selector=selector)[f"{kind}sOrError"]["results"]
    return {item["name"]: item[f"{kind}State"] for item in found}


@pytest.fixture(scope="module")
def clock(installation: Installation, ui: Dagster) -> Iterator[str]:
    """A location with nothing but a schedule that is due every minute."""
    name, base = "clock", installation.image("orders")
    tag = append(base, "/app/code/clock/definitions.py", CLOCK, f"clock-{time.time_ns()}")
    toy = ToyLocation(name, installation.namespace, base, installation.images)
    toy.deploy(tag, "--wait", image={"repository": f"{installation.images}/orders"})
    wait_until(lambda: name in ui.locations(), 30, "clock in the UI")
    yield name
    toy.remove()


@pytest.mark.parametrize("location", sorted(RUNNING_SENSORS))
def test_every_sensor_ticks_without_an_error(ui: Dagster, location: str) -> None:
    def ticks() -> Mapping[str, Sequence[Mapping[str, Any]]]:
        found = states(ui, location, "sensor")
        return {name: found[name]["ticks"] for name in RUNNING_SENSORS[location]}

    wait_until(lambda: all(ticks().values()), 90, f"a tick of every sensor of {location}")
    for name, found in ticks().items():
        assert [tick["error"] for tick in found if tick["error"]] == [], name


@pytest.mark.parametrize("location", sorted(RUNNING_SENSORS))
def test_every_schedule_is_on(ui: Dagster, location: str) -> None:
    found = states(ui, location, "schedule")
    assert found
    assert {state["status"] for state in found.values()} == {"RUNNING"}


def test_a_schedule_that_is_due_launches_its_run(ui: Dagster, clock: str) -> None:
    def launched() -> Sequence[str]:
        tick = states(ui, clock, "schedule")["minutely"]["ticks"][0]
        assert tick["status"] == "SUCCESS", tick
        ids: Sequence[str] = tick["runIds"]
        return ids

    # The daemon looks for new locations every 60 s, and then waits for the next full minute.
    wait_until(launched, 240, "a tick of the schedule")
    assert ui.wait_for_end(launched()[0], 60).status == "SUCCESS"


def test_how_long_a_trivial_run_takes(ui: Dagster, clock: str) -> None:
    first_lines, ends = [], []
    for _ in range(3):
        run = ui.wait_for_end(ui.launch(clock, "trivial"), 90)
        assert run.status == "SUCCESS", run.text
        line = next(event for event in run.events if event.message == "done nothing")
        first_lines.append(line.at - run.events[0].at)
        ends.append(run.seconds_until("RunSuccessEvent"))
    print(
        f"\na trivial run: first log line after {median(first_lines):.1f} s, success after "
        f"{median(ends):.1f} s (official charts as they are, nothing else at work: 9 to 11 s)"
    )
