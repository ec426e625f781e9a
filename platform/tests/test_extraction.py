import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import psycopg2
import pyarrow as pa
import pytest
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812

from forge_platform import extraction
from forge_platform.errors import (
    AuthenticationFailed,
    CommitConflict,
    ConfigurationError,
    SourceSchemaError,
    SourceUnavailable,
)
from forge_platform.extraction import ExtractConfig, Recent, SourceTable, extract
from forge_platform.iceberg.commit import CommitResult, Plan, commit
from forge_platform.iceberg.state import WATERMARK, WINDOW
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table
from forge_platform.postgres.source import edge_query, position_query, rows_query
from forge_platform.postgres.type_names import full_name
from forge_platform.resources.database import DatabaseResource
from forge_platform.resources.iceberg import IcebergResource
from forge_platform.sensors.new_data import CHANGED_TABLES, new_data_sensor
from forge_platform.tables import Position, TableWrite
from forge_platform.testing import ConnectionParameters, EmbeddedPostgres

OLD = "2024-01-01T00:00:00+00:00"
CREATE = """
CREATE TABLE customers (
    customer_id bigint, email varchar(80), note text, updated_at timestamptz,
    day date DEFAULT current_date
);
CREATE INDEX ON customers (updated_at)
"""
CUSTOMERS = SourceTable(
    "public",
    "customers",
    {"customer_id": "int8", "email": "varchar", "note": "text", "updated_at": "timestamptz"},
)
NEWEST = replace(CUSTOMERS, key=("customer_id",))
INCREMENTAL = ExtractConfig()
FULL = ExtractConfig(mode="full")


@pytest.fixture
def database(new_database: ConnectionParameters) -> DatabaseResource:
    resource = DatabaseResource(**new_database)
    execute(resource, CREATE)
    return resource


def execute(database: DatabaseResource, statement: str, values: tuple[Any, ...] = ()) -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement, values or None)


def changed(database: DatabaseResource, **fields: Any) -> DatabaseResource:
    return DatabaseResource(**{**database.model_dump(), **fields})


def insert(
    database: DatabaseResource, number: int | None, moment: datetime | str | None, note: str = ""
) -> None:
    statement = "INSERT INTO customers VALUES (%s, 'a@b.c', %s, %s)"
    execute(database, statement, (number, note, moment))


