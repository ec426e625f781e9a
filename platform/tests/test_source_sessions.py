"""Extraction through a pooler and from a standby, and what its sessions cost the source."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from pooled_postgres import pooled, standby_of, wait_until_replayed
from psycopg2 import sql
from pyiceberg.catalog import Catalog

from forge_platform import extraction
from forge_platform.extraction import ExtractConfig, SourceTable, extract
from forge_platform.iceberg.catalog import open_catalog
from forge_platform.iceberg.state import WATERMARK, WINDOW, state
from forge_platform.iceberg.view import IcebergView, current_snapshot_id
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table
from forge_platform.postgres.stream import STREAM_NAME
from forge_platform.resources.database import DatabaseResource
from forge_platform.tables import Position
from forge_platform.testing import ConnectionParameters, EmbeddedPostgres

TABLE = "space.things"
KEYED = TableOptions(key=("id",))
CREATE = """
CREATE TABLE things (id bigint PRIMARY KEY, value text, updated_at timestamptz);
CREATE INDEX ON things (updated_at);
INSERT INTO things SELECT id, repeat(id::text, 20), now() FROM generate_series(1, 20000) AS id;
ANALYZE things
"""
CHANGE = """
UPDATE things SET value = 'changed', updated_at = now() WHERE id % 1000 = 0;
INSERT INTO things VALUES (0, 'new', now())
"""
THINGS = SourceTable(
    "public",
    "things",
    {"id": "bigint", "value": "text", "updated_at": "timestamptz"},
    key=("id",),
)
MANY = sql.SQL("SELECT id, repeat('x', 100) AS text FROM generate_series(1, 1000000) AS id")


@pytest.fixture(scope="module")
def primary(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server of the module's own: what its sessions do is looked at, and it is backed up."""
    folder = server_folder / "primary"
    with EmbeddedPostgres(folder, password="it's a secret", durable=False) as server:
        execute(DatabaseResource(**server.connection()), CREATE)
        yield server


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(f"sqlite:///{tmp_path}/catalog.db", f"file://{tmp_path}/tables", {})


def execute(database: DatabaseResource, statement: str) -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def run(database: DatabaseResource, catalog: Catalog) -> Any:
    """What a run does: from the watermark on, merged by key."""
    known = state(catalog.load_table(TABLE)) if catalog.table_exists(TABLE) else {}
    position = Position(watermark=known.get(WATERMARK), window=known.get(WINDOW))
    found = extract(database, THINGS, ExtractConfig(), position)
    if found.rows is None:
        return None
    properties = {WATERMARK: found.watermark or "", WINDOW: found.window or ""}
    request = WriteRequest(rows=found.rows, mode=found.mode or "merge", properties=properties)
    return write_table(catalog, TABLE, request, KEYED)


def is_in_step(database: DatabaseResource, catalog: Catalog) -> bool:
    table = catalog.load_table(TABLE)
    found = IcebergView(table, TABLE, current_snapshot_id(table)).read().sort("id")
    expected = database.query("SELECT id, value, updated_at FROM things ORDER BY id")
    return bool(found.rows() == [tuple(row.values()) for row in expected])


def runs_in_step(
    reading: DatabaseResource,
    writing: DatabaseResource,
    catalog: Catalog,
    arrived: Callable[[], None] = lambda: None,
) -> None:
    """A full run over several connections, one that has nothing to do, and an incremental one."""
    run(reading, catalog)
    assert is_in_step(writing, catalog)
    assert run(reading, catalog) is None
    execute(writing, CHANGE.replace("(0,", f"({uuid4().int % 10**9 + 10**6},"))
    arrived()
    run(reading, catalog)
    assert is_in_step(writing, catalog)


def test_extraction_through_a_pooler(
    primary: EmbeddedPostgres, catalog: Catalog, server_folder: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(extraction, "_LARGE_PAGES", 1)
    direct = DatabaseResource(**primary.connection())
    with pooled(primary.connection(), server_folder) as address:
        database = DatabaseResource(**address)
        runs_in_step(database, direct, catalog)
        # What a session was told is not handed on to the next client.
        [setting] = database.query("SELECT current_setting('statement_timeout') AS timeout")
        assert setting["timeout"] == "1min"
        assert STREAM_NAME not in names_of_clients_without(address)
        [server] = direct.query(
            "SELECT count(*) AS idle FROM pg_stat_activity WHERE state = 'idle in transaction'"
        )
        assert server["idle"] == 0


def names_of_clients_without(address: ConnectionParameters) -> set[str]:
    """What sessions are called whose client gives no name: each is one of the pooler's."""
    names = set()
    with ExitStack() as opened:
        for _ in range(3):
            client = opened.enter_context(closing(psycopg2.connect(**address)))
            cursor = client.cursor()
            cursor.execute("SELECT current_setting('application_name')")
            names |= {name for (name,) in cursor.fetchall()}
    return names


def test_extraction_from_a_standby(
    primary: EmbeddedPostgres, catalog: Catalog, server_folder: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(extraction, "_LARGE_PAGES", 1)
    direct = DatabaseResource(**primary.connection())
    with standby_of(primary, server_folder / "standby") as standby:
        wait_until_replayed(primary, standby)
        database = DatabaseResource(**standby.connection())
        found = extract(database, THINGS, ExtractConfig(), Position())
        assert "on a replica there is only the overlap" in found.metadata["late_commits"]
        runs_in_step(database, direct, catalog, lambda: wait_until_replayed(primary, standby))


@pytest.mark.parametrize("connections", [1, 3])
def test_as_many_connections_as_allowed_and_none_afterwards(
    primary: EmbeddedPostgres, monkeypatch: Any, connections: int
) -> None:
    monkeypatch.setattr(extraction, "_LARGE_PAGES", 1)
    database = DatabaseResource(**primary.connection(), stream_connections=connections)
    found = extract(database, THINGS, ExtractConfig(), Position())
    # The session that all readers take their snapshot from has ended already.
    assert len(sessions(database)) == connections
    assert sum(batch.num_rows for batch in found.rows or []) >= 20000  # type: ignore[union-attr,misc]
    wait_until_no_session(database)


@pytest.mark.parametrize("read", [False, True])
def test_a_session_that_ends_under_an_unread_stream_does_not_end_the_process(
    primary: EmbeddedPostgres, *, read: bool
) -> None:
    database = DatabaseResource(**primary.connection())
    reader = database.stream(MANY)
    if read:
        reader.read_next_batch()
    for session in sessions(database):
        os.kill(session, signal.SIGTERM)
    wait_until_no_session(database)
    del reader
    gc.collect()


def sessions(database: DatabaseResource) -> list[int]:
    rows = database.query(
        "SELECT pid FROM pg_stat_activity WHERE application_name = :name", name=STREAM_NAME
    )
    return [row["pid"] for row in rows]


def wait_until_no_session(database: DatabaseResource) -> None:
    deadline = time.monotonic() + 10
    while sessions(database):
        assert time.monotonic() < deadline, "the streaming session is still there"
        time.sleep(0.05)
