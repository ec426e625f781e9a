"""Merging changed rows into an Iceberg table of customers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from forge_benchmarks import checksum, spark
from forge_benchmarks.place import ROOT, iceberg
from forge_benchmarks.ways import Benchmark, Role, Watch, Way

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    from pyiceberg.table import Table

    from forge_platform.iceberg.view import IcebergView

Facts = Mapping[str, Any]
TABLE = "bench.customers"
_COLUMNS = {
    "customer_id": "bigint",
    "email": "text",
    "first_name": "text",
    "last_name": "text",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
}
_INSERTED = 0.2
_HOT = 0.05  # share of the keys that all updates are in, where they are in one range


def customers(ids: pl.Series, version: int) -> pl.DataFrame:
    """Rows that do not compress to nothing, made of their keys."""
    import polars as pl

    key = pl.col("customer_id")
    return pl.DataFrame({"customer_id": ids.cast(pl.Int64)}).select(
        key,
        email=pl.format("{}@example.org", key * 2654435761 % 4294967291),
        first_name=pl.format("First{}", key * 40503 % 5003),
        last_name=pl.format("Last{}", key * 69069 % 70001),
        created_at=(1_600_000_000_000_000 + key * 1103515245 % 10**14).cast(
            pl.Datetime("us", "UTC")
        ),
        updated_at=(1_710_000_000_000_000 + version * 86_400_000_000 + key).cast(
            pl.Datetime("us", "UTC")
        ),
    )


def changes(parameters: Facts) -> pl.DataFrame:
    """The changed rows: 80 % updates, in a hot range of keys or everywhere, 20 % inserts."""
    import polars as pl

    rows, count = parameters["rows"], parameters["changes"]
    inserted = int(count * _INSERTED)
    updated = count - inserted
    width = max(updated, int(rows * _HOT)) if parameters["keys"] == "hot" else rows
    chosen = pl.int_range(rows - width, rows, eager=True).sample(updated, seed=1)
    return customers(pl.concat([chosen.sort(), pl.int_range(rows, rows + inserted, eager=True)]), 1)


def prepare(parameters: Facts) -> None:
    """Makes the table of so many rows when it is not there."""
    import polars as pl
    import pyarrow as pa

    from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table

    resource = iceberg(name(parameters))
    if resource.find(TABLE) is not None:
        return
    rows, step = parameters["rows"], 500_000
    schema = customers(pl.Series([0]), 0).to_arrow(compat_level=pl.CompatLevel.oldest()).schema

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(0, rows, step):
            ids = pl.int_range(first, min(first + step, rows), eager=True)
            made = customers(ids, 0).to_arrow(compat_level=pl.CompatLevel.oldest())
            yield from made.to_batches()

    request = WriteRequest(
        rows=pa.RecordBatchReader.from_batches(schema, batches()), mode="overwrite"
    )
    write_table(resource.catalog(), TABLE, request, TableOptions(key=("customer_id",)))


def floor(watch: Watch, parameters: Facts) -> Facts:
    """Reads and writes the files that hold a changed row, with one thread."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from forge_platform.iceberg.view import current_snapshot_id, files

    table = _fresh(parameters)
    keys = changes(parameters)["customer_id"]
    paths = [path.removeprefix("file://") for path in files(table, current_snapshot_id(table))]
    touched = [path for path in paths if _holds(path, keys)]
    pa.set_cpu_count(1)
    written = ROOT / "floor.parquet"
    with watch.running():
        for path in touched:
            rows = pq.read_table(path, use_threads=False)
            pq.write_table(rows, written, compression="zstd")
    return {"megabytes": round(sum(_size(path) for path in touched) / 1e6)}


def ours(*, on_read: bool) -> Callable[[Watch, Facts], Facts]:
    """As an asset's run does it."""

    def run(watch: Watch, parameters: Facts) -> Facts:
        from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table

        table, rows = _fresh(parameters), changes(parameters)
        catalog = iceberg(name(parameters)).catalog()
        options = TableOptions(key=("customer_id",), order_by="updated_at", on_read=on_read)
        with watch.running():
            write_table(catalog, TABLE, WriteRequest(rows=rows, mode="merge"), options)
        return _facts(table)

    return run


def pyiceberg_upsert(watch: Watch, parameters: Facts) -> Facts:
    """Pyiceberg's own upsert."""
    table = _fresh(parameters)
    rows = changes(parameters).to_arrow().cast(table.schema().as_arrow())
    with watch.running():
        table.upsert(rows, join_cols=["customer_id"])
    return _facts(table)


def dagster_iceberg_upsert(watch: Watch, parameters: Facts) -> Facts:
    """A run of an asset that dagster-iceberg writes with its mode upsert."""
    import dagster as dg
    from dagster_iceberg.config import IcebergCatalogConfig
    from dagster_iceberg.io_manager.arrow import PyArrowIcebergIOManager

    table = _fresh(parameters)
    rows = changes(parameters).to_arrow().cast(table.schema().as_arrow())
    folder = ROOT / "tables" / name(parameters)
    address = {"uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}"}
    manager = PyArrowIcebergIOManager(
        name="default", config=IcebergCatalogConfig(properties=address), namespace="bench"
    )
    options = {
        "join_cols": ["customer_id"],
        "when_matched_update_all": True,
        "when_not_matched_insert_all": True,
    }

    @dg.asset(name="customers", metadata={"write_mode": "upsert", "upsert_options": options})
    def changed():  # type: ignore[no-untyped-def]  # noqa: ANN202 - dagster would look the type up
        return rows

    with watch.running():
        dg.materialize([changed], resources={"io_manager": manager})
    return _facts(table)


