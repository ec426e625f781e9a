"""A PostgreSQL database as a Dagster resource."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from forge_platform.errors import PermanentError, SourceSchemaError

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.sql import Composable
    from sqlalchemy import URL, Engine
    from sqlalchemy import Connection as SqlConnection

    from forge_platform.postgres.stream import Snapshot

_NAME = "forge-platform"


class DatabaseResource(dg.ConfigurableResource["DatabaseResource"]):
    """A PostgreSQL database. Every session is in UTC, and no text of it holds the password."""

    host: str
    port: int = 5432
    user: str
    password: str = Field(repr=False)
    database: str
    connect_timeout: int = Field(default=10, description="Seconds until a server counts as away.")
    statement_timeout: int = Field(
        default=60, description="Seconds that a statement may take; 0 is no limit."
    )
    stream_timeout: int = Field(
        default=3600,
        description="Seconds that streaming a table in or out may take, with whatever the other "
        "end does meanwhile; 0 is no limit.",
    )
    stream_connections: int = Field(
        default=2, ge=1, description="Connections that a large table is read over at once."
    )

    @property
    def address(self) -> str:
        """The database as messages name it."""
        return f"PostgreSQL at {self.host}:{self.port} (database {self.database})"

    @property
    def connection_string(self) -> str:
        """URL with the password, for libraries that take one: never log it."""
        return self._url("postgresql").render_as_string(hide_password=False)

    def engine(self) -> "Engine":
        """An SQLAlchemy engine; it keeps no connection open and shows no bound values."""
        from sqlalchemy import create_engine, event
        from sqlalchemy.pool import NullPool

        engine = create_engine(
            self._url("postgresql+psycopg2"),
            connect_args=self.settings(),
            poolclass=NullPool,
            hide_parameters=True,
        )

        def begin(connection: "SqlConnection") -> None:
            connection.exec_driver_sql(self.session(self.statement_timeout))

        event.listen(engine, "begin", begin)
        return engine

    def query(self, statement: str, /, **values: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401
        """The rows of a query, all in memory, read in a transaction that cannot write.

        Args:
            statement: SQL with ``:name`` for every value.
            values: the values by name; they are bound, never part of the SQL.

        Raises:
            SourceUnavailable: the server is away, busy, or took too long.
            AuthenticationFailed: it refuses the user.
            SourceSchemaError: a table or column is missing; the nearest names are told.
            PermanentError: it refuses the statement.
        """
        import psycopg2
        from sqlalchemy import text
        from sqlalchemy.exc import StatementError

        try:
            with self.engine().connect() as connection:
                reading = connection.execution_options(postgresql_readonly=True)
                return [dict(row) for row in reading.execute(text(statement), values).mappings()]
        except StatementError as error:
            if isinstance(error.orig, psycopg2.Error):
                raise self._failure(error.orig) from error
            raise PermanentError(f"{self.address} was not asked: {error.orig}") from error

    def columns(self, schema: str, table: str) -> dict[str, str]:
        """Column name to PostgreSQL type, in the table's order.

        Raises:
            SourceSchemaError: there is no such table; the nearest ones are told.
        """
        from forge_platform.postgres.catalog import column_types

        with self.connect() as connection, connection.cursor() as cursor:
            found = column_types(cursor, schema, table)
        if not found:
            raise self._missing(schema, table)
        return found

    def stream(self, statement: "Composable", batch_rows: int = 32_768) -> "pa.RecordBatchReader":
        """The rows of a query as Arrow batches, read while they are consumed.

        Every value arrives exactly or not at all: ``timestamptz`` as UTC microseconds,
        ``numeric(p, s)`` as a decimal, and what Arrow has no exact type for (``numeric``
        without precision, ``uuid``, ``jsonb``, enumerations, arrays …) as PostgreSQL's text.
        The connection is closed after the last batch, on a failure, or with the reader.

        Args:
            statement: the query, its identifiers and values quoted by ``psycopg2.sql``.
            batch_rows: most rows in one batch.

        Raises:
            SourceUnavailable: the server is away, busy, or took too long; also while reading.
            AuthenticationFailed: it refuses the user.
            SourceSchemaError: a table or column is missing; or, while reading, a value has no
                exact counterpart (a decimal NaN, an infinite date).
            PermanentError: it refuses the statement.
        """
        with self.snapshot() as snapshot:
            return snapshot.stream([[statement]], batch_rows)

    def snapshot(self) -> "Snapshot":
        """One state of the database, for several queries and streams."""
        from forge_platform.postgres.stream import Snapshot

        return Snapshot(self)

    @contextmanager
    def connect(self, statement_timeout: int | None = None) -> "Iterator[Connection]":
        """One psycopg2 connection and transaction: committed at the end, else rolled back.

        Its failures, and those of the statements in the block, are the ones of ``query``.

        Args:
            statement_timeout: seconds, instead of the resource's own.
        """
        import psycopg2

        seconds = self.statement_timeout if statement_timeout is None else statement_timeout
        try:
            with closing(self.connection()) as connection, connection:
                with connection.cursor() as cursor:
                    cursor.execute(self.session(seconds))
                yield connection
        except psycopg2.Error as error:
            raise self._failure(error) from error

    def settings(self) -> dict[str, Any]:
        """Connection parameters beside the address and credentials."""
        return {
            "connect_timeout": self.connect_timeout,
            "keepalives_idle": 30,  # else a server that vanished is waited for for two hours
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "application_name": _NAME,
            "client_encoding": "UTF8",  # a database or role may have another one by default
        }

    def session(self, statement_timeout: int) -> str:
        """The statements that a transaction begins with.

        They are no connection parameters, and end with the transaction: a pooler such as
        PgBouncer refuses the one, and would hand on the session otherwise.

        Args:
            statement_timeout: seconds; 0 is no limit.
        """
        return (
            f"SET LOCAL statement_timeout = '{statement_timeout}s'; "
            "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; "
            "SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 1; "
            "SET LOCAL bytea_output = 'hex'; SET LOCAL lc_monetary = 'C'"
        )

    def connection(self) -> "Connection":
        """A bare psycopg2 connection, to be closed; ``connect`` is what most want."""
        import psycopg2

        connection: Connection = psycopg2.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=self.database,
            **self.settings(),
        )
        return connection

    def _url(self, driver: str) -> "URL":
        from sqlalchemy import URL

        return URL.create(driver, self.user, self.password, self.host, self.port, self.database)

    def _failure(self, error: Any) -> Exception:  # noqa: ANN401 - psycopg2 is imported on use
        from forge_platform.postgres.failures import failure

        return failure(error, self)

    def _missing(self, schema: str, table: str) -> SourceSchemaError:
        from forge_platform.postgres.failures import known_tables, nearest

        suggestion = nearest(f"{schema}.{table}", known_tables(self))
        return SourceSchemaError(
            f"{self.address} has no table {schema}.{table}{suggestion}. "
            "Correct the name, or restore the table in the source."
        )
