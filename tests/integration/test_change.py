"""A change of the source arrives in the three locations, late commits too, and only the change.

Each fixture is one pass of the three jobs over the same platform, after the one before it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from psycopg2 import sql
from whole_platform import Platform, connected, days, select_like

from customers.automation import adaptive_schedule

# The five newest days: the orders that are added change these and no other.
DAYS = ("2025-06-25", "2025-06-29")
OVERLAP = dt.timedelta(minutes=10)

INGESTED = (
    "ingestion.raw_customers",
    "ingestion.raw_orders",
    "ingestion.incremental_orders",
    "ingestion.raw_customer_files",
    "ingestion.rejected_rows",
    "ingestion.loaded_files",
    "ingestion.exchange_rates",
)
DERIVED = (
    "customers.clean_customers",
    "customers.rejected_customers",
    "customers.customer_metrics",
    "customers.customer_clv",
    "orders.enriched_orders",
    "orders.daily_order_summary",
    "orders.sales_daily_summary",
)
TABLES = (*INGESTED, *DERIVED)
OF_CLEAN_CUSTOMERS = DERIVED[0], *DERIVED[2:4]
ASSETS = (
    *(table.partition(".")[2] for table in TABLES),
    "customer_metrics_serving",
    "customer_metrics_export",
)
SERVED = sql.Identifier("serving", "customer_metrics")


@dataclass(frozen=True)
class Pass:
    """What a pass of the jobs left behind; its tables can be read later too."""

    platform: Platform
    metadata: Mapping[str, Mapping[str, Any]]
    data_versions: Mapping[str, str]
    snapshots: Mapping[str, int | None]
    served: pl.DataFrame

    def rows(self, table: str) -> pl.DataFrame:
        return self.platform.iceberg.view(table, self.snapshots[table]).read()

    def content(self, table: str) -> pl.DataFrame:
        """The rows, sorted, without what says which run wrote them."""
        rows = self.rows(table).drop("_processing_run_id", "_processed_at", strict=False)
        return rows.sort(rows.columns)

    def counts(self, asset: str) -> dict[str, int]:
        """What was read, and what became of it."""
        names = ("read", "inserted", "updated", "deleted", "unchanged")
        return {name: self.metadata[asset][f"rows_{name}"] for name in names}


def look(platform: Platform) -> Pass:
    made = {asset: platform.materialisation(asset) for asset in ASSETS}
    metrics = platform.rows("customers.customer_metrics")
    return Pass(
        platform=platform,
        metadata={asset: platform.metadata(asset) for asset in ASSETS},
        data_versions={
            asset: (event.tags or {})["dagster/data_version"] for asset, event in made.items()
        },
        snapshots={table: platform.iceberg.view(table).snapshot_id for table in TABLES},
        served=select_like(platform.serving, SERVED, metrics),
    )


@dataclass(frozen=True)
class Change:
    """Customers that get another e-mail address, and customers that order once more."""

    renamed: Sequence[int]
    buyers: Sequence[int]
    first_order: int

    @property
    def customers(self) -> list[int]:
        """Whom it concerns, each once."""
        return sorted({*self.renamed, *self.buyers})

    def make(self, cursor: Any, clock: str) -> None:
        """Writes it; the clock is what the rows' time stamps are taken from."""
        cursor.execute(
            "UPDATE public.customers SET updated_at = now(),"
            " email = 'new.' || customer_id || '@example.com' WHERE customer_id = ANY(%s)",
            (self.renamed,),
        )
        cursor.execute(
            "INSERT INTO public.orders SELECT %s + number, customer_id,"
            " date '2025-06-25' + (number %% 5)::int, 'pending', 1, 20.25,"
            " (SELECT min(currency) FROM public.orders WHERE customer_id = buyer.customer_id),"
            " now(), now() - %s::interval"
            " FROM unnest(%s::bigint[]) WITH ORDINALITY AS buyer (customer_id, number)",
            (self.first_order, clock, self.buyers),
        )


@pytest.fixture(scope="module")
def first(platform: Platform) -> Pass:
    platform.run_all(*DAYS)
    return look(platform)


@pytest.fixture(scope="module")
def changes(first: Pass) -> tuple[Change, Change]:
    """1,000 customers and 500 orders, in two parts; half of those who order are renamed too."""
    statement = (
        "SELECT customer_id FROM public.customers WHERE customer_id %% 1009 <> 0"
        " GROUP BY 1 HAVING count(*) = 1 AND min(email) LIKE %s ORDER BY 1 LIMIT 1250"
    )
    ids = [number for (number,) in first.platform.query(statement, "%@example.com")]
    late = Change(ids[:300], ids[750:900], first_order=80_000)
    prompt = Change(ids[300:1000], ids[900:], first_order=90_000)
    return late, prompt


