from __future__ import annotations

import datetime as dt
import os
import resource
import signal
import socket
import time
from decimal import Decimal
from pathlib import Path

import dagster as dg
import duckdb
import psycopg2
import pyarrow as pa
import pytest
from psycopg2 import sql

from forge_platform.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ForgeError,
    PermanentError,
    SourceSchemaError,
    SourceUnavailable,
)
from forge_platform.resources.database import DatabaseResource
from forge_platform.testing import ConnectionParameters, EmbeddedPostgres

ORDERS = """
CREATE TABLE orders (
    order_id bigint PRIMARY KEY, status text, total_amount numeric(12,2), updated_at timestamptz
);
INSERT INTO orders VALUES
    (1, 'paid', 10.50, '2024-01-01 12:00:00.123456+02'),
    (2, NULL, NULL, NULL)
"""


def execute(database: DatabaseResource, statement: str) -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def sessions(database: DatabaseResource, name: str) -> list[int]:
    rows = database.query(
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name = :name AND datname = current_database()",
        name=name,
    )
    return [row["pid"] for row in rows]


def wait_until_no_session(database: DatabaseResource, name: str) -> None:
    deadline = time.monotonic() + 5
    while sessions(database, name):
        assert time.monotonic() < deadline, "the streaming session is still there"
        time.sleep(0.05)


@pytest.fixture
def database(new_database: ConnectionParameters) -> DatabaseResource:
    return DatabaseResource(**new_database)


@pytest.fixture
def orders(database: DatabaseResource) -> DatabaseResource:
    execute(database, ORDERS)
    return database


def test_the_password_is_in_no_text_of_the_resource(orders: DatabaseResource) -> None:
    for shown in (repr(orders), str(orders), repr(orders.engine()), orders.address):
        assert "secret" not in shown


def test_the_connection_string_quotes_the_password(orders: DatabaseResource) -> None:
    with psycopg2.connect(orders.connection_string) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM orders")
        assert cursor.fetchone() == (2,)


