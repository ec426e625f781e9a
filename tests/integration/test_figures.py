"""The three jobs against an independent computation: SQL, straight from the CDNOW file."""

from __future__ import annotations

import gzip
import io
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from psycopg2 import sql
from whole_platform import Platform, connected, query, select_like

from forge_platform.testing import ConnectionParameters, EmbeddedPostgres

CDNOW = Path(__file__).parents[2] / "demo/src/forge_demo/data/CDNOW_master.txt.gz"
FIRST_DAY, LAST_DAY = "2024-01-01", "2025-07-10"  # 11 days longer than there are orders

INPUTS = """
CREATE TABLE cdnow (order_id bigserial PRIMARY KEY, line text NOT NULL);
CREATE TABLE rate (date date, currency text, usd_per_unit numeric(18, 8));
"""


@pytest.fixture(scope="module")
def done(platform: Platform) -> Platform:
    platform.run_all(FIRST_DAY, LAST_DAY)
    return platform


@pytest.fixture(scope="module")
def figures(postgres: EmbeddedPostgres, done: Platform) -> ConnectionParameters:
    """The database that knows the file and the rules, and so what must come out."""
    parameters = postgres.create_database("figures")
    with connected(parameters) as connection, connection.cursor() as cursor:
        cursor.execute(INPUTS)
        with gzip.open(CDNOW) as lines:
            cursor.copy_expert("COPY cdnow (line) FROM STDIN (FORMAT csv, HEADER)", lines)
        rates = done.rows("ingestion.exchange_rates").write_csv(include_header=False)
        cursor.copy_expert("COPY rate FROM STDIN (FORMAT csv)", io.StringIO(rates))
        cursor.execute(Path(__file__).with_name("figures.sql").read_text())
    return parameters


def assert_same(actual: pl.DataFrame, expected: pl.DataFrame, *key: str) -> None:
    assert_frame_equal(actual.sort(key), expected.sort(key), check_exact=True)


def test_the_computation_knows_the_published_totals(figures: ConnectionParameters) -> None:
    totals = "SELECT count(*), count(DISTINCT customer_id), sum(total_amount) FROM raw_orders"
    assert query(figures, totals) == [(69_659, 23_570, Decimal("2500315.63"))]


@pytest.mark.parametrize(
    ("table", "rows", "key"),
    [
        ("ingestion.raw_customers", 23_570, ("customer_id",)),
        ("ingestion.raw_orders", 69_659, ("order_id",)),
        ("ingestion.incremental_orders", 69_659, ("order_id", "updated_at")),
        ("ingestion.raw_customer_files", 1_128, ("customer_id",)),
        ("customers.clean_customers", 22_889, ("customer_id",)),
        ("customers.rejected_customers", 1_809, ("customer_id", "updated_at")),
        ("customers.customer_metrics", 22_889, ("customer_id",)),
        ("customers.customer_clv", 22_889, ("customer_id",)),
        ("orders.enriched_orders", 69_659, ("order_id",)),
        ("orders.daily_order_summary", 557, ("date",)),
        ("orders.sales_daily_summary", 546, ("date",)),
    ],
)
def test_every_row(
    done: Platform, figures: ConnectionParameters, table: str, rows: int, key: tuple[str, ...]
) -> None:
    """Every value of every row, but those that say when or where in a file."""
    actual = done.rows(table).drop(
        "_source_line", "_processing_run_id", "_processed_at", strict=False
    )
    assert actual.height == rows
    assert_same(actual, select_like(figures, sql.Identifier(table.partition(".")[2]), actual), *key)


def test_rates_follow_their_formula(done: Platform, figures: ConnectionParameters) -> None:
    """To the last decimal but one: sines differ between mathematical libraries."""
    [(rates, furthest)] = query(
        figures,
        "SELECT count(*), max(abs(rate.usd_per_unit - exchange_rates.usd_per_unit))"
        " FROM rate JOIN exchange_rates USING (date, currency)",
    )
    assert rates == done.rows("ingestion.exchange_rates").height > 3_000
    assert furthest <= Decimal("0.00000001")


@pytest.mark.parametrize(
    ("customer", "historical", "predicted", "total"),
    [
        # The last year is 2024-06-30 to 2025-06-29: 1997-07-01 to 1998-06-30 in the file. Of the
        # cohort 2024-01 2,677 of 7,846 customers came back: m r / (1.1 - r) is
        # m 2677 / (1.1 * 7846 - 2677) = m 2677 / 5953.6.
        #
        # 57.45 + 20.96 + 16.99 = 95.40; 95.40 * 2677 / 5953.6 = 42.8960
        (3, "95.40", "42.90", "138.30"),
        # 28.14 + 40.47 + 46.46 + 40.47 + 37.47 = 193.01; 193.01 * 2677 / 5953.6 = 86.7857
        (5, "193.01", "86.79", "279.80"),
        # Nothing after 1997-06-30.
        (1, "0.00", "0.00", "0.00"),
        # Cohort 2024-02, 3,098 of 8,776: 12.99; 12.99 * 3098 / (9653.6 - 3098) = 6.1387
        (10_001, "12.99", "6.14", "19.13"),
        # Cohort 2024-03, 2,557 of 6,948, euros:
        # 165.77 + 76.31 = 242.08; 242.08 * 2557 / (7642.8 - 2557) = 121.7111
        (16_848, "242.08", "121.71", "363.79"),
        # From a file, without orders.
        (23_571, "0.00", "0.00", "0.00"),
    ],
)
def test_lifetime_values_by_hand(
    done: Platform, customer: int, historical: str, predicted: str, total: str
) -> None:
    values = done.rows("customers.customer_clv").row(
        by_predicate=pl.col("customer_id") == customer, named=True
    )
    names = ("historical_clv", "predicted_clv", "total_clv")
    assert tuple(str(values[name]) for name in names) == (historical, predicted, total)


def test_reasons_are_counted(done: Platform) -> None:
    reasons = {"email is missing": 812, "email has no domain": 989, "superseded by a newer row": 8}
    removed = done.metadata("clean_customers")["removed_by_reason"]
    assert {reason: rows for reason, rows in removed.items() if rows} == reasons
    assert done.rows("ingestion.rejected_rows").height == 8
    assert done.rows("ingestion.loaded_files")["rejected"].sum() == 8


def test_the_serving_copy_is_the_table(done: Platform) -> None:
    metrics = done.rows("customers.customer_metrics")
    served = select_like(done.serving, sql.Identifier("serving", "customer_metrics"), metrics)
    assert_same(served, metrics, "customer_id")


def test_the_export_is_the_table(done: Platform) -> None:
    exported = pl.read_parquet(done.exports / "customer_metrics.parquet")
    assert_same(exported, done.rows("customers.customer_metrics"), "customer_id")
