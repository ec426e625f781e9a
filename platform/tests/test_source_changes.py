"""What a run does when the source's tables are altered while it reads them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg2 import sql

from forge_platform import (
    ExtractConfig,
    IcebergResource,
    SourceTable,
    SourceUnavailable,
    extract,
)
from forge_platform.iceberg.state import WATERMARK, WINDOW
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table
from forge_platform.postgres.stream import Snapshot
from forge_platform.resources.database import DatabaseResource
from forge_platform.testing import ConnectionParameters

CREATE = """
CREATE TABLE things (id int PRIMARY KEY, value text);
INSERT INTO things SELECT id, 'old' FROM generate_series(1, 1000) AS id;
CREATE TABLE parted (id int, value text) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (2000);
INSERT INTO parted SELECT * FROM things;
CREATE TABLE base AS SELECT * FROM things;
CREATE VIEW seen AS SELECT id FROM base;
CREATE MATERIALIZED VIEW kept AS SELECT * FROM things
"""
SWAP = """
CREATE TABLE anew AS SELECT * FROM things;
ALTER TABLE things RENAME TO gone;
ALTER TABLE anew RENAME TO things
"""


@pytest.fixture
def database(new_database: ConnectionParameters) -> DatabaseResource:
    made = DatabaseResource(**new_database)
    execute(made, CREATE)
    return made


def execute(database: DatabaseResource, statement: str) -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def rows_of(snapshot: Snapshot, table: str) -> int:
    reader = snapshot.stream([[sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))]])
    return sum(batch.num_rows for batch in reader)


@pytest.mark.parametrize(
    ("change", "read", "named"),
    [
        ("ALTER TABLE parted ALTER value TYPE int USING id", "parted", "part"),
        ("TRUNCATE things", "things", "things"),
        (SWAP, "things", "things"),
        ("ALTER TABLE base ALTER value TYPE int USING id", "seen", "base"),
        ("REFRESH MATERIALIZED VIEW kept", "kept", "kept"),
        ("TRUNCATE part", "parted", "part"),
    ],
)
def test_a_table_that_was_rewritten_is_not_taken_for_empty(
    database: DatabaseResource, change: str, read: str, named: str
) -> None:
    with database.snapshot() as snapshot:
        snapshot.rows(sql.SQL("SELECT 1"))
        execute(database, change)
        with pytest.raises(SourceUnavailable, match=rf"^{named} in .* rewritten .* read again"):
            rows_of(snapshot, read)
    with database.snapshot() as snapshot:
        assert rows_of(snapshot, read) == (0 if "TRUNCATE" in change else 1000)


def test_what_a_source_gains_between_two_runs_arrives_in_its_table(
    database: DatabaseResource, tmp_path: Path
) -> None:
    iceberg = IcebergResource(
        catalog_uri=f"sqlite:///{tmp_path}/catalog.db", warehouse_path=f"file://{tmp_path}/tables"
    )
    columns = {"id": "int", "at": "timestamptz"}
    source = SourceTable(
        "public", "events", columns, watermark_column="at", key=("id",), schema_changes="add"
    )

    def run() -> None:
        found = extract(database, source, ExtractConfig(), iceberg.position("space.events"))
        assert found.rows is not None
        properties = {WATERMARK: found.watermark or "", WINDOW: found.window or ""}
        mode = found.mode or "merge"
        request = WriteRequest(rows=found.rows, mode=mode, properties=properties)
        write_table(iceberg.catalog(), "space.events", request, TableOptions(key=("id",)))

    execute(database, "CREATE TABLE events (id int PRIMARY KEY, at timestamptz DEFAULT now())")
    execute(database, "INSERT INTO events VALUES (1)")
    run()
    execute(database, "ALTER TABLE events ALTER id TYPE bigint, ADD size int DEFAULT 7")
    execute(database, "INSERT INTO events VALUES (3000000000)")
    run()
    execute(database, "UPDATE events SET size = 8, at = now() WHERE id = 1")
    run()
    view = iceberg.view("space.events")
    assert view.column_types() == {"id": "long", "at": "timestamptz", "size": "int"}
    assert sorted(view.read(["id", "size"]).rows()) == [(1, 8), (3_000_000_000, 7)]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE things ADD COLUMN added text",
        "CREATE INDEX ON things (value)",
        "VACUUM things",
    ],
)
def test_a_change_that_keeps_the_rows_is_none(database: DatabaseResource, change: str) -> None:
    with database.snapshot() as snapshot:
        snapshot.rows(sql.SQL("SELECT 1"))
        at_once(database, change)
        assert rows_of(snapshot, "things") == 1000
        assert rows_of(snapshot, "parted") == 1000


def test_a_change_that_waits_goes_first(database: DatabaseResource) -> None:
    """Its lock waits for the snapshot's; the readers would wait for it, and all for ever."""
    with database.snapshot() as snapshot:
        snapshot.rows(sql.SQL("SELECT FROM things LIMIT 1"))
        with in_background(database, "ALTER TABLE things ADD COLUMN added text"):
            wait_until_somebody_waits(database)
            began = time.monotonic()
            with pytest.raises(SourceUnavailable, match="A change of the table goes first"):
                rows_of(snapshot, "things")
            assert time.monotonic() - began < 10
            snapshot.__exit__(None, None, None)
    with database.snapshot() as snapshot:
        assert rows_of(snapshot, "things") == 1000


def at_once(database: DatabaseResource, statement: str) -> None:
    connection = database.connection()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


@contextmanager
def in_background(database: DatabaseResource, statement: str) -> Iterator[None]:
    thread = threading.Thread(target=execute, args=(database, statement))
    thread.start()
    try:
        yield
    finally:
        thread.join(30)
        assert not thread.is_alive()


def wait_until_somebody_waits(database: DatabaseResource) -> None:
    deadline = time.monotonic() + 10
    while not database.query("SELECT FROM pg_locks WHERE NOT granted"):
        assert time.monotonic() < deadline, "nobody waits for a lock"
        time.sleep(0.05)
