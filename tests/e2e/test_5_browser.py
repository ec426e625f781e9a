"""The UI on the cluster, looked at as a user does, through a port-forward."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest
from dagster_ui import DagsterUi, dagster_ui, missing_programs
from running_demo import ASSETS

from forge_demo.dagster_api import DagsterApi

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(webserver: str) -> Iterator[DagsterUi]:
    if missing := missing_programs():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    with dagster_ui(webserver) as ui:
        yield ui


def test_the_code_locations_are_loaded(browser: DagsterUi, locations: Sequence[str]) -> None:
    browser.open("/deployment/locations")
    for location in locations:
        browser.search(rf"\n{location}\n(image: .*\n)?(\d+\n)*Loaded\n")


def test_the_lineage_shows_every_asset(browser: DagsterUi, locations: Sequence[str]) -> None:
    browser.open_lineage(locations)
    browser.find_assets(ASSETS)


def test_a_runs_log_can_be_read(browser: DagsterUi, api: DagsterApi) -> None:
    runs = [run for run in api.runs() if run.job == "ingestion_job" and run.status == "SUCCESS"]
    browser.open(f"/runs/{runs[0].id}?logs=rows%20table")
    browser.search(r"INFO\nrows table=ingestion\.raw_orders ")