@contextmanager
def transaction(database: DatabaseResource) -> Iterator[Connection]:
    """A transaction of somebody else, open until the block or the test ends it."""
    with closing(psycopg2.connect(database.connection_string)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT now()")
        yield connection


def insert_now(connection: Connection, number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO customers VALUES (%s, 'a@b.c', '', now())", (number,))


def at(watermark: str | None) -> Position:
    return Position(watermark=watermark)


def ids(write: TableWrite) -> list[int]:
    assert isinstance(write.rows, pa.RecordBatchReader)
    return sorted(row["customer_id"] for row in write.rows.read_all().to_pylist())


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def iceberg(tmp_path: Path) -> IcebergResource:
    return IcebergResource(
        catalog_uri=f"sqlite:///{tmp_path}/catalog.db", warehouse_path=tmp_path.as_uri()
    )


def committed(iceberg: IcebergResource, write: TableWrite) -> CommitResult:
    assert write.rows is not None
    properties = {WATERMARK: write.watermark, WINDOW: write.window}
    known = {name: value for name, value in properties.items() if value is not None}
    request = WriteRequest(
        rows=write.rows,
        mode=write.mode or "merge",
        properties=known,
        continues=write.continues,
    )
    return write_table(iceberg.catalog(), "space.t", request, TableOptions(key=NEWEST.key))


# Which rows, and which watermark


def test_without_a_watermark_everything_is_read_and_the_table_replaced(
    database: DatabaseResource,
) -> None:
    insert(database, 1, OLD)
    insert(database, 2, "2024-02-01 01:00:00.000001+01")
    write = extract(database, NEWEST, INCREMENTAL, at(None))
    assert ids(write) == [1, 2]
    assert write.mode == "overwrite"
    assert write.watermark == "2024-02-01T00:00:00.000001+00:00"
    assert write.rows_read is None
    assert write.metadata["extraction"] == "full"


def test_with_a_watermark_only_what_changed_is_read_with_the_overlap(
    database: DatabaseResource,
) -> None:
    insert(database, 1, "2024-01-01T11:49:59.999999Z")
    insert(database, 2, "2024-01-01T11:50:00Z")
    insert(database, 3, "2024-01-01T12:00:00Z")
    insert(database, 4, "2024-01-01T12:00:01Z")
    write = extract(database, CUSTOMERS, INCREMENTAL, at("2024-01-01T12:00:00+00:00"))
    assert ids(write) == [2, 3, 4]
    assert write.mode is None
    assert write.watermark == "2024-01-01T12:00:01+00:00"
    assert write.metadata["read_from"] == "2024-01-01T11:50:00+00:00"


def test_the_rows_are_a_stream_of_the_expected_columns(database: DatabaseResource) -> None:
    insert(database, 1, OLD)
    rows = extract(database, CUSTOMERS, FULL, at(None)).rows
    assert isinstance(rows, pa.RecordBatchReader)
    assert rows.schema.names == ["customer_id", "email", "note", "updated_at"]
    assert rows.schema.field("updated_at").type == pa.timestamp("us", "UTC")


def test_a_full_run_reads_everything_whatever_the_watermark(database: DatabaseResource) -> None:
    insert(database, 1, OLD)
    write = extract(database, CUSTOMERS, FULL, at("2025-01-01T00:00:00+00:00"))
    assert ids(write) == [1]
    assert write.mode == "overwrite"


def test_the_watermark_never_moves_backwards(database: DatabaseResource) -> None:
    insert(database, 1, OLD)
    later = "2025-01-01T00:00:00+00:00"
    for config in (INCREMENTAL, FULL):
        assert extract(database, CUSTOMERS, config, at(later)).watermark == later


def test_an_empty_table_has_no_watermark_and_keeps_an_old_one(database: DatabaseResource) -> None:
    write = extract(database, CUSTOMERS, INCREMENTAL, at(None))
    assert ids(write) == []
    assert write.metadata["watermark"] == "none"
    assert extract(database, CUSTOMERS, INCREMENTAL, at(OLD)).watermark == OLD


def test_a_full_run_that_found_nothing_takes_away_what_another_has_reached(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    earlier = extract(database, NEWEST, INCREMENTAL, iceberg.position("space.t"))
    insert(database, 1, OLD)
    committed(iceberg, extract(database, NEWEST, INCREMENTAL, iceberg.position("space.t")))
    assert iceberg.watermark("space.t") == OLD
    committed(iceberg, earlier)
    assert iceberg.watermark("space.t") is None
    execute(database, "TRUNCATE customers")
    again = extract(database, NEWEST, INCREMENTAL, iceberg.position("space.t"))
    assert not committed(iceberg, again).committed


@pytest.mark.parametrize("config", [INCREMENTAL, FULL], ids=["incremental", "full"])
def test_a_run_does_not_bring_back_a_watermark_that_was_taken_away(
    database: DatabaseResource, iceberg: IcebergResource, config: ExtractConfig
) -> None:
    """Rows came to the source that are older than it, after the run had begun."""
    insert(database, 1, "2024-06-01T00:00:00Z")
    committed(iceberg, extract(database, NEWEST, INCREMENTAL, iceberg.position("space.t")))
    insert(database, 2, "2024-07-01T00:00:00Z")
    running = extract(database, NEWEST, config, iceberg.position("space.t"))
    insert(database, 3, OLD)
    table = iceberg.find("space.t")
    assert table is not None
    commit(table, lambda _: Plan(), {WATERMARK: ""})
    with pytest.raises(CommitConflict, match="taken back"):
        committed(iceberg, running)
    committed(iceberg, extract(database, NEWEST, config, iceberg.position("space.t")))
    assert iceberg.view("space.t").read()["customer_id"].sort().to_list() == [1, 2, 3]


def test_a_run_since_a_moment_takes_away_what_another_has_reached_before_it(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    """It may put an older version in the place of one that the other run has read."""
    insert(database, 1, "2024-01-01T00:00:00Z", "old")
    earlier = extract(database, NEWEST, ExtractConfig(since=OLD), iceberg.position("space.t"))
    execute(database, "UPDATE customers SET note = 'new', updated_at = '2024-02-01T00:00:00Z'")
    insert(database, 2, "2024-03-01T00:00:00Z")
    committed(iceberg, extract(database, NEWEST, INCREMENTAL, iceberg.position("space.t")))
    committed(iceberg, earlier)
    committed(iceberg, extract(database, NEWEST, INCREMENTAL, iceberg.position("space.t")))
    rows = iceberg.view("space.t").read().sort("customer_id")
    assert rows["note"].to_list() == ["new", ""]


def test_time_stamps_in_the_future_do_not_move_the_watermark_there(
    database: DatabaseResource,
) -> None:
    insert(database, 1, now() + timedelta(days=300))
    watermark = extract(database, CUSTOMERS, INCREMENTAL, at(None)).watermark
    assert watermark is not None
    assert datetime.fromisoformat(watermark) <= now()
    assert ids(extract(database, CUSTOMERS, INCREMENTAL, at(watermark))) == [1]


def test_rows_without_a_time_stamp_are_read_by_every_run(database: DatabaseResource) -> None:
    insert(database, 1, None)
    insert(database, 2, OLD)
    assert ids(extract(database, CUSTOMERS, INCREMENTAL, at(None))) == [1, 2]
    assert ids(extract(database, CUSTOMERS, INCREMENTAL, at(now().isoformat()))) == [1]


def test_time_stamps_without_zone_are_utc(database: DatabaseResource) -> None:
    execute(database, "ALTER TABLE customers ALTER updated_at TYPE timestamp(6)")
    execute(database, "ALTER ROLE CURRENT_USER SET TimeZone = 'America/New_York'")
    source = replace(CUSTOMERS, columns={**CUSTOMERS.columns, "updated_at": "timestamp"})
    insert(database, 1, "2024-01-01 11:00:00")
    insert(database, 2, "2024-01-01 12:00:00")
    try:
        write = extract(database, source, INCREMENTAL, at("2024-01-01T11:30:00+00:00"))
        assert ids(write) == [2]
        assert write.watermark == "2024-01-01T12:00:00+00:00"
    finally:
        execute(database, "ALTER ROLE CURRENT_USER RESET TimeZone")


def test_recent_rows_are_read_again_even_if_unchanged(database: DatabaseResource) -> None:
    source = replace(
        CUSTOMERS,
        columns={**CUSTOMERS.columns, "day": "date"},
        also=Recent("day", timedelta(days=7)),
    )
    insert(database, 1, OLD)
    insert(database, 2, OLD)
    execute(database, "UPDATE customers SET day = current_date - 8 WHERE customer_id = 1")
    execute(database, "UPDATE customers SET day = current_date - 7 WHERE customer_id = 2")
    assert ids(extract(database, source, INCREMENTAL, at(now().isoformat()))) == [2]
    assert ids(extract(database, source, FULL, at(None))) == [1, 2]


# since


def test_since_reads_from_a_moment_on(database: DatabaseResource) -> None:
    insert(database, 1, "2024-01-01T00:00:00Z")
    insert(database, 2, "2024-02-01T00:00:00Z")
    insert(database, 3, "2024-03-01T00:00:00Z")
    since = ExtractConfig(since="2024-02-01")
    write = extract(database, CUSTOMERS, since, at("2024-02-15T00:00:00+00:00"))
    assert ids(write) == [2, 3]
    assert write.mode is None
    assert write.watermark == "2024-03-01T00:00:00+00:00"
    assert write.metadata["extraction"] == "since"


def test_since_beyond_the_watermark_leaves_it_so_that_the_gap_is_read_later(
    database: DatabaseResource,
) -> None:
    insert(database, 1, "2024-02-01T00:00:00Z")
    insert(database, 2, "2024-03-01T00:00:00Z")
    config = ExtractConfig(mode="since", since="2024-02-15T00:00:00+00:00")
    assert extract(database, CUSTOMERS, config, at(OLD)).watermark == OLD
    assert extract(database, CUSTOMERS, config, at(None)).watermark == ""


def test_since_within_the_overlap_leaves_the_watermark_for_what_was_committed_late(
    database: DatabaseResource,
) -> None:
    insert(database, 1, "2024-02-01T00:00:00Z")
    first = read(extract(database, CUSTOMERS, INCREMENTAL, at(None)))
    insert(database, 2, "2024-01-31T23:55:00Z")
    insert(database, 3, "2024-03-01T00:00:00Z")
    since = extract(database, CUSTOMERS, ExtractConfig(since=first.watermark), first)
    assert ids(since) == [1, 3]
    assert ids(extract(database, CUSTOMERS, INCREMENTAL, position(since))) == [1, 2, 3]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (ExtractConfig(since="yesterday"), "since is 'yesterday'"),
        (ExtractConfig(mode="since"), "needs a time stamp"),
        (ExtractConfig(mode="full", since="2024-01-01"), "set one of them"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    database: DatabaseResource, config: ExtractConfig, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        extract(database, CUSTOMERS, config, at(OLD))


def test_the_run_configuration_is_dagsters(database: DatabaseResource) -> None:
    insert(database, 1, OLD)

    @dg.op
    def read(config: ExtractConfig) -> str:
        return str(extract(database, CUSTOMERS, config, at(OLD)).metadata["extraction"])

    @dg.job
    def reading() -> None:
        read()

    def run(config: Mapping[str, str]) -> str:
        result = reading.execute_in_process(run_config={"ops": {"read": {"config": config}}})
        return str(result.output_for_node("read"))

    assert run({}) == "incremental"
    assert run({"mode": "full"}) == "full"
    assert run({"since": "2024-01-01T00:00:00Z"}) == "since"
    with pytest.raises(dg.DagsterInvalidConfigError, match="everything"):
        run({"mode": "everything"})


def test_a_malformed_watermark_is_refused(database: DatabaseResource) -> None:
    with pytest.raises(ConfigurationError, match=r"watermark of public\.customers is 'rubbish'"):
        extract(database, CUSTOMERS, INCREMENTAL, at("rubbish"))


# Rows committed late


def test_a_transaction_that_commits_long_after_is_not_lost(database: DatabaseResource) -> None:
    """Its rows are older than the newest one by more than the overlap."""
    source = replace(CUSTOMERS, overlap=timedelta(0))
    with transaction(database) as late:
        insert_now(late, 1)
        time.sleep(0.05)
        insert(database, 2, now())
        first = extract(database, source, INCREMENTAL, at(None))
        assert ids(first) == [2]
        late.commit()
    second = extract(database, source, INCREMENTAL, at(first.watermark))
    assert ids(second) == [1, 2]
    third = extract(database, source, INCREMENTAL, at(second.watermark))
    assert ids(third) == [2]


def test_a_transaction_that_has_written_nothing_yet_counts(database: DatabaseResource) -> None:
    source = replace(CUSTOMERS, overlap=timedelta(0))
    with transaction(database) as late:
        insert(database, 2, now())
        watermark = extract(database, source, INCREMENTAL, at(None)).watermark
        insert_now(late, 1)
        late.commit()
    assert ids(extract(database, source, INCREMENTAL, at(watermark))) == [1, 2]


@pytest.fixture
def preparing() -> Iterator[DatabaseResource]:
    """A database with two-phase commit, which PostgreSQL leaves out unless it is asked for."""
    with TemporaryDirectory(prefix="forge-test-") as folder:
        server = EmbeddedPostgres(Path(folder) / "data", password="secret", durable=False)
        server.start()
        with closing(psycopg2.connect(**server.connection())) as connection:
            connection.autocommit = True
            connection.cursor().execute("ALTER SYSTEM SET max_prepared_transactions = 1")
        server.stop()
        server.start()
        yield DatabaseResource(**server.connection())
        server.stop()


def test_a_prepared_transaction_holds_the_watermark(preparing: DatabaseResource) -> None:
    """PostgreSQL says when it was prepared, not when it began and gave its rows their stamps."""
    database = preparing
    source = replace(CUSTOMERS, overlap=timedelta(0))
    execute(database, CREATE)
    insert(database, 1, now())
    first = extract(database, source, INCREMENTAL, at(None))
    with transaction(database) as late:
        insert_now(late, 2)
        time.sleep(0.05)
        late.cursor().execute("PREPARE TRANSACTION 'late'")
        insert(database, 3, now())
        second = extract(database, source, INCREMENTAL, position(first))
        assert ids(second) == [1, 3]
        assert "see pg_prepared_xacts" in second.metadata["prepared_transactions"]
        late.commit()
        late.autocommit = True
        late.cursor().execute("COMMIT PREPARED 'late'")
    third = extract(database, source, INCREMENTAL, position(second))
    assert ids(third) == [1, 2, 3]
    assert "prepared_transactions" not in third.metadata
    assert third.watermark != second.watermark


def test_a_running_extraction_does_not_hold_the_watermark_back(
    database: DatabaseResource,
) -> None:
    many = sql.SQL("SELECT g, repeat(md5(g::text), 30) AS wide FROM generate_series(1, 200000) g")
    reader = database.stream(many)
    reader.read_next_batch()
    newest = now()
    insert(database, 1, newest)
    assert extract(database, CUSTOMERS, INCREMENTAL, at(None)).watermark == newest.isoformat()


def test_nothing_is_lost_while_many_write_at_once(database: DatabaseResource) -> None:
    """Rows with time stamps of their transaction's start, committed in any order."""
    source = replace(CUSTOMERS, overlap=timedelta(0))
    written = range(200)

    def write(numbers: range) -> None:
        for number in numbers:
            with transaction(database) as connection:
                time.sleep(number % 7 / 500)
                insert_now(connection, number)
                connection.commit()

    writers = [threading.Thread(target=write, args=(written[n::4],)) for n in range(4)]
    for writer in writers:
        writer.start()
    seen: set[int] = set()
    watermark = None
    runs = 0
    while any(writer.is_alive() for writer in writers):
        run = extract(database, source, INCREMENTAL, at(watermark))
        seen.update(ids(run))
        watermark = run.watermark
        runs += 1
    seen.update(ids(extract(database, source, INCREMENTAL, at(watermark))))
    assert runs > 5
    assert seen == set(written)


def test_who_may_not_see_transactions_is_told(database: DatabaseResource) -> None:
    execute(
        database,
        "DROP ROLE IF EXISTS extractor; CREATE ROLE extractor LOGIN PASSWORD 'e';"
        "GRANT SELECT ON customers TO extractor",
    )
    limited = changed(database, user="extractor", password="e")
    assert (
        "pg_read_all_stats" in extract(limited, CUSTOMERS, FULL, at(None)).metadata["late_commits"]
    )
    execute(database, "GRANT pg_read_all_stats TO extractor")
    assert "late_commits" not in extract(limited, CUSTOMERS, FULL, at(None)).metadata
    with transaction(database) as hidden, hidden.cursor() as cursor:
        cursor.execute("SET track_activities = off")
        assert "track_activities" in extract(limited, CUSTOMERS, FULL, at(None)).metadata.get(
            "late_commits", ""
        )


# Several versions of one row


def versions(write: TableWrite) -> list[tuple[int, str]]:
    assert isinstance(write.rows, pa.RecordBatchReader)
    rows = write.rows.read_all().to_pylist()
    return sorted((row["customer_id"], row["note"]) for row in rows)


def test_of_several_versions_the_newest_is_read(database: DatabaseResource) -> None:
    insert(database, 1, "2024-01-02T00:00:00Z", "new")
    insert(database, 1, "2024-01-01T00:00:00Z", "old")
    insert(database, 1, None, "unknown")
    insert(database, 2, None, "only")
    assert versions(extract(database, NEWEST, FULL, at(None))) == [(1, "new"), (2, "only")]
    assert len(versions(extract(database, CUSTOMERS, FULL, at(None)))) == 4


def test_of_two_versions_with_one_time_stamp_always_the_same_is_read(
    database: DatabaseResource,
) -> None:
    insert(database, 1, OLD, "b")
    insert(database, 1, OLD, "a")
    first = versions(extract(database, NEWEST, FULL, at(None)))
    execute(database, "DELETE FROM customers WHERE note = 'b'")
    insert(database, 1, OLD, "b")
    assert versions(extract(database, NEWEST, FULL, at(None))) == first


def test_a_log_keeps_all_versions_and_is_never_replaced(database: DatabaseResource) -> None:
    source = replace(NEWEST, versions="all")
    insert(database, 1, "2024-01-01T00:00:00Z", "old")
    insert(database, 1, "2024-01-02T00:00:00Z", "new")
    for config in (INCREMENTAL, FULL):
        write = extract(database, source, config, at(None))
        assert versions(write) == [(1, "new"), (1, "old")]
        assert write.mode is None


# A source that is not as expected


def test_every_difference_is_named(database: DatabaseResource) -> None:
    execute(
        database,
        "ALTER TABLE customers RENAME email TO e_mail;"
        "ALTER TABLE customers ALTER customer_id TYPE text, ALTER note TYPE varchar(10)",
    )
    with pytest.raises(SourceSchemaError) as caught:
        extract(database, CUSTOMERS, INCREMENTAL, at(None))
    message = str(caught.value)
    assert "public.customers" in message
    assert "customer_id: expected bigint, found text" in message
    assert "email: expected character varying, missing (nearest: e_mail)" in message
    assert "note: expected text, found character varying(10)" in message
    assert "updated_at" not in message


def test_a_changed_modifier_counts_if_one_is_expected(database: DatabaseResource) -> None:
    for kind in ("varchar(80)", "varchar", "character varying(80)", "VARCHAR ( 80 )"):
        source = replace(CUSTOMERS, columns={**CUSTOMERS.columns, "email": kind})
        assert ids(extract(database, source, FULL, at(None))) == []
    source = replace(CUSTOMERS, columns={**CUSTOMERS.columns, "email": "varchar(100)"})
    with pytest.raises(SourceSchemaError, match=r"varying\(100\), found character varying\(80\)"):
        extract(database, source, FULL, at(None))


def test_additional_columns_are_left_out_and_noted(database: DatabaseResource) -> None:
    write = extract(database, CUSTOMERS, FULL, at(None))
    assert write.metadata["ignored_columns"] == "day"
    assert isinstance(write.rows, pa.RecordBatchReader)
    assert "day" not in write.rows.schema.names


def test_new_columns_are_extracted_where_the_asset_takes_them(database: DatabaseResource) -> None:
    insert(database, 1, OLD)
    source = replace(CUSTOMERS, schema_changes="add")
    first = read(extract(database, source, INCREMENTAL, at(None)))
    execute(database, "ALTER TABLE customers ADD COLUMN country text NOT NULL DEFAULT 'DE'")
    second = extract(database, source, INCREMENTAL, first)
    assert isinstance(second.rows, pa.RecordBatchReader)
    assert second.rows.schema.names == [*CUSTOMERS.columns, "day", "country"]
    assert ids(second) == [1]
    assert "ignored_columns" not in second.metadata
    assert extract(database, source, INCREMENTAL, position(second)).rows is None


def test_nothing_may_differ_where_the_asset_says_so(database: DatabaseResource) -> None:
    source = replace(CUSTOMERS, schema_changes="refuse")
    with pytest.raises(SourceSchemaError, match="column day: not expected, found date"):
        extract(database, source, FULL, at(None))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("smallint", "bigint"),
        ("integer", "bigint"),
        ("real", "double precision"),
        ("numeric(5,2)", "numeric(12,2)"),
        ("varchar(5)", "varchar(9)"),
        ("varchar(5)", "varchar"),
        ("varchar(5)", "text"),
    ],
)
def test_a_wider_type_is_taken_unless_the_asset_refuses_it(
    database: DatabaseResource, before: str, after: str
) -> None:
    execute(database, f"ALTER TABLE customers ADD COLUMN size {before} DEFAULT 7")
    columns = {**CUSTOMERS.columns, "day": "date", "size": before}
    source = replace(CUSTOMERS, columns=columns)
    strict = replace(source, schema_changes="refuse")
    assert "widened_columns" not in extract(database, strict, FULL, at(None)).metadata
    execute(database, f"ALTER TABLE customers ALTER size TYPE {after}")
    widened = extract(database, source, FULL, at(None)).metadata["widened_columns"]
    assert widened == f"size ({full_name(before)} to {full_name(after)})"
    with pytest.raises(SourceSchemaError, match="column size: expected"):
        extract(database, strict, FULL, at(None))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("bigint", "integer"),
        ("integer", "double precision"),
        ("numeric(12,2)", "numeric(12,3)"),
        ("numeric(5,2)", "numeric(5,-2)"),
        ("numeric(12,2)", "numeric(39,2)"),
        ("numeric(12,2)", "numeric"),
        ("varchar(9)", "varchar(5)"),
        ("text", "varchar(5)"),
        ("date", "timestamptz"),
    ],
)
def test_a_type_that_is_not_wider_is_refused(
    database: DatabaseResource, before: str, after: str
) -> None:
    execute(database, f"ALTER TABLE customers ADD COLUMN size {after}")
    source = replace(CUSTOMERS, columns={**CUSTOMERS.columns, "size": before})
    with pytest.raises(SourceSchemaError, match=f"size: .*{re.escape(full_name(after))}"):
        extract(database, source, FULL, at(None))


def test_a_missing_table_is_named_with_the_nearest(database: DatabaseResource) -> None:
    with pytest.raises(SourceSchemaError, match=r"public\.customer\b.*nearest: public\.customers"):
        extract(database, replace(CUSTOMERS, table="customer"), FULL, at(None))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": ("id",)}, "uses id without extracting"),
        ({"also": Recent("day", timedelta(1))}, "uses day without"),
        ({"watermark_column": "note"}, "must be a timestamptz"),
        ({"overlap": timedelta(-1)}, "negative"),
    ],
)
def test_a_source_table_that_makes_no_sense_is_refused(change: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        replace(CUSTOMERS, **change)


def test_names_of_any_kind_are_quoted(database: DatabaseResource) -> None:
    name = 'odd "name"; DROP TABLE customers; -- \\ %s'
    table = sql.Identifier(name)
    with database.connect() as connection, connection.cursor() as cursor:
        create = sql.SQL("CREATE TABLE {0} ({0} int, at timestamptz)").format(table)
        cursor.execute(create)
    source = SourceTable("public", name, {name: "int", "at": "timestamptz"}, "at", key=(name,))
    for watermark in (None, OLD):
        assert extract(database, source, INCREMENTAL, at(watermark)).rows_read is None


def test_the_index_on_the_watermark_column_is_used(database: DatabaseResource) -> None:
    execute(
        database,
        "INSERT INTO customers SELECT g, 'a', 'b', now() - g * interval '1 minute' "
        "FROM generate_series(1, 50000) g; ANALYZE customers",
    )
    start = now() - timedelta(minutes=30)
    for statement in (
        rows_query(CUSTOMERS, start, unique=True),
        position_query(CUSTOMERS),
        edge_query(CUSTOMERS),
    ):
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("EXPLAIN {}").format(statement))
            plan = "\n".join(line for (line,) in cursor.fetchall())
        assert "customers_updated_at_idx" in plan, plan
        assert "Seq Scan on customers" not in plan, plan