@dataclass(frozen=True)
class Overlapping:
    """Two passes: one while a transaction was open, and one after its commit."""

    began: dt.datetime
    settled: Mapping[str, int]
    meanwhile: Pass
    afterwards: Pass


@pytest.fixture(scope="module")
def overlapping(first: Pass, changes: tuple[Change, Change]) -> Overlapping:
    """What began first is committed last, after a pass that has read what came later.

    The clock of those who order late is behind besides, by nearly all of the overlap.
    """
    platform = first.platform
    late, prompt = changes
    settled = {table: in_overlap(first, table) for table in ("customers", "orders")}
    with connected(platform.source) as open_transaction, open_transaction.cursor() as cursor:
        late.make(cursor, "9 minutes")
        cursor.execute("SELECT now()")
        [(began,)] = cursor.fetchall()
        with connected(platform.source) as other:
            prompt.make(other.cursor(), "0 minutes")
        platform.run_all(*DAYS)
        meanwhile = look(platform)
    platform.run_all(*DAYS)
    return Overlapping(began, settled, meanwhile, look(platform))


def in_overlap(last: Pass, table: str) -> int:
    """How many rows the next run reads again although nothing happened to them."""
    watermark = dt.datetime.fromisoformat(last.metadata[f"raw_{table}"]["watermark"])
    key = sql.Identifier(f"{table.removesuffix('s')}_id")
    statement = sql.SQL("SELECT count(DISTINCT {}) FROM {} WHERE updated_at >= {}").format(
        key, sql.Identifier("public", table), sql.Literal(watermark - OVERLAP)
    )
    with connected(last.platform.source) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        [(rows,)] = cursor.fetchall()
    return int(rows)


@pytest.fixture(scope="module")
def repeated(overlapping: Overlapping) -> Pass:
    today = overlapping.afterwards.metadata["exchange_rates"]["rows_read"]
    platform = overlapping.afterwards.platform
    platform.run_all(*DAYS)
    found = look(platform)
    if found.metadata["exchange_rates"]["rows_read"] != today:
        pytest.skip("midnight has passed, so there is a new exchange rate")
    return found


@pytest.fixture(scope="module")
def invalid(repeated: Pass) -> Pass:
    """One customer's e-mail address is no longer valid, and an order was paid."""
    return after(repeated.platform, "nobody@", "paid")


@pytest.fixture(scope="module")
def valid(invalid: Pass) -> Pass:
    """The address is valid again, and the order was shipped."""
    return after(invalid.platform, "back@example.com", "shipped")


CUSTOMER, ORDER = 2, 1  # an order of another customer


def after(platform: Platform, email: str, status: str) -> Pass:
    platform.execute(
        "UPDATE public.customers SET email = %s, updated_at = now() WHERE customer_id = %s",
        email,
        CUSTOMER,
    )
    platform.execute(
        "UPDATE public.orders SET status = %s, updated_at = now() WHERE order_id = %s",
        status,
        ORDER,
    )
    platform.run_all(*DAYS)
    return look(platform)


@pytest.fixture(scope="module")
def by_night(valid: Pass) -> Pass:
    """Everything is derived again, as adaptive_schedule asks between 0 and 6 h."""
    platform = valid.platform
    platform.run("customers", run_config=scheduled(hour=4))
    full = {"ops": {"enriched_orders": {"config": {"mode": "FULL"}}}}
    platform.run("orders", tags=days(*DAYS), run_config=full)
    return look(platform)


@pytest.fixture(scope="module")
def by_day(by_night: Pass) -> Pass:
    by_night.platform.run("customers", run_config=scheduled(hour=8))
    return look(by_night.platform)


def scheduled(hour: int) -> Mapping[str, Any]:
    """The run configuration that adaptive_schedule asks for at an hour."""
    moment = dt.datetime(2025, 7, 1, hour, tzinfo=dt.UTC)
    request = adaptive_schedule(dg.build_schedule_context(scheduled_execution_time=moment))
    assert isinstance(request, dg.RunRequest)
    return request.run_config


def counts(
    *,
    inserted: int = 0,
    updated: int = 0,
    deleted: int = 0,
    unchanged: int = 0,
    read: int | None = None,
) -> dict[str, int]:
    written = inserted + updated + unchanged
    return {
        "read": written if read is None else read,
        "inserted": inserted,
        "updated": updated,
        "deleted": deleted,
        "unchanged": unchanged,
    }


