"""The demo's UI, looked at as a user does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dagster_ui import DagsterUi, dagster_ui, missing_programs
from running_demo import ASSETS, LOCATIONS, RunningDemo
from selenium.webdriver.common.by import By

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def _browser() -> None:
    """Skips what needs a browser where there is none, but not in CI."""
    if missing := missing_programs():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)


@pytest.fixture(scope="module")
def ui(_browser: None, demo: RunningDemo) -> Iterator[DagsterUi]:
    with dagster_ui(demo.url) as ui:
        yield ui


def test_the_three_code_locations_are_loaded(ui: DagsterUi) -> None:
    ui.open("/deployment/locations")
    ui.search(f"{len(LOCATIONS)} code locations")
    for location in LOCATIONS:
        ui.search(rf"\n{location}\n(\d+\n)*Loaded\n")


def test_the_lineage_shows_every_asset(ui: DagsterUi) -> None:
    ui.open_lineage(LOCATIONS)
    ui.find_assets(ASSETS)


def test_the_lineage_is_unbroken_across_locations(ui: DagsterUi) -> None:
    ui.open("/assets/sales_daily_summary?view=lineage&lineageScope=upstream&lineageDepth=5")
    orders = ["sales_daily_summary", "enriched_orders"]
    customers = ["clean_customers"]
    ingestion = ["raw_customers", "raw_customer_files", "raw_orders", "exchange_rates"]
    ui.find_assets([*orders, *customers, *ingestion])


@pytest.mark.parametrize(
    ("asset", "location", "description", "kinds", "rows", "column"),
    [
        ("raw_customers", "ingestion", "Customers as the source", "Postgres", "23,570", "email"),
        ("customer_clv", "customers", "lifetime value", "Polars", "22,889", "total_clv"),
        ("sales_daily_summary", "orders", "7-day moving average", "Polars", r"[\d,]+", "revenue"),
    ],
)
def test_an_asset_is_described(
    ui: DagsterUi,
    asset: str,
    location: str,
    description: str,
    kinds: str,
    rows: str,
    column: str,
) -> None:
    ui.open(f"/assets/{asset}")
    ui.search(rf"Row count\n{rows}\n")
    ui.search(rf"Description\n.*{description}")
    ui.search(rf"Group\n{location}\n")
    ui.search(rf"Owners\n{location}\n")
    ui.search(rf"Kinds\nIceberg\n{kinds}\n")
    ui.search(rf"Tags\nforge/location: {location}\n")
    ui.search(rf"Column name.*\n(.*\n)*{column}\n(string|decimal\(38, 2\))\n")
    sample = ui.find(f"//table[thead//th[.='{column}'] and not(thead//th[.='Column name'])]")
    assert len(sample.find_elements(By.XPATH, "./tbody/tr")) == 5


@pytest.mark.parametrize("asset", ["raw_orders", "customer_metrics_export", "enriched_orders"])
def test_an_asset_links_to_documentation_and_code(ui: DagsterUi, asset: str) -> None:
    ui.open(f"/assets/{asset}")
    documentation = ui.find("//tr[td//text()='documentation']//a").get_attribute("href")
    assert documentation
    assert f"\n### {asset}\n" in httpx.get(documentation).raise_for_status().text
    editor = ui.find("//a[starts-with(@href, 'vscode://file')]").get_attribute("href")
    assert editor
    [(path, line)] = re.findall(r"^vscode://file/(/.+):(\d+)$", editor)
    code = Path(path).read_text().splitlines()[int(line) - 1 :]
    assert any(re.match(rf"def {asset}\(", text) for text in code[:20])


@pytest.mark.parametrize(
    ("asset", "picture"),
    [("customer_clv", "cohort_retention"), ("sales_daily_summary", "revenue_curve")],
)
def test_an_asset_shows_its_picture(ui: DagsterUi, asset: str, picture: str) -> None:
    ui.open(f"/assets/{asset}")
    width, height = ui.open_picture(picture)
    assert width > 800
    assert height > 200


@pytest.mark.parametrize(
    ("location", "asset", "counts"),
    [
        ("ingestion", "raw_customer_files", "rows_read=1136 .*rows_inserted=1128 .*rejected=8 "),
        ("customers", "clean_customers", "rows_read=24698 .*rows_inserted=22889 .*rejected=1809 "),
        ("orders", "enriched_orders", "rows_read=69659 .*rows_inserted=69659 "),
    ],
)
def test_a_runs_log_says_what_happened_to_the_rows(
    ui: DagsterUi, demo: RunningDemo, location: str, asset: str, counts: str
) -> None:
    run = first_run(demo, location, asset)
    ui.open(f"/runs/{run}?logs=rows%20table")
    ui.search(rf"INFO\nrows table={location}\.{asset} {counts}")


def first_run(demo: RunningDemo, location: str, asset: str) -> str:
    """The first run that made an asset; that of a whole job says no selection."""
    runs = [
        run["runId"]
        for run in demo.runs
        if run["repositoryOrigin"]["repositoryLocationName"] == location
        and {"path": [asset]} in (run["assetSelection"] or [{"path": [asset]}])
    ]
    return str(runs[0])
