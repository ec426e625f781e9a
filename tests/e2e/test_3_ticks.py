"""Schedules and sensors tick in the daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from dagster_client import Dagster
from on_cluster import wait_until

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
