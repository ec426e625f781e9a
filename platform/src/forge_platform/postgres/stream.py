"""Streams a query's rows as Arrow batches: binary COPY, read by DuckDB, never all in memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
from psycopg2 import extensions, sql

from forge_platform.errors import ConfigurationError, ForgeError, SourceSchemaError
from forge_platform.postgres.failures import unavailable

if TYPE_CHECKING:
    from forge_platform.resources.database import DatabaseResource

STREAM_NAME = "forge-platform stream"
"""The ``application_name`` of streaming sessions, which only read."""

_EXTENSION_PACKAGE = "duckdb_extension_postgres_scanner"
_NUMERIC = 1700
_CAN_BE_INFINITE = {1082, 1114, 1184}  # date, timestamp, timestamptz
# bool, bytea, bigint, smallint, integer, text, real, double precision, varchar, time
_EXACT = {16, 17, 20, 21, 23, 25, 700, 701, 1043, 1083} | _CAN_BE_INFINITE
_LARGEST_PRECISION = 38
_DATA_ERRORS = ("Invalid Input Error", "Conversion Error")


@dataclass(frozen=True)
class _Column:
    """A result column, and how its values arrive exactly or not at all.

    What Arrow has no exact type for comes as PostgreSQL's text: a numeric without precision
    would become a double. A numeric with precision goes through text, because DuckDB reads
    its NaN as 0; an infinite date would become a garbage one.
    """

    name: str
    oid: int
    precision: int
    scale: int

    @property
    def _is_decimal(self) -> bool:
        fits = 0 < self.precision <= _LARGEST_PRECISION and 0 <= self.scale <= self.precision
        return self.oid == _NUMERIC and fits

    def in_source(self) -> sql.Composable:
        """What PostgreSQL sends."""
        column = sql.Identifier(self.name)
        return column if self.oid in _EXACT else sql.SQL("{0}::text AS {0}").format(column)

    def in_result(self) -> sql.Composable:
        """What DuckDB makes of it."""
        column = sql.Identifier(self.name)
        if self._is_decimal:
            return sql.SQL("CAST({0} AS DECIMAL({1}, {2})) AS {0}").format(
                column, sql.Literal(self.precision), sql.Literal(self.scale)
            )
        if self.oid in _CAN_BE_INFINITE:
            return sql.SQL("CASE WHEN isinf({0}) THEN error({1}) ELSE {0} END AS {0}").format(
                column, sql.Literal(f"column {self.name} holds an infinite value")
            )
        return column


def stream(
    database: DatabaseResource, statement: sql.Composable, batch_rows: int
) -> pa.RecordBatchReader:
    """Opens a stream of a query's rows; see ``DatabaseResource.stream``."""
    source, result, attach = _statements(database, statement)
    engine = _engine(database)
    try:
        engine.execute(attach)
        reader = engine.execute(result, [source]).to_arrow_reader(batch_rows)
    except duckdb.Error as error:
        engine.close()
        raise _failure(str(error), database) from error
    batches = _batches(reader, engine, database)
    return pa.RecordBatchReader.from_batches(reader.schema, batches)


def _batches(
    reader: pa.RecordBatchReader, engine: duckdb.DuckDBPyConnection, database: DatabaseResource
) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (OSError, pa.ArrowException) as error:
        raise _failure(str(error), database) from error
    finally:
        engine.close()


def _statements(database: DatabaseResource, statement: sql.Composable) -> tuple[str, str, str]:
    """For PostgreSQL, for DuckDB, and to attach the one to the other."""
    with database.connect() as connection:
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("SELECT * FROM ({}) AS rows LIMIT 0").format(statement))
            columns = [
                _Column(field.name, field.type_code, field.precision or 0, field.scale or 0)
                for field in cursor.description or ()
            ]
        comma = sql.SQL(", ")
        source = sql.SQL("SELECT {} FROM ({}) AS rows").format(
            comma.join(column.in_source() for column in columns), statement
        )
        result = sql.SQL("SELECT {} FROM postgres_query('source', ?)").format(
            comma.join(column.in_result() for column in columns)
        )
        settings = database.settings(database.stream_timeout, STREAM_NAME)
        attach = sql.SQL("ATTACH {} AS source (TYPE postgres, READ_ONLY, SECRET source)").format(
            sql.Literal(extensions.make_dsn(**settings))
        )
        return (
            source.as_string(connection),
            result.as_string(connection),
            attach.as_string(connection),
        )


def _engine(database: DatabaseResource) -> duckdb.DuckDBPyConnection:
    """A DuckDB that knows the credentials as bound values: no statement or error shows them."""
    engine = duckdb.connect(
        ":memory:",
        config={"autoinstall_known_extensions": False, "allow_persistent_secrets": False},
    )
    engine.load_extension(str(_extension()))
    engine.execute("SET TimeZone = 'UTC'")
    engine.execute(
        "CREATE SECRET source (TYPE postgres, HOST $host, PORT $port, USER $user, "
        "PASSWORD $password, DATABASE $database)",
        {
            "host": database.host,
            "port": str(database.port),
            "user": database.user,
            "password": database.password,
            "database": database.database,
        },
    )
    return engine


def _extension() -> Path:
    """The extension's file in its wheel: nothing is downloaded while a pipeline runs."""
    package = importlib.util.find_spec(_EXTENSION_PACKAGE)
    folders = package.submodule_search_locations if package else None
    for folder in folders or ():
        version = Path(folder) / "extensions" / f"v{duckdb.__version__}"
        if (file := version / "postgres_scanner.duckdb_extension").exists():
            return file
    raise ConfigurationError(
        f"DuckDB {duckdb.__version__} has no postgres extension: install forge-platform[postgres], "
        "with duckdb and duckdb-extension-postgres-scanner in one version."
    )


def _failure(said: str, database: DatabaseResource) -> ForgeError:
    line = said.partition("\n\n")[0].strip()
    if line.startswith(_DATA_ERRORS):
        return SourceSchemaError(
            f"{database.address} sent a value that its column's type cannot hold here: {line}. "
            "Correct the value in the source, or read the column as text."
        )
    return unavailable(" ".join(line.split()), database)
