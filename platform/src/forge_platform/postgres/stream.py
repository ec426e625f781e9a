"""Streams rows as Arrow batches: binary COPY over several connections, read by DuckDB.

All connections read in one snapshot. Nothing but a few batches is ever in memory.
"""

from __future__ import annotations

import importlib.util
import queue
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb
import psycopg2
import pyarrow as pa
from psycopg2 import extensions, sql

from forge_platform.errors import (
    ConfigurationError,
    ForgeError,
    SourceSchemaError,
    SourceUnavailable,
)
from forge_platform.postgres.columns import ResultColumn
from forge_platform.postgres.failures import failure, inexact, unavailable

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from forge_platform.resources.database import DatabaseResource

STREAM_NAME = "forge-platform stream"
"""The ``application_name`` of streaming transactions, which only read."""
# For the transaction: a pooler would give the session, name and all, to a writer that has none.
_NAMED = f"SET LOCAL application_name = '{STREAM_NAME}'"

_EXTENSION_PACKAGE = "duckdb_extension_postgres_scanner"
_QUERY = "SELECT * FROM postgres_query('source', {})"
_DATA_ERRORS = ("Invalid Input Error", "Conversion Error")
_TOO_LARGE = "maximum total string size"
BATCH_ROWS = 32_768
_AHEAD = 1
_WAIT_SECONDS = 0.1
_END_SECONDS = 5
_LOCK_SECONDS = 2

# Of the tables that this transaction has used, those that its snapshot shows empty because their
# rows were put into a new file later: by ALTER TABLE, TRUNCATE, REFRESH, or in a new table that has
# taken the name. The functions tell what is there now, pg_class what was there.
_REWRITTEN = sql.SQL("""
    SELECT relation::regclass::text FROM pg_locks LEFT JOIN pg_class ON oid = relation
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384
      AND pg_relation_filenode(relation) IS DISTINCT FROM nullif(relfilenode, 0)
      AND pg_index_has_property(relation, 'clusterable') IS NULL
""")


