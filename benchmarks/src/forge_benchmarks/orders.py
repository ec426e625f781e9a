"""The table that is extracted: orders with a key, a time stamp, text and money."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge_benchmarks.place import execute
from forge_platform import SourceTable

_COLUMNS = {
    "order_id": "bigint",
    "customer_id": "bigint",
    "updated_at": "timestamptz",
    "status": "text",
    "amount": "numeric(12,2)",
}
QUERY = "SELECT order_id, customer_id, updated_at, status, amount FROM {table}"


def table(rows: int, columns: int) -> str:
    """The name of the table with so many rows and extra columns."""
    return f"orders_{rows}_{columns}"


def name(parameters: Mapping[str, Any]) -> str:
    """The name of the table that the parameters ask for."""
    return table(parameters["rows"], parameters.get("extra_columns", 0))


def source(parameters: Mapping[str, Any]) -> SourceTable:
    """The table as extraction knows it."""
    extra = {f"extra_{number}": "bigint" for number in range(parameters.get("extra_columns", 0))}
    return SourceTable("public", name(parameters), {**_COLUMNS, **extra}, key=("order_id",))


def prepare(parameters: Mapping[str, Any]) -> None:
    """Makes the table when it is not there."""
    made = name(parameters)
    if execute(f"SELECT 1 FROM pg_tables WHERE tablename = '{made}'"):  # noqa: S608
        return
    extra = "".join(f", g + {n} AS extra_{n}" for n in range(parameters.get("extra_columns", 0)))
    execute(
        f"CREATE TABLE {made} AS SELECT g::bigint AS order_id,"  # noqa: S608
        " (hashint8(g) & 1048575)::bigint AS customer_id,"
        " timestamptz '2024-01-01' + g * interval '1 second' AS updated_at,"
        " (array['paid', 'shipped', 'cancelled', 'pending'])[1 + (hashint8(g + 1) & 3)] AS status,"
        f" ((hashint8(g + 2) & 16777215) / 100.0)::numeric(12,2) AS amount{extra}"
        f" FROM generate_series(1::bigint, {parameters['rows']}) AS g"
    )
    execute(f"ALTER TABLE {made} ADD PRIMARY KEY (order_id)")
    execute(f"CREATE INDEX ON {made} (updated_at)")
    execute(f"ANALYZE {made}")
