"""What other engines read of the tables, from the metadata file on.

They have Iceberg readers of their own: DuckDB in C++, DataFusion in Rust.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import duckdb
import polars as pl
import pytest
from datafusion import SessionContext
from polars.testing import assert_frame_equal
from pyiceberg.catalog import Catalog
from pyiceberg.types import LongType, StringType
from pyiceberg_core.datafusion import IcebergDataFusionTable

from forge_platform.iceberg.catalog import open_catalog
from forge_platform.iceberg.maintenance.compaction import Compaction, compact
from forge_platform.iceberg.pruning import Scope
from forge_platform.iceberg.view import IcebergView, current_snapshot_id
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table

TABLE = "space.things"
START = dt.date(2024, 1, 1)
PLAIN = TableOptions(key=("id",), order_by="at")
DAILY = replace(PLAIN, partition_by="day", granularity="day")
MONTHLY = replace(PLAIN, partition_by="day", granularity="month")
BY_VALUE = replace(PLAIN, partition_by="name")


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(f"sqlite:///{tmp_path}/catalog.db", f"file://{tmp_path}/tables", {})


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
        for name in ("avro", "iceberg"):
            spec = find_spec(f"duckdb_extension_{name}")
            assert spec is not None
            [folder] = spec.submodule_search_locations or []
            version = Path(folder) / "extensions" / f"v{duckdb.__version__}"
            connection.load_extension(str(version / f"{name}.duckdb_extension"))
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def batch(chance: random.Random, step: int, size: int) -> pl.DataFrame:
    ids = chance.sample(range(1000), size)
    return pl.DataFrame(
        {
            "id": ids,
            "at": [dt.datetime(2024, 1, 1, step, tzinfo=dt.UTC)] * size,
            "day": [START + dt.timedelta(days=number % 40) for number in ids],
            "name": [chance.choice(("a", "b", None)) for _ in ids],
            "price": [Decimal(chance.randrange(10**6)) / 100 for _ in ids],
        },
        schema_overrides={"price": pl.Decimal(12, 2), "at": pl.Datetime("us", "UTC")},
    )


def ours(catalog: Catalog, snapshot_id: int | None = None) -> pl.DataFrame:
    table = catalog.load_table(TABLE)
    return IcebergView(table, TABLE, snapshot_id or current_snapshot_id(table)).read().sort("id")


def in_duckdb(
    engine: duckdb.DuckDBPyConnection, catalog: Catalog, snapshot_id: int | None = None
) -> pl.DataFrame:
    location = catalog.load_table(TABLE).metadata_location.removeprefix("file://")
    current = snapshot_id or current_snapshot_id(catalog.load_table(TABLE))
    query = "SELECT * FROM iceberg_scan(?, snapshot_from_id => ?) ORDER BY id"
    found = engine.execute(query, [location, current])
    return pl.DataFrame(pl.from_arrow(found.to_arrow_table()))


def in_rust(catalog: Catalog) -> pl.DataFrame:
    table = catalog.load_table(TABLE)
    session = SessionContext()
    provider = IcebergDataFusionTable(list(table.name()), table.metadata_location, {})
    session.register_table("things", provider)
    found = session.sql("SELECT * FROM things ORDER BY id").to_arrow_table()
    return pl.DataFrame(pl.from_arrow(found))


def assert_all_read_the_same(engine: duckdb.DuckDBPyConnection, catalog: Catalog) -> None:
    expected = ours(catalog)
    assert_frame_equal(in_duckdb(engine, catalog), expected, check_dtypes=False)
    assert_frame_equal(in_rust(catalog), expected, check_dtypes=False)


@pytest.mark.parametrize("on_read", [False, True], ids=["copy on write", "merge on read"])
@pytest.mark.parametrize(
    "options", [PLAIN, DAILY, MONTHLY, BY_VALUE], ids=["plain", "daily", "monthly", "by value"]
)
def test_others_read_the_same_rows(
    catalog: Catalog, engine: duckdb.DuckDBPyConnection, options: TableOptions, *, on_read: bool
) -> None:
    chance = random.Random(11)
    written = replace(options, on_read=on_read)
    snapshots = []
    for step, size in enumerate((600, 40, 5, 80)):
        deleted = pl.DataFrame({"id": chance.sample(range(1000), 20)})
        request = WriteRequest(
            rows=batch(chance, step, size), mode="merge", deleted_keys=deleted if step else None
        )
        snapshots.append(write_table(catalog, TABLE, request, written).snapshot_id)
        assert_all_read_the_same(engine, catalog)
    assert has_deletes(catalog) == on_read
    for snapshot in snapshots:
        assert_frame_equal(
            in_duckdb(engine, catalog, snapshot), ours(catalog, snapshot), check_dtypes=False
        )
    before = ours(catalog)
    compact(
        catalog.load_table(TABLE),
        Compaction(small_bytes=10**6, group_bytes=10**7, min_files=2, deleted_fraction=0),
    )
    assert_frame_equal(ours(catalog), before)
    assert_all_read_the_same(engine, catalog)


def test_others_read_added_columns_and_replaced_partitions(
    catalog: Catalog, engine: duckdb.DuckDBPyConnection
) -> None:
    chance = random.Random(3)
    rows = batch(chance, 0, 500)
    write_table(catalog, TABLE, WriteRequest(rows=rows, mode="merge"), DAILY)
    window = tuple(dt.datetime(2024, 1, day, tzinfo=dt.UTC) for day in (3, 5))
    scope = Scope("day", (window[0], window[1]))
    wider = rows.filter(scope.predicate(rows.schema)).head(5).with_columns(extra=pl.lit("new"))
    write_table(catalog, TABLE, WriteRequest(rows=wider, mode="append", scope=scope), DAILY)
    assert ours(catalog)["extra"].drop_nulls().len() == 5
    assert_all_read_the_same(engine, catalog)


def nested(ids: Sequence[int], *, quantity: pl.DataType) -> pl.DataFrame:
    """Lists, structs and both in each other; empty, NULL, and with NULL inside."""
    line = pl.Struct({"sku": pl.String, "quantity": quantity})
    values = [
        ([{"sku": "a", "quantity": 1}, {"sku": None, "quantity": None}], ["x", None], {"zip": "1"}),
        ([], [], {"zip": None}),
        (None, None, None),
    ]
    rows = [(number, *values[number % 3]) for number in ids]
    kinds = {
        "id": pl.Int64(),
        "lines": pl.List(line),
        "tags": pl.List(pl.String()),
        "address": pl.Struct({"zip": pl.String()}),
    }
    return pl.DataFrame(rows, schema=kinds, orient="row")


@pytest.mark.parametrize("on_read", [False, True], ids=["copy on write", "merge on read"])
def test_duckdb_reads_nested_columns_of_a_table_that_changed(
    catalog: Catalog, engine: duckdb.DuckDBPyConnection, *, on_read: bool
) -> None:
    options = TableOptions(key=("id",), on_read=on_read)

    def merge(rows: pl.DataFrame) -> None:
        write_table(catalog, TABLE, WriteRequest(rows=rows, mode="merge"), options)
        assert_frame_equal(in_duckdb(engine, catalog), ours(catalog), check_dtypes=False)

    merge(nested(range(90), quantity=pl.Int32()))
    merge(
        nested(range(60, 120), quantity=pl.Int32()).with_columns(
            tags=pl.lit(None, pl.List(pl.String))
        )
    )
    with catalog.load_table(TABLE).update_schema() as update:
        update.rename_column("tags", "labels")
        update.update_column(("lines", "element", "quantity"), LongType())
        update.add_column(("address", "city"), StringType())
    later = nested(range(100, 130), quantity=pl.Int64()).rename({"tags": "labels"})
    city = pl.struct(pl.col("address").struct.field("zip"), pl.lit("Bern").alias("city"))
    merge(later.with_columns(city.alias("address")))
    compact(
        catalog.load_table(TABLE),
        Compaction(small_bytes=10**6, group_bytes=10**7, min_files=2, deleted_fraction=0),
    )
    assert_frame_equal(in_duckdb(engine, catalog), ours(catalog), check_dtypes=False)


def has_deletes(catalog: Catalog) -> bool:
    snapshot = catalog.load_table(TABLE).current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    return int(snapshot.summary["total-delete-files"] or 0) > 0