NOTHING = counts()


def test_an_open_transaction_holds_the_watermark_back(overlapping: Overlapping) -> None:
    for asset in ("raw_customers", "raw_orders", "incremental_orders"):
        watermark = overlapping.meanwhile.metadata[asset]["watermark"]
        assert dt.datetime.fromisoformat(watermark) == overlapping.began


def test_only_the_change_is_ingested(overlapping: Overlapping) -> None:
    found, again = overlapping.meanwhile, overlapping.settled
    orders = counts(inserted=350, unchanged=again["orders"])
    assert found.counts("raw_customers") == counts(updated=700, unchanged=again["customers"])
    assert found.counts("raw_orders") == orders
    assert found.counts("incremental_orders") == orders
    assert found.counts("exchange_rates")["unchanged"] == 24  # of the last 7 days and today
    for asset in ("raw_customer_files", "rejected_rows", "loaded_files"):
        assert found.counts(asset) == NOTHING


def test_what_is_committed_late_is_ingested_too(overlapping: Overlapping) -> None:
    found = overlapping.afterwards
    orders = counts(inserted=150, unchanged=350)
    assert found.counts("raw_customers") == counts(updated=300, unchanged=700)
    assert found.counts("raw_orders") == orders
    assert found.counts("incremental_orders") == orders


@pytest.mark.parametrize("part", ["late", "prompt"])
def test_only_the_change_is_derived(
    overlapping: Overlapping, changes: tuple[Change, Change], part: str
) -> None:
    change = changes[part == "prompt"]
    found = overlapping.meanwhile if part == "prompt" else overlapping.afterwards
    renamed, touched, added = len(change.renamed), len(change.customers), len(change.buyers)
    theirs = found.content("ingestion.raw_orders")
    of_touched = theirs.filter(pl.col("customer_id").is_in(change.customers)).height
    of_renamed = theirs.filter(pl.col("customer_id").is_in(change.renamed)).height
    enriched = of_renamed + len(set(change.buyers) - set(change.renamed))
    newest = theirs.filter(pl.col("order_date") >= dt.date(2025, 6, 25)).height
    metrics = found.rows("customers.customer_metrics").height

    assert found.counts("clean_customers") == counts(updated=renamed)
    assert found.counts("rejected_customers") == counts(read=renamed)
    assert found.counts("customer_metrics") == counts(read=touched + of_touched, updated=touched)
    assert found.counts("customer_metrics_serving") == counts(
        updated=touched, unchanged=metrics - touched
    )
    assert found.counts("enriched_orders") == counts(inserted=added, updated=enriched - added)
    assert found.counts("daily_order_summary") == counts(read=newest, updated=5)
    assert found.counts("sales_daily_summary") == counts(
        read=theirs.height, updated=5, unchanged=541
    )


def test_the_change_is_there(overlapping: Overlapping, changes: tuple[Change, Change]) -> None:
    found = overlapping.afterwards
    renamed = pl.col("email").str.starts_with("new.")
    ids = sorted(number for change in changes for number in change.renamed)
    for table in ("customers.clean_customers", "customers.customer_metrics"):
        assert found.rows(table).filter(renamed)["customer_id"].sort().to_list() == ids
    added = pl.col("order_id") > 80_000
    for table in ("ingestion.raw_orders", "ingestion.incremental_orders", "orders.enriched_orders"):
        assert found.rows(table).filter(added)["order_id"].n_unique() == 500
        assert found.rows(table).height == 69_659 + 500


def test_what_nothing_changed_writes_no_snapshot(overlapping: Overlapping, repeated: Pass) -> None:
    assert repeated.snapshots == overlapping.afterwards.snapshots
    assert repeated.data_versions == overlapping.afterwards.data_versions
    served = repeated.served.height
    assert repeated.counts("customer_metrics_serving") == counts(unchanged=served)


def test_a_customer_with_an_invalid_address_leaves(repeated: Pass, invalid: Pass) -> None:
    for table in OF_CLEAN_CUSTOMERS:
        others = repeated.content(table).filter(pl.col("customer_id") != CUSTOMER)
        assert_frame_equal(invalid.content(table), others)
        assert invalid.rows(table).height == repeated.rows(table).height - 1
    rejected = invalid.rows("customers.rejected_customers")
    assert rejected.height == repeated.rows("customers.rejected_customers").height + 1
    [row] = rejected.filter(pl.col("customer_id") == CUSTOMER).to_dicts()
    assert (row["email"], row["reason"]) == ("nobody@", "email has no domain")
    theirs = invalid.rows("orders.enriched_orders").filter(pl.col("customer_id") == CUSTOMER)
    assert theirs.select("customer_known", "email").unique().rows() == [(False, None)]


