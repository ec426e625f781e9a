"""The three jobs on what production has: a PostgreSQL catalog, and everything else in S3."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import polars as pl
import pytest
from catalogs import postgresql_uri
from polars.testing import assert_frame_equal
from whole_platform import Platform, started

from forge_platform import S3Resource
from forge_platform.iceberg.catalog import open_catalog
from forge_platform.testing import EmbeddedPostgres

VALID = [number for number in range(1, 41) if number % 10]
LAST_DAY = dt.date(2024, 1, 31)  # there are orders on the 30 days before
HEADER = "customer_id,email,first_name,last_name,created_at,updated_at\n"
TIMES = "2024-05-01T00:00:00Z,2024-05-01T00:00:00Z"
CHANGE = """
UPDATE public.customers SET email = 'nobody', updated_at = now() WHERE customer_id = 2;
INSERT INTO public.orders
VALUES (121, 3, '2024-01-02', 'paid', 1, 1000, 'USD', now(), now());
"""


@pytest.fixture
def platform(
    postgres: EmbeddedPostgres, small_variables: dict[str, str], s3_bucket: str, tmp_path: Path
) -> Iterator[Platform]:
    variables = {
        **small_variables,
        "ICEBERG_CATALOG_URI": postgresql_uri(postgres.create_database(f"catalog_{uuid4().hex}")),
        "ICEBERG_WAREHOUSE": f"{s3_bucket}/tables",
        "LANDING_URI": f"{s3_bucket}/landing",
        "EXPORT_URI": f"{s3_bucket}/exports",
    }
    with started(tmp_path, variables) as platform:
        yield platform


def test_a_catalog_outlives_a_restart_of_its_database(server_folder: Path, tmp_path: Path) -> None:
    with EmbeddedPostgres(server_folder / "catalog", password="p") as server:
        catalog = open_catalog(postgresql_uri(server.connection()), f"file://{tmp_path}", {})
        catalog.create_namespace("space")
        server.stop()
        server.start()
        assert catalog.list_namespaces() == [("space",)]


def test_the_jobs_on_postgresql_and_s3(platform: Platform) -> None:
    drop(platform, "first.csv", "50,ada@example.com,Ada,Berg", "51,nobody,Bo,Diaz", "?,x,y,z")
    platform.run_all("2024-01-01", "2024-01-31")
    check_first_pass(platform)
    days = orders_a_day(platform)

    drop(platform, "second.csv", "1,new@example.com,New,Name")
    platform.execute(CHANGE)
    platform.run_all("2024-01-02", "2024-01-02")
    check_second_pass(platform)
    assert orders_a_day(platform) == {**days, dt.date(2024, 1, 2): 5}


def check_first_pass(platform: Platform) -> None:
    """Every table was made, with a row for what it must have one for."""
    assert ids(platform, "ingestion.raw_customers") == list(range(1, 41))
    assert ids(platform, "ingestion.incremental_orders", "order_id") == list(range(1, 121))
    assert ids(platform, "ingestion.raw_customer_files") == [50, 51]
    assert platform.rows("ingestion.rejected_rows").height == 1
    assert ids(platform, "customers.clean_customers") == [*VALID, 50]
    assert ids(platform, "customers.rejected_customers") == [10, 20, 30, 40, 51]
    assert orders_a_day(platform) == dict.fromkeys(orders_a_day(platform), 4) | {LAST_DAY: 0}
    check_export(platform)


def check_second_pass(platform: Platform) -> None:
    """The change arrived, and nothing else was written."""
    assert written(platform, "raw_customers") == (0, 1, 0)
    assert written(platform, "incremental_orders") == (1, 0, 0)
    assert written(platform, "raw_customer_files") == (1, 0, 0)
    # A row of a file takes the place of customer 1's; customer 2 leaves; customer 3 ordered.
    assert written(platform, "clean_customers") == (0, 1, 1)
    assert written(platform, "customer_metrics") == (0, 2, 1)
    assert ids(platform, "customers.clean_customers") == [n for n in [*VALID, 50] if n != 2]
    assert written(platform, "daily_order_summary") == (0, 1, 0)
    check_export(platform)


def check_export(platform: Platform) -> None:
    exports = S3Resource(uri=platform.variables["EXPORT_URI"])
    exported = pl.read_parquet(io.BytesIO(exports.read("customer_metrics.parquet")))
    metrics = platform.rows("customers.customer_metrics")
    assert_frame_equal(exported, metrics, check_row_order=False)


def drop(platform: Platform, name: str, *rows: str) -> None:
    """A file that a partner drops."""
    landing = S3Resource(uri=platform.variables["LANDING_URI"])
    landing.write(name, (HEADER + "".join(f"{row},{TIMES}\n" for row in rows)).encode())


def ids(platform: Platform, table: str, column: str = "customer_id") -> list[int]:
    return platform.rows(table)[column].sort().to_list()


def orders_a_day(platform: Platform) -> dict[dt.date, int]:
    return dict(platform.rows("orders.daily_order_summary").select("date", "order_count").rows())


def written(platform: Platform, asset: str) -> tuple[int, ...]:
    """Rows inserted, updated and deleted by an asset's last run."""
    metadata = platform.metadata(asset)
    return tuple(metadata[f"rows_{name}"] for name in ("inserted", "updated", "deleted"))


def test_a_new_catalog_may_be_opened_by_several_at_once(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    for number in range(8):
        database = postgres.create_database(f"new_{uuid4().hex}")
        for uri in (f"sqlite:///{tmp_path}/{number}.db", postgresql_uri(database)):
            together = Barrier(4)

            def opened(uri: str = uri, together: Barrier = together) -> object:
                together.wait()
                return open_catalog(uri, f"file://{tmp_path}/tables", {}).list_namespaces()

            with ThreadPoolExecutor(4) as pool:
                found = [pool.submit(opened) for _ in range(4)]
            assert [future.result() for future in found] == [[]] * 4
