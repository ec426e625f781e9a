"""The whole demo from its command line: what it makes, shows, refuses, and leaves behind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any

import polars as pl
import psycopg2
import pytest
from pyiceberg.catalog import Catalog, load_catalog
from running_demo import ASSETS, LOCATIONS, Change, End, RunningDemo

from forge_platform.contracts import CONTRACTS

CDNOW_CUSTOMERS, CDNOW_ORDERS, CDNOW_TOTAL = 23_570, 69_659, Decimal("2500315.63")
CHANGED_CUSTOMERS, NEW_ORDERS = 1_000, 500
DATABASE_VARIABLES = ("HOST", "PORT", "USER", "PASSWORD", "NAME")
VARIABLES = {
    *(f"{prefix}_{name}" for prefix in ("DB", "SERVING_DB") for name in DATABASE_VARIABLES),
    "ICEBERG_CATALOG_URI",
    "ICEBERG_WAREHOUSE",
    "LANDING_URI",
    "EXPORT_URI",
    "EXCHANGE_RATES_URL",
    "FORGE_ENVIRONMENT",
}
AUTOMATION = "dagster/from_automation_condition"
NOT_BY_HAND = {AUTOMATION, "dagster/sensor_name", "dagster/schedule_name", "dagster/backfill"}


def nodes(demo: RunningDemo) -> Mapping[str, Mapping[str, Any]]:
    """What the webserver said of the assets after the first runs, by name.

    The care of tables is left out: it is for the night.
    """
    found = demo.first_look["assetNodes"]
    return {
        node["assetKey"]["path"][-1]: node
        for node in found
        if node["isMaterializable"] and node["groupName"] != "table_care"
    }


def report(demo: RunningDemo) -> Mapping[str, Mapping[str, str]]:
    """The table that the demo printed, by asset; the cells by heading."""
    lines = [line for line in demo.output.splitlines() if line[:1] in {"│", "┃"}]
    headings, *rows = ([cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines)
    return {row[1]: dict(zip(headings, row, strict=True)) for row in rows}


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def query(demo: RunningDemo, statement: str) -> Sequence[tuple[Any, ...]]:
    """Asks the source as the variables say."""
    host, port, user, password, name = (demo.variables[f"DB_{part}"] for part in DATABASE_VARIABLES)
    connection = psycopg2.connect(
        host=host, port=int(port), user=user, password=password, dbname=name
    )
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def open_catalog(demo: RunningDemo) -> Catalog:
    """The catalog as somebody opens it who has the variables and pyiceberg, and no library."""
    uri, warehouse = (demo.variables[f"ICEBERG_{part}"] for part in ("CATALOG_URI", "WAREHOUSE"))
    return load_catalog(uri=uri, warehouse=warehouse)


def rows(catalog: Catalog, table: str) -> pl.DataFrame:
    return pl.DataFrame(catalog.load_table(table).scan().to_arrow())


def test_every_asset_is_made(demo: RunningDemo) -> None:
    made = {
        name
        for name, node in nodes(demo).items()
        if node["assetMaterializations"]
        and (
            not (days := node["partitionStats"]) or days["numPartitions"] == days["numMaterialized"]
        )
    }
    assert made == set(ASSETS)


def test_every_check_passed(demo: RunningDemo) -> None:
    results = {
        (name, check["name"]): (check["executionForLatestMaterialization"] or {}).get("status")
        for name, node in nodes(demo).items()
        for check in node["assetChecksOrError"].get("checks", ())
    }
    assert set(results.values()) == {"SUCCEEDED"}, results
    assert results.keys() >= {(contract.asset, "contract") for contract in CONTRACTS}
    assert {name for _, name in results} >= {"check_no_null_emails", "check_positive_totals"}


def test_only_the_ingestion_job_is_launched_by_hand(demo: RunningDemo) -> None:
    assert {run["status"] for run in demo.runs} == {"SUCCESS"}
    by_hand = [run["jobName"] for run in demo.runs if not run["tags"].keys() & NOT_BY_HAND]
    assert by_hand == ["ingestion_job"]


def test_the_other_locations_follow_by_automation(demo: RunningDemo) -> None:
    automated = {
        key["path"][-1]
        for run in demo.runs
        if run["tags"].get(AUTOMATION) == "true"
        for key in run["assetSelection"]
    }
    others = {
        name
        for name, node in nodes(demo).items()
        if node["repository"]["location"]["name"] != "ingestion"
    }
    assert len(others) == 9
    assert automated == others


def test_the_report_has_the_numbers_of_every_asset(demo: RunningDemo) -> None:
    table = report(demo)
    assert table.keys() == {*ASSETS, f"{len(demo.runs)} runs"}
    for name in ASSETS:
        row = table[name]
        assert number(row["rows in"]) > 0, row
        assert any(number(row[wrote]) > 0 for wrote in ("rows out", "bytes") if row[wrote] != "-")
        assert number(row["seconds"]) > 0, row
        assert re.fullmatch(r"(\d+ passed)?", row["checks"]), row
    assert number(table["raw_customers"]["in table"]) == CDNOW_CUSTOMERS
    assert number(table["raw_orders"]["in table"]) == CDNOW_ORDERS
    assert number(table["raw_customer_files"]["rejected"]) == 8
    assert [table[asset.asset]["checks"] for asset in CONTRACTS].count("") == 0


def test_the_variables_are_those_of_production(demo: RunningDemo) -> None:
    assert demo.variables.keys() >= VARIABLES
    assert demo.variables["FORGE_ENVIRONMENT"] == "prod"
    assert demo.variables["ICEBERG_CATALOG_URI"].startswith("sqlite:///")
    assert query(demo, "SELECT count(DISTINCT customer_id) FROM public.customers") == [
        (CDNOW_CUSTOMERS,)
    ]


def test_the_password_is_nobodys_business(demo: RunningDemo) -> None:
    password = demo.variables["DB_PASSWORD"]
    assert (demo.state / "env").stat().st_mode & 0o777 == 0o600
    assert password not in demo.output
    for log in (demo.state / "logs").iterdir():
        assert password not in log.read_text(errors="replace"), log


def test_a_taken_port_is_said_and_the_next_one_used(demo: RunningDemo) -> None:
    port = demo.wanted_port
    assert f"Port {port} is taken: the UI will be at port {port + 1}." in demo.output
    assert demo.url == f"http://127.0.0.1:{port + 1}"


@pytest.mark.parametrize("command", ["run", "clean"])
def test_what_would_disturb_a_running_demo_is_refused(demo: RunningDemo, command: str) -> None:
    refused = demo.try_command(command)
    assert refused.returncode == 1
    process = demo.command.process
    assert f"A demo is running in {demo.state} (process {process.pid})" in refused.stderr
    assert "Ctrl-C" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert process.poll() is None
    assert demo.ask("{version}")


def test_a_change_arrives_in_all_three_domains(demo: RunningDemo, demo_change: Change) -> None:
    assert demo_change.exit_code == 0, demo_change.output
    catalog = open_catalog(demo)
    is_changed, is_new = pl.col("last_name") == "Changed", pl.col("order_id") > CDNOW_ORDERS
    for table in ("ingestion.raw_customers", "customers.clean_customers"):
        assert rows(catalog, table).filter(is_changed).height == CHANGED_CUSTOMERS, table
    for table in ("ingestion.raw_orders", "ingestion.incremental_orders", "orders.enriched_orders"):
        assert rows(catalog, table).filter(is_new).height == NEW_ORDERS, table
    assert rows(catalog, "orders.enriched_orders").filter(is_changed).height == orders_touched(demo)
    summary = rows(catalog, "orders.daily_order_summary")
    assert summary["order_count"].sum() == CDNOW_ORDERS + NEW_ORDERS


def orders_touched(demo: RunningDemo) -> int:
    """How many orders are new, or have a customer who was changed."""
    [(orders,)] = query(
        demo,
        "SELECT count(*) FROM public.orders WHERE customer_id IN"
        " (SELECT customer_id FROM public.customers WHERE last_name = 'Changed')",
    )
    assert NEW_ORDERS < orders < CDNOW_ORDERS / 5
    return int(orders)


@pytest.fixture
def counts(demo_change: Change) -> Mapping[str, Mapping[str, int]]:
    """What the change cost, by asset."""
    if not demo_change.was_alone:
        pytest.skip("adaptive_schedule, which makes everything anew at night, came in between")
    return demo_change.counts


def test_only_the_change_is_written(
    demo: RunningDemo, counts: Mapping[str, Mapping[str, int]]
) -> None:
    def written(asset: str) -> tuple[int, int, int]:
        of_asset = counts[asset]
        return of_asset["rows_inserted"], of_asset["rows_updated"], of_asset["rows_deleted"]

    assert written("raw_customers") == (0, CHANGED_CUSTOMERS, 0)
    assert written("clean_customers") == (0, CHANGED_CUSTOMERS, 0)
    assert written("raw_orders") == (NEW_ORDERS, 0, 0)
    assert written("incremental_orders") == (NEW_ORDERS, 0, 0)
    # A run can see a customer's change before the order, or the other way round: written twice.
    for asset, rows_touched in (
        ("customer_metrics", CHANGED_CUSTOMERS),
        ("customer_metrics_serving", CHANGED_CUSTOMERS),
        ("enriched_orders", orders_touched(demo)),
    ):
        assert rows_touched <= sum(written(asset)) <= rows_touched + NEW_ORDERS, asset
    # The orders are of five days; the late ones change these a second time.
    assert 5 <= sum(written("daily_order_summary")) <= 10


def test_only_the_change_is_read(
    demo: RunningDemo, counts: Mapping[str, Mapping[str, int]]
) -> None:
    """A run may read again what came shortly before, but never a table."""
    customers_and_orders = CHANGED_CUSTOMERS + orders_touched(demo)
    for asset, changed in {
        "raw_customers": CHANGED_CUSTOMERS,
        "clean_customers": CHANGED_CUSTOMERS,
        "raw_orders": NEW_ORDERS,
        "incremental_orders": NEW_ORDERS,
        "customer_metrics": customers_and_orders,
        "enriched_orders": orders_touched(demo),
    }.items():
        read, runs = counts[asset]["rows_read"], counts[asset]["runs"]
        assert changed <= read <= runs * (changed + 1), asset


def test_ctrl_c_ends_everything_and_nothing_else(demo_end: End) -> None:
    assert demo_end.exit_code == 0
    servers = ("dagster-webserver", "dagster-daemon", "rates_api", "bin/postgres")
    for part in (*servers, *(f"{location}.definitions" for location in LOCATIONS)):
        assert any(part in command for command in demo_end.started), part
    assert demo_end.left == []
    assert demo_end.bystander_lives


@pytest.mark.usefixtures("demo_end")
def test_the_tables_stay_readable(demo: RunningDemo) -> None:
    catalog = open_catalog(demo)
    assert {name for (name,) in catalog.list_namespaces()} == set(LOCATIONS)
    customers = rows(catalog, "ingestion.raw_customers")
    assert (customers.height, customers["customer_id"].n_unique()) == (CDNOW_CUSTOMERS,) * 2
    orders = rows(catalog, "ingestion.raw_orders").filter(pl.col("order_id") <= CDNOW_ORDERS)
    assert (orders.height, orders["total_amount"].sum()) == (CDNOW_ORDERS, CDNOW_TOTAL)
    for location in LOCATIONS:
        for identifier in catalog.list_tables(location):
            assert rows(catalog, ".".join(identifier)).height > 0, identifier