# What is as it was is not read


def position(write: TableWrite) -> Position:
    return Position(watermark=write.watermark, window=write.window)


def read(write: TableWrite) -> Position:
    """The position once the rows are written."""
    ids(write)
    return position(write)


def test_a_source_that_holds_what_it_held_is_not_read(database: DatabaseResource) -> None:
    insert(database, 1, "2024-01-01T12:00:00Z")
    first = read(extract(database, CUSTOMERS, INCREMENTAL, at(None)))
    again = extract(database, CUSTOMERS, INCREMENTAL, first)
    assert again.rows is None
    # Keys that are removed after this are committed with the position that they were found at.
    assert position(again) == first
    assert again.metadata["extraction"] == "incremental"
    assert extract(database, CUSTOMERS, FULL, first).rows is not None


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO customers VALUES (3, 'a', '', '2024-01-01T12:00:00Z')",
        "INSERT INTO customers VALUES (3, 'a', '', '2024-01-01T11:55:00Z')",
        "INSERT INTO customers VALUES (3, 'a', '', NULL)",
        "UPDATE customers SET note = 'changed' WHERE customer_id = 2",
        "DELETE FROM customers WHERE customer_id = 2",
    ],
)
def test_any_change_within_the_overlap_is_read(database: DatabaseResource, change: str) -> None:
    insert(database, 1, "2024-01-01T11:00:00Z")
    insert(database, 2, "2024-01-01T12:00:00Z")
    first = read(extract(database, CUSTOMERS, INCREMENTAL, at(None)))
    execute(database, change)
    second = extract(database, CUSTOMERS, INCREMENTAL, first)
    assert 1 not in ids(second)
    assert extract(database, CUSTOMERS, INCREMENTAL, position(second)).rows is None