class Snapshot:
    """One state of a database, for queries and streams; a context manager.

    It is a transaction that only reads. A stream does not need it any more once it has begun:
    each of its connections reads in the same snapshot, in a transaction of its own.

    PostgreSQL does not keep rows for a snapshot when a table is rewritten or truncated: it shows
    the table empty. So a stream of such a table is refused, and reading again helps. It is also
    refused while a change of the table waits for the snapshot, which would wait for the change.

    Raises:
        SourceUnavailable: the server is away, busy, or took too long; also while reading.
        AuthenticationFailed: it refuses the user.
        SourceSchemaError: a table or column is missing.
        PermanentError: it refuses a statement.
    """

    def __init__(self, database: DatabaseResource) -> None:
        self._database = database
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._connection = self._cleanup.enter_context(closing(self._database.connection()))
            with self._connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                cursor.execute(_NAMED)
                cursor.execute(self._database.session(self._database.stream_timeout))
                cursor.execute(_lock_timeout(self._database.statement_timeout))
        except psycopg2.Error as error:
            self._cleanup.close()
            raise failure(error, self._database) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def rows(self, statement: sql.Composable) -> list[tuple[Any, ...]]:
        """The rows of a query, all in memory."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()
        except psycopg2.Error as error:
            raise failure(error, self._database) from error

    def stream(
        self,
        statements: Sequence[Sequence[sql.Composable]],
        batch_rows: int = BATCH_ROWS,
        *,
        verified: bool = False,
    ) -> pa.RecordBatchReader:
        """The rows of several queries with the same columns, in any order.

        Args:
            statements: the queries of each connection, which are read one after the other.
            batch_rows: most rows in one batch.
            verified: whether a value without an exact counterpart is looked for before the first
                batch, which costs one more pass over the rows; else it is found on the way, or
                after the last one.
        """
        columns = self._columns(statements[0][0])
        self._refuse_rewritten()
        if verified:
            self._refuse_inexact([*chain.from_iterable(statements)], columns)
        [(snapshot,)] = self.rows(sql.SQL("SELECT pg_export_snapshot()"))
        with ExitStack() as opened:
            readers = [
                opened.enter_context(closing(self._reader(each, columns, snapshot, batch_rows)))
                for each in statements
            ]
            opened.pop_all()
        return pa.RecordBatchReader.from_batches(readers[0].schema, iter(_Readers(readers)))

    def _refuse_rewritten(self) -> None:
        if rewritten := self.rows(_REWRITTEN):
            names = ", ".join(name for (name,) in rewritten)
            raise SourceUnavailable(
                f"{names} in {self._database.address} was rewritten or truncated when reading "
                "began, and what it held cannot be seen any more: read again."
            )

    def _refuse_inexact(
        self, statements: Sequence[sql.Composable], columns: Sequence[ResultColumn]
    ) -> None:
        checked = [column for column in columns if column.can_be_inexact]
        if not checked:
            return
        tests = sql.SQL(", ").join(
            sql.SQL("coalesce(bool_or({}), false)").format(column.is_inexact())
            for column in checked
        )
        for statement in statements:
            query = sql.SQL("SELECT {} FROM ({}) AS rows").format(tests, statement)
            [found] = self.rows(query)
            for column, inexact_there in zip(checked, found, strict=True):
                if inexact_there:
                    raise inexact(column.name, column.excluded, self._database)

    def _columns(self, statement: sql.Composable) -> Sequence[ResultColumn]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql.SQL("SELECT * FROM ({}) AS rows LIMIT 0").format(statement))
                return [
                    ResultColumn(of.name, of.type_code, of.precision or 0, of.scale or 0)
                    for of in cursor.description or ()
                ]
        except psycopg2.Error as error:
            raise failure(error, self._database) from error

    def _reader(
        self,
        statements: Sequence[sql.Composable],
        columns: Sequence[ResultColumn],
        snapshot: str,
        batch_rows: int,
    ) -> _Reader:
        engine = _engine(self._database)
        try:
            _begin(engine, self._database, self._connection, snapshot)
            return _Reader(
                self._database, engine, columns, statements, batch_rows, self._connection
            )
        except duckdb.Error as error:
            _close(engine)
            raise _failure(str(error), self._database) from error


@dataclass(frozen=True)
class _Statement:
    """A query as DuckDB is given it.

    Attributes:
        suspects: of each column that can be inexact, the query that tells whether it was.
    """

    text: str
    suspects: Mapping[str, str]

    @classmethod
    def of(
        cls, statement: sql.Composable, columns: Sequence[ResultColumn], quoting: Connection
    ) -> Self:
        """The query, its columns numbered: DuckDB does not tell names by case."""
        numbered = (column.in_source(f"c{number}") for number, column in enumerate(columns))
        source = sql.SQL("SELECT {} FROM ({}) AS rows").format(
            sql.SQL(", ").join(numbered), statement
        )
        suspects = {
            column.name: column.suspect_query(statement).as_string(quoting)
            for column in columns
            if column.can_be_inexact
        }
        return cls(source.as_string(quoting), suspects)


class _Reader:
    """The rows of queries with the same columns, read by a DuckDB of its own."""

    def __init__(
        self,
        database: DatabaseResource,
        engine: duckdb.DuckDBPyConnection,
        columns: Sequence[ResultColumn],
        statements: Sequence[sql.Composable],
        batch_rows: int,
        quoting: Connection,
    ) -> None:
        self._database = database
        self._engine = engine
        self._end = weakref.finalize(self, _close, engine)  # also if nobody reads to the end
        self._batch_rows = batch_rows
        self._columns = [column for column in columns if column.can_be_inexact]
        self._names = [column.name for column in columns]
        self._first, *self._rest = [
            _Statement.of(statement, columns, quoting) for statement in statements
        ]
        self._begun = self._read(self._first)
        self.schema = pa.schema(
            field.with_name(name)
            for field, name in zip(self._begun.schema, self._names, strict=True)
        )

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Batches, every value of which is what the source holds.

        Raises:
            SourceSchemaError: a value has no exact counterpart.
        """
        try:
            yield from self._batches(self._first, self._begun)
            for statement in self._rest:
                yield from self._batches(statement, self._read(statement))
        except (OSError, pa.ArrowException, duckdb.Error) as error:
            raise _failure(str(error), self._database) from error

    def _read(self, statement: _Statement) -> pa.RecordBatchReader:
        return self._engine.execute(_query(statement.text)).to_arrow_reader(self._batch_rows)

    def _batches(
        self, statement: _Statement, reader: pa.RecordBatchReader
    ) -> Iterator[pa.RecordBatch]:
        suspected: set[str] = set()
        for numbered in reader:
            batch = numbered.rename_columns(self._names)
            self._check(batch, suspected)
            yield batch
        # Asks, in the snapshot that was read, whether what looks like zero is none.
        for name in sorted(suspected):
            if self._engine.execute(_query(statement.suspects[name])).fetchall():
                raise inexact(name, "NaN", self._database)

    def _check(self, batch: pa.RecordBatch, suspected: set[str]) -> None:
        for column in self._columns:
            values = batch.column(column.name)
            if problem := column.problem(values):
                raise inexact(column.name, problem, self._database)
            if column.name not in suspected and column.is_suspect(values):
                suspected.add(column.name)

    def close(self) -> None:
        """Ends the connection."""
        self._end()


