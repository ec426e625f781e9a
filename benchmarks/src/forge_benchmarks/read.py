"""Reading a table that was merged on read: everybody leaves out the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from forge_benchmarks import merge, spark
from forge_benchmarks.place import ROOT
from forge_benchmarks.ways import Benchmark, Role, Watch, Way

Facts = Mapping[str, Any]
_COLUMNS = ("customer_id", "updated_at")


def prepare(parameters: Facts) -> None:
    """Makes the table, and merges changes into it on read."""
    merge.prepare(parameters)
    merge.ours(on_read=True)(Watch(), parameters)


def floor(watch: Watch, parameters: Facts) -> Facts:
    """Reads the columns of all data files, deleted rows too."""
    import pyarrow.parquet as pq

    from forge_platform.iceberg.view import current_snapshot_id, files

    table = merge.table(parameters)
    paths = [path.removeprefix("file://") for path in files(table, current_snapshot_id(table))]
    with watch.running():
        read = [pq.read_table(path, columns=list(_COLUMNS)).num_rows for path in paths]
    return {"rows in files": sum(read)}


def ours_lazily(watch: Watch, parameters: Facts) -> Facts:
    """As an asset reads it."""
    view = merge.view(parameters)
    with watch.running():
        rows = view.scan().select(_COLUMNS).collect()
    return merge.facts(rows)


def ours_streamed(watch: Watch, parameters: Facts) -> Facts:
    """As an asset reads it in bounded memory; all columns."""
    import polars as pl

    view = merge.view(parameters)
    with watch.running():
        parts = [pl.DataFrame(pl.from_arrow(b.select(list(_COLUMNS)))) for b in view.batches()]
    return merge.facts(pl.concat(parts))


def pyiceberg_scan(watch: Watch, parameters: Facts) -> Facts:
    """Pyiceberg's own scan."""
    import polars as pl

    table = merge.table(parameters)
    with watch.running():
        rows = table.scan(selected_fields=_COLUMNS).to_arrow()
    return merge.facts(pl.DataFrame(pl.from_arrow(rows)))


def duckdb_scan(watch: Watch, parameters: Facts) -> Facts:
    """DuckDB's Iceberg reader, on the metadata file."""
    import duckdb
    import polars as pl

    location = merge.table(parameters).metadata_location.removeprefix("file://")
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
        for name in ("avro", "iceberg"):
            connection.load_extension(_extension(name))
        connection.execute("SET TimeZone = 'UTC'")
        query = f"SELECT {', '.join(_COLUMNS)} FROM iceberg_scan(?)"  # noqa: S608
        with watch.running():
            rows = connection.execute(query, [location]).to_arrow_table()
    return merge.facts(pl.DataFrame(pl.from_arrow(rows)))


def spark_scan(watch: Watch, parameters: Facts) -> Facts:
    """Spark, which sums up instead of handing over rows; the start of the JVM is left out."""
    folder = ROOT / "tables" / merge.name(parameters)
    sums = "count(*), sum(customer_id), sum(CAST(unix_micros(updated_at) AS DECIMAL(38, 0)))"
    query = f"SELECT {sums} FROM default.{merge.TABLE}"  # noqa: S608
    with spark.session(folder, f"{folder}/catalog.db") as session, watch.running():
        rows, keys, updated = session.sql(query).collect()[0]
    return {"rows": rows, "keys": keys, "updated": int(updated)}


def _extension(name: str) -> str:
    import duckdb

    spec = find_spec(f"duckdb_extension_{name}")
    [folder] = (spec.submodule_search_locations if spec else None) or [""]
    version = Path(folder) / "extensions" / f"v{duckdb.__version__}"
    return str(version / f"{name}.duckdb_extension")


BENCHMARK = Benchmark(
    "read",
    "Read two columns of customers that were merged on read",
    [
        Way("read the columns of the files, deleted rows too", Role.FLOOR, floor),
        Way("forge-platform, lazily", Role.OURS, ours_lazily),
        Way("forge-platform, streamed, all columns", Role.OURS, ours_streamed),
        Way("pyiceberg scan", Role.PEER, pyiceberg_scan),
        Way("DuckDB iceberg_scan", Role.PEER, duckdb_scan),
        Way("Spark, without JVM start", Role.PEER, spark_scan),
    ],
    prepare=prepare,
)