def test_a_day_that_passes_is_a_change_of_what_is_read_again(database: DatabaseResource) -> None:
    columns = {**CUSTOMERS.columns, "day": "date"}
    source = replace(CUSTOMERS, columns=columns, also=Recent("day", timedelta(days=7)))
    insert(database, 1, OLD)
    insert(database, 2, "2024-01-02T00:00:00Z")
    execute(database, "UPDATE customers SET day = current_date - 7 WHERE customer_id = 1")
    first = read(extract(database, source, INCREMENTAL, at(None)))
    assert extract(database, source, INCREMENTAL, first).rows is None
    execute(database, "UPDATE customers SET note = 'changed' WHERE customer_id = 1")
    assert ids(extract(database, source, INCREMENTAL, first)) == [1, 2]


@pytest.mark.parametrize("storage", ["PLAIN", "EXTENDED", "EXTERNAL"])
def test_wide_rows_are_read_a_few_at_a_time(
    database: DatabaseResource, monkeypatch: Any, storage: str
) -> None:
    """Also where they take little room on disk."""
    monkeypatch.setattr(extraction, "_BATCH_BYTES", 2_048 * 3_000)
    execute(database, f"ALTER TABLE customers ALTER COLUMN note SET STORAGE {storage}")
    execute(
        database,
        "INSERT INTO customers SELECT g, '', repeat('x', 3000), '2024-01-01' "
        "FROM generate_series(1, 5000) g",
    )
    assert largest_batch(database) == 2048
    execute(
        database,
        "TRUNCATE customers; INSERT INTO customers "
        "SELECT g, '', '', '2024-01-01' FROM generate_series(1, 5000) g",
    )
    assert largest_batch(database) == 5000


