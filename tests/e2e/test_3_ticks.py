"""Schedules and sensors tick in the daemon, and how long a run takes from launch to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import pytest
from dagster_client import Dagster
from on_cluster import wait_until
from toy_location import ToyLocation

RUNNING_SENSORS = {
    "ingestion": {"new_data_sensor", "s3_file_sensor", "new_file_sensor"},
    "customers": {"automation"},
    "orders": {"automation", "restated_days_sensor"},
}


@pytest.mark.parametrize("location", sorted(RUNNING_SENSORS))
def test_every_sensor_ticks_without_an_error(ui: Dagster, location: str) -> None:
    def ticks() -> Mapping[str, Sequence[Mapping[str, Any]]]:
        found = ui.sensors(location)
        return {name: found[name]["ticks"] for name in RUNNING_SENSORS[location]}

    wait_until(lambda: all(ticks().values()), 90, f"a tick of every sensor of {location}")
    for name, found in ticks().items():
        assert [tick["error"] for tick in found if tick["error"]] == [], name


@pytest.mark.parametrize("location", sorted(RUNNING_SENSORS))
def test_every_schedule_is_on(ui: Dagster, location: str) -> None:
    found = ui.schedules(location)
    assert found
    assert {state["status"] for state in found.values()} == {"RUNNING"}


def test_how_long_a_trivial_run_takes(
    ui: Dagster, clock: ToyLocation, figure: Callable[[str], None]
) -> None:
    wait_until(lambda: clock.location in ui.locations(), 30, "clock in the UI")
    first_lines, ends = [], []
    for _ in range(3):
        run = ui.wait_for_end(ui.launch(clock.location, "trivial"), 90)
        assert run.status == "SUCCESS", run.text
        line = next(event for event in run.events if event.message == "done nothing")
        first_lines.append(line.at - run.events[0].at)
        ends.append(run.seconds_until("RunSuccessEvent"))
    figure(
        f"a trivial run: first log line after {median(first_lines):.1f} s, success after "
        f"{median(ends):.1f} s (official charts as they are, nothing else at work: 9 to 11 s)"
    )
