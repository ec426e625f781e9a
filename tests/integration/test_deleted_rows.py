"""Rows that leave the source leave every table, and the nightly care changes none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from whole_platform import Platform, started

import customers.definitions
import ingestion.definitions
import orders.definitions
from ingestion.automation import deleted_rows_schedule

TABLES = (
    "ingestion.raw_customers",
    "ingestion.raw_orders",
    "customers.customer_metrics",
    "orders.enriched_orders",
)


@pytest.fixture
def platform(small_variables: dict[str, str], tmp_path: Path) -> Iterator[Platform]:
    with started(tmp_path, small_variables) as platform:
        yield platform


def test_deleted_rows_leave_every_table(platform: Platform) -> None:
    platform.run_all()
    platform.execute("DELETE FROM public.orders WHERE customer_id = 3")
    platform.execute("DELETE FROM public.customers WHERE customer_id = 3")
    run_by_schedule(platform)
    platform.run("customers")
    platform.run("orders", partition_key="2024-01-01")
    for table in TABLES:
        left = platform.rows(table)["customer_id"]
        assert 3 not in left, table
        assert 4 in left, table
    assert platform.metadata("raw_customers")["deleted_examples"] == ["3"]
    assert platform.metadata("raw_orders")["deleted_keys"] == 3

    before = {table: platform.iceberg.view(table).snapshot_id for table in TABLES}
    run_by_schedule(platform)
    assert before == {table: platform.iceberg.view(table).snapshot_id for table in TABLES}


def run_by_schedule(platform: Platform) -> None:
    with dg.build_schedule_context(instance=platform.instance) as context:
        request = deleted_rows_schedule(context)
    assert isinstance(request, dg.RunRequest)
    platform.run(
        "ingestion", asset_selection=request.asset_selection, run_config=request.run_config
    )


@pytest.mark.parametrize("definitions", [ingestion, customers, orders])
def test_care_runs_before_there_is_a_table(platform: Platform, definitions: Any) -> None:
    job = definitions.definitions.defs.resolve_job_def("table_care")
    assert job.execute_in_process(instance=platform.instance).success


def test_care_changes_no_row_and_starts_nothing(platform: Platform) -> None:
    platform.run_all()
    rows = {table: platform.rows(table) for table in TABLES}
    for location in (ingestion, customers, orders):
        job = location.definitions.defs.resolve_job_def("table_care")
        assert job.execute_in_process(instance=platform.instance).success
    assert platform.metadata("raw_orders_care")["files_after"] >= 1
    for table in TABLES:
        assert platform.rows(table).equals(rows[table]), table
    platform.run("customers")
    assert platform.metadata("customer_metrics")["rows_unchanged"] == 0
    assert platform.metadata("customer_metrics")["rows_updated"] == 0