def largest_batch(database: DatabaseResource) -> int:
    rows: Any = extract(database, CUSTOMERS, FULL, at(None)).rows
    return max(len(batch) for batch in rows)


# Several connections


LARGE = """
INSERT INTO customers SELECT g, '', repeat('x', 400), '2024-01-01' FROM generate_series(1, 60000) g
"""


def parts(
    database: DatabaseResource, source: SourceTable, config: ExtractConfig = FULL
) -> Sequence[sql.Composable]:
    with database.snapshot() as snapshot:
        reading = extraction._range(source, config, None, {})
        layout = extraction._layout(snapshot, source)
        return list(chain(*extraction._queries(snapshot, source, reading, layout, 3)))


def test_a_large_table_is_read_in_parts_that_hold_every_row_once(
    database: DatabaseResource,
) -> None:
    assert len(parts(database, CUSTOMERS)) == 1
    execute(database, LARGE)
    queries = parts(database, CUSTOMERS)
    each = [database.stream(query).read_all()["customer_id"].to_pylist() for query in queries]
    assert all(len(numbers) > 10_000 for numbers in each)
    assert {number for numbers in each for number in numbers} == set(range(1, 60_001))
    assert sum(map(len, each)) == 60_000


@pytest.mark.parametrize("kind", ["", "PARTITION BY HASH (customer_id)"])
def test_wide_rows_are_read_in_pieces_that_hold_every_row_once(
    database: DatabaseResource, monkeypatch: Any, kind: str
) -> None:
    monkeypatch.setattr(extraction, "_PIECE_BYTES", 256 * 1024)
    execute(database, f"CREATE TABLE wide (LIKE customers) {kind}")
    if kind:
        for rest in (0, 1):
            statement = "CREATE TABLE wide_{0} PARTITION OF wide FOR VALUES WITH {1}"
            execute(database, statement.format(rest, f"(MODULUS 2, REMAINDER {rest})"))
    execute(database, LARGE.replace("customers", "wide").replace("60000", "10000"))
    execute(database, "UPDATE wide SET updated_at = '2024-02-01' WHERE customer_id % 3 = 0")
    wide = replace(CUSTOMERS, table="wide")
    assert len(parts(database, wide)) > 10
    assert len(parts(database, wide, ExtractConfig(since="2024-01-15"))) > 10
    assert len(parts(database, wide, ExtractConfig(since="2024-02-15"))) == 1
    assert ids(extract(database, wide, FULL, at(None))) == list(range(1, 10_001))
    recent = ExtractConfig(since="2024-01-15")
    assert ids(extract(database, wide, recent, at(None))) == list(range(3, 10_001, 3))


