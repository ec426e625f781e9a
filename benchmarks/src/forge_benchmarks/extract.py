"""From PostgreSQL to Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from forge_benchmarks import orders
from forge_benchmarks.place import address, connect, url
from forge_benchmarks.ways import Benchmark, Role, Watch, Way

if TYPE_CHECKING:
    import pyarrow as pa

Facts = Mapping[str, Any]


def copy_on_server(watch: Watch, parameters: Facts) -> Facts:
    """The server reads and encodes every row, and sends none."""
    query = orders.query(parameters)
    with closing(connect()) as connection, connection.cursor() as cursor, watch.running():
        cursor.execute(f"COPY ({query}) TO '/dev/null' (FORMAT binary)")
    return {}


def ours(watch: Watch, parameters: Facts) -> Facts:
    """As an asset reads it, its queries for the position included."""
    import forge_platform.postgres.stream  # noqa: F401 - its import is not the work
    from forge_platform import DatabaseResource, ExtractConfig, extract
    from forge_platform.tables import Position

    database = DatabaseResource(**address())
    with watch.running():
        rows = extract(database, orders.source(parameters), ExtractConfig(), Position()).rows
        return checked(cast("pa.RecordBatchReader", rows))


def adbc(watch: Watch, parameters: Facts) -> Facts:
    """ADBC, streamed; it has no type for numeric, so the amount is cast as the text it sends."""
    from adbc_driver_postgresql import dbapi

    query = orders.query(parameters)
    with dbapi.connect(url()) as connection, connection.cursor() as cursor, watch.running():
        cursor.execute(query)
        return checked(cursor.fetch_record_batch())


def connectorx(watch: Watch, parameters: Facts) -> Facts:
    """connectorx, in two partitions."""
    import connectorx as cx

    query = orders.query(parameters)
    with watch.running():
        table = cx.read_sql(
            url(), query, return_type="arrow", partition_on="order_id", partition_num=2
        )
        return checked(table.to_batches())


def polars_engine(watch: Watch, parameters: Facts) -> Facts:
    """The guide's way: Polars over an SQLAlchemy engine."""
    import polars as pl
    from sqlalchemy import create_engine

    query = orders.query(parameters)
    engine = create_engine(url())
    with watch.running(), engine.connect() as connection:
        frame = pl.read_database(query, connection)
        return checked(frame.to_arrow().to_batches())


def pandas_engine(watch: Watch, parameters: Facts) -> Facts:
    """Pandas over an SQLAlchemy engine."""
    import pandas as pd
    import pyarrow as pa
    from sqlalchemy import create_engine

    query = orders.query(parameters)
    with watch.running(), create_engine(url()).connect() as connection:
        frame = pd.read_sql(query, connection)
        return checked(pa.Table.from_pandas(frame).to_batches())


def checked(batches: Iterable[pa.RecordBatch]) -> Facts:
    """Rows, and sums of key and amount: the same for everybody who lost nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = keys = 0
    amount = Decimal(0)
    for batch in batches:
        rows += batch.num_rows
        keys += pc.sum(batch.column("order_id")).as_py() or 0
        values = batch.column("amount")
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        if not pa.types.is_decimal(values.type):
            values = values.cast(pa.string()).cast(pa.decimal128(38, 10))
        amount += pc.sum(values).as_py() or 0
    return {"rows": rows, "keys": keys, "amount": f"{amount:.2f}"}


BENCHMARK = Benchmark(
    "extract",
    "Extract orders from PostgreSQL to Arrow",
    [
        Way("COPY binary on the server", Role.FLOOR, copy_on_server),
        Way("forge-platform", Role.OURS, ours),
        Way("connectorx, 2 partitions", Role.PEER, connectorx),
        Way("ADBC, streamed", Role.PEER, adbc),
        Way("pandas.read_sql", Role.PEER, pandas_engine),
        Way("the guide's way: polars.read_database", Role.PEER, polars_engine),
    ],
    prepare=orders.prepare,
    goals={"forge-platform": 1.3},
    most_mb=200,
)
