"""A schedule of a location that came later: the daemon has found it while other tests ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from dagster_client import Dagster
from on_cluster import wait_until
from toy_location import ToyLocation


@pytest.fixture
def ended_clock(clock: ToyLocation) -> Iterator[str]:
    """It launches no more runs afterwards."""
    yield clock.location
    clock.remove()


def test_a_schedule_that_is_due_launches_its_run(ui: Dagster, ended_clock: str) -> None:
    def launched() -> Sequence[str]:
        tick = ui.schedules(ended_clock)["minutely"]["ticks"][0]
        assert tick["status"] == "SUCCESS", tick
        ids: Sequence[str] = tick["runIds"]
        return ids

    # The daemon looks for new locations every 60 s, and then waits for the next full minute.
    wait_until(launched, 240, "a tick of the schedule")
    assert ui.wait_for_end(launched()[0], 60).status == "SUCCESS"