def spark_merge(watch: Watch, parameters: Facts) -> Facts:
    """Spark's MERGE INTO, on the same catalog; the start of the JVM is left out."""
    table = _fresh(parameters)
    folder = ROOT / "tables" / name(parameters)
    changed = ROOT / "changes.parquet"
    changes(parameters).write_parquet(changed)
    with spark.session(folder, f"{folder}/catalog.db") as session:
        session.read.parquet(str(changed)).createOrReplaceTempView("changes")
        with watch.running():
            session.sql(
                f"MERGE INTO default.{TABLE} AS t USING changes AS c "
                "ON t.customer_id = c.customer_id "
                "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
            )
    table.refresh()
    return _facts(table)


def dlt_merge(watch: Watch, parameters: Facts) -> Facts:
    """Dlt's merge with its upsert strategy, into a table of its own."""
    import os

    import dlt

    folder = ROOT / "tables" / "dlt_merge"
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["DLT_DATA_DIR"] = str(folder / "state")
    pipeline = dlt.pipeline(
        "merge",
        destination=dlt.destinations.filesystem(bucket_url=f"file://{folder}/tables"),
        dataset_name="bench",
        pipelines_dir=str(folder / "runs"),
    )
    strategy = {"disposition": "merge", "strategy": "upsert"}
    options = {"table_name": "customers", "table_format": "iceberg", "primary_key": "customer_id"}
    before = _fresh(parameters).scan().to_arrow()
    pipeline.run(before, write_disposition="replace", **options)
    rows = changes(parameters).to_arrow().cast(before.schema)
    with watch.running():
        pipeline.run(rows, write_disposition=strategy, **options)
    return checksum.facts(checksum.newest(folder / "tables/bench/customers/metadata"), _COLUMNS)


def name(parameters: Facts) -> str:
    """The catalog that has the table of so many rows."""
    return f"customers_{parameters['rows']}"


def view(parameters: Facts) -> IcebergView:
    """The table as it is now."""
    return iceberg(name(parameters)).view(TABLE)


def table(parameters: Facts) -> Table:
    """The same, as pyiceberg has it."""
    return view(parameters).table


def _fresh(parameters: Facts) -> Table:
    """The table as it was made: what a way commits is taken back by the next one."""
    table = view(parameters).table
    first = table.metadata.snapshots[0].snapshot_id
    current = table.current_snapshot()
    if current is not None and current.snapshot_id != first:
        table.manage_snapshots().rollback_to_snapshot(first).commit()
        for snapshot in table.metadata.snapshots[1:]:
            with suppress(Exception):
                table.maintenance.expire_snapshots().by_id(snapshot.snapshot_id).commit()
    return table


def _holds(path: str, keys: pl.Series) -> bool:
    import polars as pl

    return bool(
        pl.read_parquet(path, columns=["customer_id"])["customer_id"].is_in(keys.implode()).any()
    )


def _size(path: str) -> int:
    from pathlib import Path

    return Path(path).stat().st_size


def _facts(table: Table) -> Facts:
    return checksum.facts(table.refresh(), _COLUMNS)


def facts(rows: pl.DataFrame) -> Facts:
    """Rows, and sums of key and time stamp: the same for everybody who merged and reads right."""
    import polars as pl

    return {
        "rows": rows.height,
        "keys": rows["customer_id"].sum(),
        "updated": rows["updated_at"].to_physical().cast(pl.Int128).sum(),
    }


def _benchmark(keys: str, goals: Mapping[str, float]) -> Benchmark:
    where = "in one range of keys" if keys == "hot" else "spread over all keys"
    return Benchmark(
        f"merge-{keys}",
        f"Merge changes into customers, updates {where}",
        [
            Way("read and write the touched files", Role.FLOOR, floor),
            Way("forge-platform, copy-on-write", Role.OURS, ours(on_read=False)),
            Way("forge-platform, merge-on-read", Role.OURS, ours(on_read=True)),
            Way("Spark MERGE INTO, without JVM start", Role.PEER, spark_merge),
            Way("pyiceberg upsert", Role.PEER, pyiceberg_upsert),
            Way("dagster-iceberg upsert", Role.PEER, dagster_iceberg_upsert),
            Way("dlt merge", Role.PEER, dlt_merge, slow=True),
        ],
        prepare=prepare,
        goals=goals,
    )


HOT = _benchmark("hot", {"forge-platform, copy-on-write": 1.2})
SPREAD = _benchmark(
    "spread", {"forge-platform, copy-on-write": 0.8, "forge-platform, merge-on-read": 0.15}
)