_Message: TypeAlias = "pa.RecordBatch | BaseException | None"


@dataclass
class _Readers:
    """Reads several readers at once, each in a thread, a few batches ahead."""

    readers: Sequence[_Reader]
    ahead: queue.Queue[_Message] = field(default_factory=lambda: queue.Queue(_AHEAD))
    stopped: threading.Event = field(default_factory=threading.Event)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        threads = [
            threading.Thread(target=self._read, args=(reader,), daemon=True)
            for reader in self.readers
        ]
        for thread in threads:
            thread.start()
        try:
            yield from self._received()
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join(_END_SECONDS)

    def _received(self) -> Iterator[pa.RecordBatch]:
        running = len(self.readers)
        while running:
            message = self.ahead.get()
            if isinstance(message, BaseException):
                raise message
            if message is None:
                running -= 1
            else:
                yield message

    def _read(self, reader: _Reader) -> None:
        try:
            for batch in reader:
                if not self._put(batch):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the rows are consumed
            self._put(error)
        finally:
            reader.close()

    def _put(self, message: _Message) -> bool:
        """Hands a message over; False when nobody wants it any more."""
        while not self.stopped.is_set():
            try:
                self.ahead.put(message, timeout=_WAIT_SECONDS)
            except queue.Full:
                continue
            return True
        return False


def _begin(
    engine: duckdb.DuckDBPyConnection,
    database: DatabaseResource,
    quoting: Connection,
    snapshot: str,
) -> None:
    """Attaches the source, in a transaction that reads the snapshot."""
    dsn = extensions.make_dsn(**database.settings())
    attach = sql.SQL("ATTACH {} AS source (TYPE postgres, READ_ONLY, SECRET source)")
    engine.execute(attach.format(sql.Literal(dsn)).as_string(quoting))
    engine.execute("BEGIN")
    adopt = sql.SQL("SET TRANSACTION SNAPSHOT {}; {}; {}; {}").format(
        sql.Literal(snapshot),
        sql.SQL(_NAMED),
        sql.SQL(database.session(database.stream_timeout)),
        sql.SQL(_lock_timeout(_LOCK_SECONDS)),
    )
    call = sql.SQL("CALL postgres_execute('source', {})")
    engine.execute(call.format(sql.Literal(adopt.as_string(quoting))).as_string(quoting))


def _engine(database: DatabaseResource) -> duckdb.DuckDBPyConnection:
    """A DuckDB that knows the credentials as a secret: no other statement shows them."""
    engine = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,
            "allow_persistent_secrets": False,
            "threads": 1,
        },
    )
    engine.load_extension(str(_extension()))
    engine.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    # What it keeps ready is counted without the texts: of wide rows that would be gigabytes.
    engine.execute("SET streaming_buffer_size = '64KB'")
    engine.execute(
        f"CREATE SECRET source (TYPE postgres, HOST {_quoted(database.host)}, "
        f"PORT {_quoted(str(database.port))}, USER {_quoted(database.user)}, "
        f"PASSWORD {_quoted(database.password)}, DATABASE {_quoted(database.database)})"
    )
    return engine


def _query(statement: str) -> str:
    return _QUERY.format(_quoted(statement))


def _quoted(text: str) -> str:
    """A literal of DuckDB's. To bind values, it would import pandas where that is installed."""
    quoted = text.replace("'", "''")
    return f"'{quoted}'"


def _lock_timeout(seconds: int) -> str:
    return f"SET LOCAL lock_timeout = '{seconds}s'"


def _close(engine: duckdb.DuckDBPyConnection) -> None:
    # A transaction that is left to the destructor ends the process when its session is gone.
    with suppress(duckdb.Error):
        engine.execute("ROLLBACK")
    engine.close()


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
    if _TOO_LARGE in line:
        return SourceSchemaError(
            f"{database.address} has rows so wide that those that are read at a time take more "
            "than 2 GiB in one column: leave the column out, or keep such values in files."
        )
    if line.startswith(_DATA_ERRORS):
        return inexact(None, line, database)
    return unavailable(" ".join(line.split()), database)