def test_only_that_customer_is_read_and_removed(invalid: Pass) -> None:
    assert invalid.counts("clean_customers") == counts(read=1, deleted=1)
    assert invalid.metadata["clean_customers"]["rows_rejected"] == 1
    assert invalid.counts("rejected_customers") == counts(inserted=1)
    served = counts(read=invalid.served.height, deleted=1, unchanged=invalid.served.height)
    assert invalid.counts("customer_metrics_serving") == served


def test_a_customer_whose_address_is_valid_again_comes_back(repeated: Pass, valid: Pass) -> None:
    changed = ("email", "updated_at")
    for table in (*OF_CLEAN_CUSTOMERS, "customers.rejected_customers"):
        assert_frame_equal(
            valid.content(table).drop(changed, strict=False),
            repeated.content(table).drop(changed, strict=False),
            check_row_order=False,
        )
    for table in ("customers.customer_metrics", "orders.enriched_orders"):
        theirs = valid.rows(table).filter(pl.col("customer_id") == CUSTOMER)
        assert theirs["email"].unique().to_list() == ["back@example.com"]


@pytest.mark.parametrize("name", ["first", "repeated", "invalid", "valid", "by_night"])
def test_the_serving_copy_follows(name: str, request: pytest.FixtureRequest) -> None:
    found: Pass = request.getfixturevalue(name)
    metrics = found.rows("customers.customer_metrics")
    assert_frame_equal(found.served, metrics, check_row_order=False)


def test_every_version_of_an_order_is_logged_once(valid: Pass) -> None:
    log = valid.rows("ingestion.incremental_orders")
    assert log.select("order_id", "updated_at").is_unique().all()
    versions = log.filter(pl.col("order_id") == ORDER).sort("updated_at")
    assert versions["status"].to_list() == ["paid", "paid", "shipped"]
    assert log.height == 69_659 + 500 + 2
    current = valid.rows("ingestion.raw_orders").filter(pl.col("order_id") == ORDER)
    assert current["status"].to_list() == ["shipped"]


def test_a_full_run_makes_the_same(valid: Pass, by_night: Pass) -> None:
    assert by_night.counts("clean_customers")["read"] == 23_570 + 1_128
    assert by_night.counts("enriched_orders") == counts(unchanged=69_659 + 500)
    for table in DERIVED:
        assert_frame_equal(by_night.content(table), valid.content(table))
    for asset in ("customer_metrics", "customer_clv", "enriched_orders", "sales_daily_summary"):
        assert by_night.data_versions[asset] == valid.data_versions[asset]


def test_after_a_full_run_the_next_one_has_nothing_to_do(by_night: Pass, by_day: Pass) -> None:
    assert by_day.counts("clean_customers") == NOTHING
    assert by_day.counts("rejected_customers") == NOTHING
    for table in DERIVED:
        assert_frame_equal(by_day.content(table), by_night.content(table))


def test_extraction_again_since_a_moment_or_in_full(by_day: Pass) -> None:
    """Both find what was changed without a new time stamp, which incremental runs cannot see."""
    platform = by_day.platform
    orders = platform.rows("ingestion.raw_orders").sort("updated_at", descending=True)
    newer, older = orders["order_id"][1_000], orders["order_id"][50_000]
    since = orders["updated_at"][2_000]
    ids = [newer, older]
    platform.execute("UPDATE public.orders SET quantity = 1000 WHERE order_id = ANY(%s)", ids)

    assert corrected(platform, {}) == []
    assert corrected(platform, {"since": since.isoformat()}) == [newer]
    read = orders.filter(pl.col("updated_at") >= since).height
    assert rows_read(platform) == read
    assert corrected(platform, {"mode": "full"}) == sorted(ids)
    assert rows_read(platform) == orders.height


def rows_read(platform: Platform) -> int:
    return int(platform.metadata("raw_orders")["rows_read"])


def corrected(platform: Platform, config: Mapping[str, Any]) -> list[int]:
    """Which orders have the corrected quantity after raw_orders was extracted."""
    platform.run(
        "ingestion",
        asset_selection=[dg.AssetKey("raw_orders")],
        run_config={"ops": {"raw_orders": {"config": config}}},
    )
    rows = platform.rows("ingestion.raw_orders")
    assert rows.height == 69_659 + 500
    return rows.filter(pl.col("quantity") == 1000)["order_id"].sort().to_list()