def test_all_connections_read_one_snapshot(database: DatabaseResource) -> None:
    execute(database, LARGE)
    write = extract(database, CUSTOMERS, FULL, at(None))
    execute(database, "UPDATE customers SET customer_id = -customer_id")
    assert ids(write) == list(range(1, 60_001))


def test_a_partitioned_table_is_read_in_parts_too(database: DatabaseResource) -> None:
    execute(
        database,
        "CREATE TABLE parted (LIKE customers) PARTITION BY HASH (customer_id);"
        "CREATE TABLE part_0 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE part_1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        + LARGE.replace("customers", "parted").replace("60000", "100000"),
    )
    parted = replace(CUSTOMERS, table="parted")
    assert len(parts(database, parted)) == 3
    assert ids(extract(database, parted, FULL, at(None))) == list(range(1, 100_001))


def test_a_view_is_read_in_one_part(database: DatabaseResource) -> None:
    execute(database, LARGE)
    execute(database, "CREATE VIEW seen AS SELECT * FROM customers")
    assert len(parts(database, replace(CUSTOMERS, table="seen"))) == 1


@pytest.mark.parametrize(
    ("index", "reads"),
    [
        ("CREATE UNIQUE INDEX ON customers (customer_id)", 2),
        ("ALTER TABLE customers ADD PRIMARY KEY (customer_id)", 1),
    ],
)
def test_only_a_key_that_is_surely_unique_spares_the_search_for_versions(
    database: DatabaseResource, index: str, reads: int
) -> None:
    from forge_platform.postgres.source import key_query

    execute(database, index)
    with database.snapshot() as snapshot:
        assert len(snapshot.rows(key_query(NEWEST))) == 2 - reads


