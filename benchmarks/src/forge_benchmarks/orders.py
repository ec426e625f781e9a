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


def columns(parameters: Mapping[str, Any]) -> Mapping[str, str]:
    """So many columns as the parameters ask for, else the five that a table of orders has."""
    count = parameters.get("columns", len(_COLUMNS))
    if count == 1:
        return {"updated_at": _COLUMNS["updated_at"]}
    return {**_COLUMNS, **{f"extra_{n}": "bigint" for n in range(count - len(_COLUMNS))}}


def name(parameters: Mapping[str, Any]) -> str:
    """The name of the table that the parameters ask for."""
    return f"orders_{parameters['rows']}_{max(0, len(columns(parameters)) - len(_COLUMNS))}"


def query(parameters: Mapping[str, Any]) -> str:
    """The query of all these columns."""
    return f"SELECT {', '.join(columns(parameters))} FROM {name(parameters)}"  # noqa: S608


def source(parameters: Mapping[str, Any]) -> SourceTable:
    """The table as extraction knows it."""
    found = columns(parameters)
    key = ("order_id",) if "order_id" in found else ()
    return SourceTable("public", name(parameters), found, key=key)


def prepare(parameters: Mapping[str, Any]) -> None:
    """Makes the table when it is not there."""
    made = name(parameters)
    if execute(f"SELECT 1 FROM pg_tables WHERE tablename = '{made}'"):  # noqa: S608
        return
    added = [column for column in columns(parameters) if column.startswith("extra_")]
    extra = "".join(f", g + {n} AS {column}" for n, column in enumerate(added))
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