def test_the_resource_takes_its_values_from_variables(
    orders: DatabaseResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("host", "port", "user", "password", "database"):
        monkeypatch.setenv(f"DB_{name.upper()}", str(getattr(orders, name)))

    @dg.op
    def count(database: DatabaseResource) -> int:
        return len(database.query("SELECT FROM orders"))

    @dg.job(
        resource_defs={
            "database": DatabaseResource(
                host=dg.EnvVar("DB_HOST"),
                port=dg.EnvVar.int("DB_PORT"),
                user=dg.EnvVar("DB_USER"),
                password=dg.EnvVar("DB_PASSWORD"),
                database=dg.EnvVar("DB_DATABASE"),
            )
        }
    )
    def counting() -> None:
        count()

    assert counting.execute_in_process().output_for_node("count") == 2


def test_query_binds_its_values(orders: DatabaseResource) -> None:
    hostile = "paid' OR 'a' = 'a"
    statement = "SELECT order_id FROM orders WHERE status = :status"
    assert orders.query(statement, status="paid") == [{"order_id": 1}]
    assert orders.query(statement, status=hostile) == []


def test_query_cannot_write(orders: DatabaseResource) -> None:
    with pytest.raises(PermanentError, match="read-only transaction"):
        orders.query("DELETE FROM orders RETURNING order_id")


def test_query_leaves_no_connection_open(orders: DatabaseResource) -> None:
    orders.query("SELECT 1")
    others = "SELECT 1 FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"
    deadline = time.monotonic() + 5  # a server ends a session after its client has left
    while orders.query(others, name=orders.database):
        assert time.monotonic() < deadline, "a session is still there"
        time.sleep(0.05)


def test_a_missing_bound_value_is_named(orders: DatabaseResource) -> None:
    with pytest.raises(PermanentError, match="'status'"):
        orders.query("SELECT FROM orders WHERE status = :status")


def test_columns_have_their_types_with_modifiers(orders: DatabaseResource) -> None:
    assert orders.columns("public", "orders") == {
        "order_id": "bigint",
        "status": "text",
        "total_amount": "numeric(12,2)",
        "updated_at": "timestamp with time zone",
    }


def test_a_missing_table_is_named_with_the_nearest_one(orders: DatabaseResource) -> None:
    with pytest.raises(SourceSchemaError, match=r"public\.ordres.*nearest: public\.orders"):
        orders.columns("public", "ordres")
    with pytest.raises(SourceSchemaError, match=r'"ordres".*nearest: orders'):
        orders.query("SELECT * FROM ordres")
    with pytest.raises(SourceSchemaError, match=r'"public\.ordres".*nearest: public\.orders'):
        orders.stream(sql.SQL("SELECT * FROM public.ordres"))


def test_a_missing_column_is_named_with_the_nearest_one(orders: DatabaseResource) -> None:
    with pytest.raises(SourceSchemaError, match=r'"updatd_at".*nearest: updated_at'):
        orders.query("SELECT updatd_at FROM orders")
    with pytest.raises(SourceSchemaError, match=r'"updatd_at".*nearest: updated_at'):
        orders.stream(sql.SQL("SELECT updatd_at FROM orders"))


def test_a_wrong_password_is_refused_without_showing_it(orders: DatabaseResource) -> None:
    wrong = orders.model_copy(update={"password": "hunter2'\\ x"})
    for use in (lambda: wrong.query("SELECT 1"), lambda: wrong.stream(sql.SQL("SELECT 1"))):
        with pytest.raises(AuthenticationFailed) as caught:
            use()
        assert "user postgres" in str(caught.value)
        assert orders.host in str(caught.value)
        assert "hunter2" not in everything_said(caught.value)


def everything_said(error: BaseException | None) -> str:
    """Messages of a failure and of all that it was raised from."""
    if error is None:
        return ""
    return f"{error!r} {error}" + everything_said(error.__cause__ or error.__context__)


def test_a_password_changed_between_two_connections_is_not_shown(
    orders: DatabaseResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB connects second; its messages quote how it connected."""
    from forge_platform.postgres import stream

    engine = stream._engine

    def rotated(database: DatabaseResource) -> duckdb.DuckDBPyConnection:
        return engine(database.model_copy(update={"password": "hunter2'\\ x"}))

    monkeypatch.setattr(stream, "_engine", rotated)
    with pytest.raises(SourceUnavailable, match="password authentication failed") as caught:
        orders.stream(sql.SQL("SELECT 1 AS one"))
    assert "hunter2" not in everything_said(caught.value)


def test_an_unknown_user_and_database_are_told_apart(orders: DatabaseResource) -> None:
    with pytest.raises(AuthenticationFailed, match="nobody_here"):
        orders.model_copy(update={"user": "nobody_here"}).query("SELECT 1")
    with pytest.raises(ConfigurationError, match="no_such"):
        orders.model_copy(update={"database": "no_such"}).query("SELECT 1")


def test_a_missing_privilege_names_user_and_table(orders: DatabaseResource) -> None:
    execute(orders, "DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD 'r'")
    reader = orders.model_copy(update={"user": "reader", "password": "r"})
    with pytest.raises(AuthenticationFailed, match=r"reader.*permission denied for table orders"):
        reader.stream(sql.SQL("SELECT * FROM orders"))


def test_an_unreachable_server_is_named(orders: DatabaseResource) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = taken.getsockname()[1]
        away = orders.model_copy(update={"port": port})
        with pytest.raises(SourceUnavailable, match=rf"127\.0\.0\.1:{port} \(database test_"):
            away.query("SELECT 1")
        with pytest.raises(SourceUnavailable, match=f"{port}"):
            away.stream(sql.SQL("SELECT 1"))


def test_a_server_that_accepts_and_says_nothing_is_unavailable(orders: DatabaseResource) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        away = orders.model_copy(update={"port": silent.getsockname()[1], "connect_timeout": 2})
        with pytest.raises(SourceUnavailable):
            away.query("SELECT 1")


def test_a_statement_that_takes_too_long_is_cancelled(orders: DatabaseResource) -> None:
    hasty = orders.model_copy(update={"statement_timeout": 1, "stream_timeout": 1})
    with pytest.raises(SourceUnavailable, match="raise the timeout"):
        hasty.query("SELECT pg_sleep(10)")
    with pytest.raises(SourceUnavailable, match="raise the timeout"):
        hasty.stream(sql.SQL("SELECT pg_sleep(10)::text AS slept")).read_all()


def test_a_syntax_error_is_permanent(orders: DatabaseResource) -> None:
    with pytest.raises(PermanentError, match="syntax error"):
        orders.query("SELEC 1")
    with pytest.raises(PermanentError, match="syntax error"):
        orders.stream(sql.SQL("SELECT 1 FRM x y"))


def test_connect_commits_or_rolls_back(orders: DatabaseResource) -> None:
    def insert_and_fail() -> None:
        with orders.connect() as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders VALUES (3)")
            cursor.execute("INSERT INTO orders VALUES (3)")

    with pytest.raises(PermanentError, match="duplicate key"):
        insert_and_fail()
    assert len(orders.query("SELECT FROM orders")) == 2
    execute(orders, "INSERT INTO orders VALUES (3)")
    assert len(orders.query("SELECT FROM orders")) == 3


def test_stream_gives_exact_values(orders: DatabaseResource) -> None:
    statement = sql.SQL("SELECT * FROM orders WHERE status = {} OR status IS NULL ORDER BY 1")
    table = orders.stream(statement.format(sql.Literal("paid"))).read_all()
    assert table.schema.types == [
        pa.int64(),
        pa.string(),
        pa.decimal128(12, 2),
        pa.timestamp("us", "UTC"),
    ]
    moment = dt.datetime(2024, 1, 1, 10, 0, 0, 123456, tzinfo=dt.UTC)
    assert table.to_pylist() == [
        {
            "order_id": 1,
            "status": "paid",
            "total_amount": Decimal("10.50"),
            "updated_at": moment,
        },
        {"order_id": 2, "status": None, "total_amount": None, "updated_at": None},
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.1234567890123456789012345678901234567890::numeric", None),
        ("12345678901234567890123456789012345678901234567890::numeric(50,0)", None),
        ("12300::numeric(3,-2)", "12300"),
        ("'d5a1cf94-4b40-4b4e-8d6a-0f6d5b4f6d11'::uuid", "d5a1cf94-4b40-4b4e-8d6a-0f6d5b4f6d11"),
        ("""'{"a": 1.10}'::jsonb""", '{"a": 1.10}'),
        ("'1 month 2 days'::interval", "1 mon 2 days"),
        ("ARRAY[[1,2],[3,NULL]]", "{{1,2},{3,NULL}}"),
        ("'{NaN}'::numeric[]", "{NaN}"),
        ("'10:00+02'::timetz", "10:00:00+02"),
        ("'127.0.0.1'::inet", "127.0.0.1/32"),
        ("'ab'::char(4)", "ab"),
    ],
)
def test_what_arrow_cannot_hold_exactly_arrives_as_text(
    database: DatabaseResource, value: str, text: str | None
) -> None:
    table = database.stream(sql.SQL("SELECT {} AS value").format(sql.SQL(value))).read_all()
    assert table.schema.field("value").type == pa.string()
    assert table["value"].to_pylist() == [text or value.partition("::")[0]]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("numeric(12,2)", "NaN"),
        ("timestamptz", "infinity"),
        ("timestamp", "-infinity"),
        ("date", "infinity"),
        ("timestamptz", "12024-01-01 00:00:00+00"),
        ("timestamp", "0044-03-15 00:00:00 BC"),
        ("date", "10000-01-01"),
    ],
)
def test_a_value_without_exact_counterpart_fails_and_names_its_column(
    database: DatabaseResource, column: str, value: str
) -> None:
    execute(database, f"CREATE TABLE odd (fine int, strange {column} DEFAULT '{value}')")
    execute(database, "INSERT INTO odd VALUES (1, NULL)")
    assert database.stream(sql.SQL("SELECT * FROM odd")).read_all().num_rows == 1
    execute(database, "INSERT INTO odd VALUES (2)")
    with pytest.raises(SourceSchemaError, match="strange"):
        database.stream(sql.SQL("SELECT * FROM odd")).read_all()


def test_names_and_values_of_any_kind_pass(database: DatabaseResource) -> None:
    name = """odd "name" with 'quotes' \\ and %s :x"""
    statement = sql.SQL("SELECT {} AS {}, {} AS when")
    values = ("it's \\ 100% $1 :x", dt.date(2024, 2, 29))
    made = statement.format(sql.Literal(values[0]), sql.Identifier(name), sql.Literal(values[1]))
    assert database.stream(made).read_all().to_pylist() == [{name: values[0], "when": values[1]}]


def test_stream_of_no_rows_has_the_schema(orders: DatabaseResource) -> None:
    reader = orders.stream(sql.SQL("SELECT * FROM orders WHERE false"))
    assert reader.schema.names == ["order_id", "status", "total_amount", "updated_at"]
    assert reader.read_all().num_rows == 0


MANY = sql.SQL("SELECT g, repeat(md5(g::text), 30) AS wide FROM generate_series(1, 1000000) AS g")


def test_stream_is_bounded_in_memory_and_batches(database: DatabaseResource) -> None:
    database.stream(sql.SQL("SELECT 1 AS one")).read_all()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = largest = volume = 0
    for batch in database.stream(MANY, batch_rows=10_000):
        rows += batch.num_rows
        volume += batch.nbytes
        largest = max(largest, batch.num_rows)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert rows == 1_000_000
    assert largest <= 10_000
    assert grown * 1024 < volume / 4


def test_the_session_ends_with_the_last_batch(orders: DatabaseResource) -> None:
    reader = orders.stream(sql.SQL("SELECT * FROM orders"))
    assert reader.read_all().num_rows == 2
    wait_until_no_session(orders, "forge-platform stream")


def test_the_session_ends_with_an_abandoned_reader(database: DatabaseResource) -> None:
    reader = database.stream(MANY)
    reader.read_next_batch()
    assert sessions(database, "forge-platform stream")
    del reader
    wait_until_no_session(database, "forge-platform stream")


def test_the_streaming_session_cannot_write(database: DatabaseResource) -> None:
    execute(
        database, "CREATE FUNCTION write() RETURNS int LANGUAGE sql AS 'CREATE TABLE t(); SELECT 1'"
    )
    with pytest.raises(ForgeError, match="read-only"):
        database.stream(sql.SQL("SELECT write() AS done")).read_all()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_session_that_dies_while_streaming_is_a_failure_and_no_shorter_table(
    server_folder: Path, how: signal.Signals
) -> None:
    with EmbeddedPostgres(server_folder / how.name, password="s", durable=False) as server:
        database = DatabaseResource(**server.connection())
        reader = database.stream(MANY)
        reader.read_next_batch()
        [session] = sessions(database, "forge-platform stream")
        os.kill(session, how)
        with pytest.raises(SourceUnavailable):
            reader.read_all()


def test_an_error_of_the_consumer_is_its_own(database: DatabaseResource) -> None:
    def consume() -> None:
        for batch in database.stream(MANY):
            raise KeyError(batch.num_rows)

    with pytest.raises(KeyError):
        consume()
    wait_until_no_session(database, "forge-platform stream")