# The sensor


class Sensor:
    """A sensor as the daemon evaluates it: the cursor is kept, run keys are remembered."""

    def __init__(self, database: DatabaseResource, *tables: SourceTable) -> None:
        self.database = database
        self.instance = dg.DagsterInstance.ephemeral()
        self.definition = new_data_sensor("new_data_sensor", tables, job_name="ingestion_job")
        self.cursor: str | None = None
        self.run_keys: list[str | None] = []

    def look(self, *, keep: bool = True) -> str:
        """Tables whose change was requested, or why nothing was."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"database": self.database}
        )
        found = self.definition.evaluate_tick(context)
        self.run_keys += [request.run_key for request in found.run_requests or []]
        if keep:
            self.cursor = found.cursor
        if found.run_requests:
            [request] = found.run_requests
            return str(request.tags[CHANGED_TABLES])
        return f"skipped: {found.skip_message}"


@pytest.fixture
def sensor(database: DatabaseResource) -> Sensor:
    return Sensor(database, replace(CUSTOMERS, overlap=timedelta(minutes=10)))


TABLE = "public.customers"
SKIPPED = "skipped: No new rows in the source."


def test_the_first_rows_are_requested_once(sensor: Sensor) -> None:
    assert sensor.look() == SKIPPED
    insert(sensor.database, 1, OLD)
    assert sensor.look() == TABLE
    assert sensor.look() == SKIPPED
    assert sensor.look() == SKIPPED


def test_the_cursor_advances_with_the_newest_row(sensor: Sensor) -> None:
    insert(sensor.database, 1, OLD)
    sensor.look()
    assert json.loads(sensor.cursor or "")[TABLE]["newest"] == OLD
    insert(sensor.database, 2, "2024-01-02T00:00:00Z")
    assert sensor.look() == TABLE
    assert json.loads(sensor.cursor or "")[TABLE]["newest"] == "2024-01-02T00:00:00+00:00"
    assert len(set(sensor.run_keys)) == 2


def test_two_rows_that_share_a_time_stamp_are_both_noticed(sensor: Sensor) -> None:
    insert(sensor.database, 1, OLD)
    assert sensor.look() == TABLE
    insert(sensor.database, 2, OLD)
    assert sensor.look() == TABLE
    assert sensor.look() == SKIPPED
    assert len(set(sensor.run_keys)) == 2


def test_a_row_that_is_the_copy_of_another_is_noticed(sensor: Sensor) -> None:
    insert(sensor.database, 1, OLD)
    sensor.look()
    insert(sensor.database, 1, OLD)
    assert sensor.look() == TABLE


def test_a_late_commit_is_noticed_within_the_overlap(sensor: Sensor) -> None:
    insert(sensor.database, 1, "2024-01-01T00:10:00Z")
    sensor.look()
    insert(sensor.database, 2, "2024-01-01T00:01:00Z")
    assert sensor.look() == TABLE
    assert sensor.look() == SKIPPED


def test_a_late_commit_of_an_open_transaction_is_noticed_without_overlap(
    database: DatabaseResource,
) -> None:
    sensor = Sensor(database, replace(CUSTOMERS, overlap=timedelta(0)))
    with transaction(database) as late:
        insert_now(late, 1)
        time.sleep(0.05)
        insert(database, 2, now())
        assert sensor.look() == TABLE
        assert sensor.look() == SKIPPED
        late.commit()
    assert sensor.look() == TABLE
    assert sensor.look() == SKIPPED


def test_a_changed_and_a_deleted_row_are_noticed(sensor: Sensor) -> None:
    insert(sensor.database, 1, OLD)
    insert(sensor.database, 2, OLD)
    sensor.look()
    execute(sensor.database, "UPDATE customers SET note = 'x' WHERE customer_id = 1")
    assert sensor.look() == TABLE
    execute(sensor.database, "DELETE FROM customers WHERE customer_id = 1")
    assert sensor.look() == TABLE
    assert sensor.look() == SKIPPED


def test_a_look_that_is_repeated_after_a_crash_has_the_same_run_key(sensor: Sensor) -> None:
    insert(sensor.database, 1, OLD)
    sensor.look(keep=False)
    sensor.look()
    assert sensor.run_keys[0] == sensor.run_keys[1]


def test_the_tables_that_changed_are_named(database: DatabaseResource) -> None:
    execute(database, "CREATE TABLE others AS SELECT * FROM customers")
    others = replace(CUSTOMERS, table="others")
    sensor = Sensor(database, CUSTOMERS, others)
    execute(database, "INSERT INTO others VALUES (1, 'a', 'b', now())")
    assert sensor.look() == "public.others"
    insert(database, 1, OLD)
    execute(database, "INSERT INTO others VALUES (2, 'a', 'b', now())")
    assert sensor.look() == "public.customers, public.others"
    assert sensor.look() == SKIPPED


def test_a_source_that_is_away_costs_nothing_but_time(sensor: Sensor) -> None:
    insert(sensor.database, 1, OLD)
    sensor.look()
    there = sensor.database
    sensor.database = changed(there, port=1)
    assert "127.0.0.1:1" in sensor.look()
    sensor.database = there
    assert sensor.look() == SKIPPED
    sensor.database = changed(there, port=1)
    sensor.look()
    insert(there, 2, OLD)
    sensor.database = there
    assert sensor.look() == TABLE


def test_a_source_that_refuses_is_a_failed_look(sensor: Sensor) -> None:
    sensor.database = changed(sensor.database, password="wrong")
    with pytest.raises(AuthenticationFailed):
        sensor.look()


def test_an_unreadable_cursor_makes_everything_news(sensor: Sensor) -> None:
    insert(sensor.database, 1, OLD)
    for cursor in ("rubbish", "[]", '{"public.customers": [1]}'):
        sensor.cursor = cursor
        assert sensor.look() == TABLE
        assert sensor.look() == SKIPPED


def test_nothing_is_missed_while_many_write_at_once(database: DatabaseResource) -> None:
    """After the last commit one more look must see what the run before it could not read."""
    source = replace(CUSTOMERS, overlap=timedelta(0))
    sensor = Sensor(database, source)
    seen: set[int] = set()
    watermark: str | None = None

    def write(first: int) -> None:
        for number in range(first, first + 40):
            with transaction(database) as connection:
                time.sleep(number % 5 / 200)
                insert_now(connection, number)
                connection.commit()

    def look_and_run() -> None:
        nonlocal watermark
        if sensor.look() == TABLE:
            run = extract(database, source, INCREMENTAL, at(watermark))
            seen.update(ids(run))
            watermark = run.watermark

    writers = [threading.Thread(target=write, args=(n,)) for n in (0, 100, 200)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        look_and_run()
    look_and_run()
    assert len(seen) == 120
    assert sensor.look() == SKIPPED
    assert len(set(sensor.run_keys)) == len(sensor.run_keys)


def test_the_source_being_away_while_extracting_is_transient(database: DatabaseResource) -> None:
    with pytest.raises(SourceUnavailable):
        extract(changed(database, port=1), CUSTOMERS, INCREMENTAL, at(None))


# What looks as if it could be left out


def test_a_new_column_is_read_of_all_rows(database: DatabaseResource) -> None:
    """Its default fills the old rows, and renews no time stamp."""
    insert(database, 1, OLD)
    insert(database, 2, "2024-02-01T00:00:00Z")
    first = read(extract(database, CUSTOMERS, INCREMENTAL, at(None)))
    execute(database, "ALTER TABLE customers ADD COLUMN country text NOT NULL DEFAULT 'DE'")
    assert extract(database, CUSTOMERS, INCREMENTAL, first).rows is None
    wider = replace(CUSTOMERS, columns={**CUSTOMERS.columns, "country": "text"})
    second = extract(database, wider, INCREMENTAL, first)
    assert second.mode == "overwrite"
    assert ids(second) == [1, 2]
    assert extract(database, wider, INCREMENTAL, position(second)).rows is None


@pytest.mark.parametrize("since", ["2024-01-15", "2024-03-01"])
def test_a_run_since_a_moment_has_not_read_a_new_column(
    database: DatabaseResource, since: str
) -> None:
    insert(database, 1, OLD)
    insert(database, 2, "2024-02-01T00:00:00Z")
    first = read(extract(database, CUSTOMERS, INCREMENTAL, at(None)))
    execute(database, "ALTER TABLE customers ADD COLUMN country text NOT NULL DEFAULT 'DE'")
    wider = replace(CUSTOMERS, columns={**CUSTOMERS.columns, "country": "text"})
    part = read(extract(database, wider, ExtractConfig(since=since), first))
    assert ids(extract(database, wider, INCREMENTAL, part)) == [1, 2]


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("numeric(12,2)", "NaN", "NaN"),
        ("date", "infinity", "infinity"),
        ("timestamptz", "10000-01-01", "outside of 1 to 9999"),
        ("timestamp", "0001-01-01 BC", "outside of 1 to 9999"),
        ("time", "24:00", "24:00"),
    ],
)
def test_what_is_refused_is_found_before_the_first_row_is_merged(
    database: DatabaseResource, kind: str, value: str, problem: str
) -> None:
    """A merge of many rows is committed in pieces, and a piece cannot be taken back."""
    execute(database, f"ALTER TABLE customers ADD COLUMN odd {kind}")
    source = replace(CUSTOMERS, columns={**CUSTOMERS.columns, "odd": kind})
    insert(database, 1, now())
    write = extract(database, source, INCREMENTAL, at(OLD))
    assert ids(write) == [1]
    insert(database, 2, now())
    execute(database, "UPDATE customers SET odd = %s WHERE customer_id = 2", (value,))
    with pytest.raises(SourceSchemaError, match=f"column odd .*{problem}"):
        extract(database, source, INCREMENTAL, at(OLD))


def test_after_a_run_that_leaves_a_gap_the_next_one_reads(database: DatabaseResource) -> None:
    insert(database, 1, "2024-01-01T00:00:00Z")
    first = read(extract(database, CUSTOMERS, INCREMENTAL, at(None)))
    insert(database, 2, "2024-03-01T00:00:00Z")
    gap = extract(database, CUSTOMERS, ExtractConfig(since="2024-02-01"), first)
    assert gap.watermark == first.watermark
    assert ids(extract(database, CUSTOMERS, INCREMENTAL, position(gap))) == [1, 2]


def test_a_key_that_tables_inherit_is_not_unique(database: DatabaseResource) -> None:
    execute(database, "ALTER TABLE customers ADD PRIMARY KEY (customer_id)")
    execute(database, "CREATE TABLE heirs () INHERITS (customers)")
    insert(database, 1, OLD, "old")
    execute(database, "INSERT INTO heirs VALUES (1, 'a@b.c', 'new', now())")
    assert ids(extract(database, NEWEST, FULL, at(None))) == [1]


@pytest.mark.parametrize(
    "kind",
    ["time", "time(3)", "timetz", "timetz(2)", "timestamp(3)", "timestamptz(0)", "varchar(9)"],
)
def test_types_may_be_given_by_their_short_names(database: DatabaseResource, kind: str) -> None:
    execute(database, f"ALTER TABLE customers ADD COLUMN odd {kind}")
    columns = {**CUSTOMERS.columns, "day": "date", "odd": kind}
    source = replace(CUSTOMERS, columns=columns, schema_changes="refuse")
    assert ids(extract(database, source, FULL, at(None))) == []
