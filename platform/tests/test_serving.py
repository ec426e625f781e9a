from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import psycopg2
import pytest

from forge_platform.errors import (
    AuthenticationFailed,
    ContractViolation,
    PermanentError,
    SchemaMismatch,
    SourceUnavailable,
)
from forge_platform.resources.database import DatabaseResource
from forge_platform.serving import SyncCounts, sync_table
from forge_platform.testing import ConnectionParameters

KEY = ["id"]


@pytest.fixture
def database(new_database: ConnectionParameters) -> DatabaseResource:
    return DatabaseResource(**new_database)


def execute(database: DatabaseResource, statement: str) -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def sync(database: DatabaseResource, frame: pl.DataFrame) -> SyncCounts:
    return sync_table(database, "serving", "metrics", KEY, frame)


def rows(database: DatabaseResource) -> list[Mapping[str, Any]]:
    return database.query("SELECT * FROM serving.metrics ORDER BY id")


def metrics(**values: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(values)


def test_the_first_sync_makes_schema_table_and_primary_key(database: DatabaseResource) -> None:
    counts = sync(database, metrics(id=[1, 2], name=["a", None]))
    assert counts == SyncCounts(inserted=2, updated=0, deleted=0, unchanged=0)
    assert rows(database) == [{"id": 1, "name": "a"}, {"id": 2, "name": None}]
    with pytest.raises(PermanentError, match="metrics_pkey"):
        execute(database, "INSERT INTO serving.metrics VALUES (1, 'again')")


def test_only_what_differs_is_written(database: DatabaseResource) -> None:
    sync(database, metrics(id=[1, 2, 3, 4], name=["a", "b", None, None]))
    untouched = "SELECT id, xmin::text FROM serving.metrics WHERE id IN (1, 4) ORDER BY id"
    before = database.query(untouched)
    counts = sync(database, metrics(id=[4, 1, 3, 5], name=[None, "a", "new", "e"]))
    assert counts == SyncCounts(inserted=1, updated=1, deleted=1, unchanged=2)
    assert counts.as_metadata()["rows_unchanged"] == 2
    assert [tuple(row.values()) for row in rows(database)] == [
        (1, "a"),
        (3, "new"),
        (4, None),
        (5, "e"),
    ]
    assert database.query(untouched) == before


def test_the_same_again_writes_nothing(database: DatabaseResource) -> None:
    frame = metrics(id=[1, 2], value=[0.1, float("nan")])
    sync(database, frame)
    assert sync(database, frame) == SyncCounts(inserted=0, updated=0, deleted=0, unchanged=2)


def test_no_rows_leave_an_empty_table(database: DatabaseResource) -> None:
    frame = metrics(id=[1], name=["a"])
    sync(database, frame)
    assert sync(database, frame.clear()).deleted == 1
    assert rows(database) == []


def test_every_type_arrives_as_it_is(database: DatabaseResource) -> None:
    moment = dt.datetime(2024, 2, 29, 23, 59, 59, 123456)  # noqa: DTZ001 - both kinds are tested
    frame = pl.DataFrame(
        {
            "id": [1, 2],
            "text": ["", None],
            "odd": ['quote " comma , \\. \\N\nline \r\n tab \t €', "NULL"],
            "small": pl.Series([-128, 127], dtype=pl.Int8),
            "unsigned": pl.Series([2**64 - 1, 0], dtype=pl.UInt64),
            "real": [0.1 + 0.2, float("-inf")],
            "single": pl.Series([0.1, None], dtype=pl.Float32),
            "money": pl.Series([Decimal("12345678901234567890.12"), None], dtype=pl.Decimal(38, 2)),
            "flag": [True, None],
            "day": [dt.date(1, 1, 1), dt.date(9999, 12, 31)],
            "clock": [dt.time(23, 59, 59, 999999), None],
            "utc": [moment.replace(tzinfo=dt.UTC), None],
            "plain": [moment, None],
            "raw": [b"\x00\xff\\", b""],
            "kind": pl.Series(["a", "b"], dtype=pl.Categorical),
        }
    )
    sync(database, frame)
    stored = rows(database)
    assert [row["raw"].tobytes() for row in stored] == [b"\x00\xff\\", b""]
    assert [row["real"] for row in stored] == [0.1 + 0.2, float("-inf")]
    assert stored[0]["unsigned"] == 2**64 - 1
    exact = [name for name in frame.columns if name not in {"raw", "single"}]
    assert [{name: row[name] for name in exact} for row in stored] == frame.select(exact).to_dicts()
    assert database.columns("serving", "metrics")["money"] == "numeric(38,2)"
    assert database.columns("serving", "metrics")["utc"] == "timestamp with time zone"
    assert sync(database, frame).unchanged == 2


OLDER_SERVER = r"""
import sys
from pathlib import Path
import polars as pl
from forge_platform import DatabaseResource, sync_table
from forge_platform.testing import EmbeddedPostgres

words = pl.DataFrame({"word": ["a", "\\.", "b", ""]})
with EmbeddedPostgres(Path(sys.argv[1]), password="p", durable=False) as server:
    database = DatabaseResource(**server.connection())
    sync_table(database, "serving", "words", ["word"], words)
    stored = database.query("SELECT word FROM serving.words ORDER BY word")
    [version] = database.query("SELECT current_setting('server_version_num') AS number")
    print(version["number"][:2], [row["word"] for row in stored])
"""


def test_a_row_that_ended_a_copy_before_postgresql_18_does_not(server_folder: Path) -> None:
    older = {**os.environ, "PGSERVER_POSTGRES_VERSION": "16"}
    command = [sys.executable, "-c", OLDER_SERVER, str(server_folder / "older")]
    ended = subprocess.run(command, env=older, check=True, stdout=subprocess.PIPE, text=True)
    assert ended.stdout == f"16 {['', chr(92) + '.', 'a', 'b']}\n"


def test_keys_of_several_columns_and_nothing_else(database: DatabaseResource) -> None:
    frame = metrics(day=["a", "a"], id=[1, 2])
    sync_table(database, "serving", "pairs", ["day", "id"], frame)
    counts = sync_table(database, "serving", "pairs", ["day", "id"], frame.filter(id=2))
    assert counts == SyncCounts(inserted=0, updated=0, deleted=1, unchanged=1)


def test_names_of_any_kind_are_quoted(database: DatabaseResource) -> None:
    name = 'odd "name"; DROP TABLE x; -- \\'
    frame = pl.DataFrame({"id": [1], name: [1]})
    sync_table(database, name, name, KEY, frame)
    assert database.columns(name, name) == {"id": "bigint", name: "bigint"}


def test_grants_views_and_indexes_survive(database: DatabaseResource) -> None:
    sync(database, metrics(id=[1], name=["a"]))
    execute(
        database,
        "CREATE VIEW shown AS SELECT name FROM serving.metrics;"
        "CREATE INDEX by_name ON serving.metrics (name);"
        "GRANT SELECT ON serving.metrics TO PUBLIC",
    )
    sync(database, metrics(id=[2], name=["b"], extra=[1]))
    assert database.query("SELECT name FROM shown") == [{"name": "b"}]
    granted = "SELECT has_table_privilege('public', 'serving.metrics', 'SELECT') AS granted"
    assert database.query(granted) == [{"granted": True}]
    assert database.query("SELECT FROM pg_indexes WHERE indexname = 'by_name'")


def test_a_new_column_is_added_and_filled(database: DatabaseResource) -> None:
    sync(database, metrics(id=[1, 2]))
    counts = sync(database, metrics(id=[1, 2], name=["a", None]))
    assert counts.updated == 1
    assert rows(database) == [{"id": 1, "name": "a"}, {"id": 2, "name": None}]


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ({"id": [1], "name": [1]}, "name text.*name bigint"),
        ({"id": [1]}, "name text.*rows:  id bigint;"),
        ({"id": ["1"], "name": ["a"]}, "id bigint.*id text"),
    ],
)
def test_any_other_change_of_the_schema_is_refused(
    database: DatabaseResource, other: dict[str, list[Any]], shown: str
) -> None:
    sync(database, metrics(id=[1], name=["a"]))
    with pytest.raises(SchemaMismatch, match=f"(?s){shown}"):
        sync(database, pl.DataFrame(other))
    assert rows(database) == [{"id": 1, "name": "a"}]


def test_another_key_than_the_table_has_is_refused(database: DatabaseResource) -> None:
    execute(database, "CREATE SCHEMA serving; CREATE TABLE serving.metrics (id bigint)")
    with pytest.raises(SchemaMismatch, match=r"(?s)primary key none.*key id"):
        sync(database, metrics(id=[1]))


@pytest.mark.parametrize(
    ("ids", "said"), [([1, 1, 2], "1 have the key"), ([1, None, None], "2 have no key")]
)
def test_rows_that_are_not_unique_are_refused(
    database: DatabaseResource, ids: list[int | None], said: str
) -> None:
    sync(database, metrics(id=[7]))
    with pytest.raises(ContractViolation, match=said):
        sync(database, metrics(id=ids))
    assert rows(database) == [{"id": 7}]


def test_a_key_that_is_no_column_is_refused(database: DatabaseResource) -> None:
    with pytest.raises(SchemaMismatch, match="needs a key, and id is not"):
        sync(database, metrics(other=[1]))
    with pytest.raises(SchemaMismatch, match="needs a key, and an empty one"):
        sync_table(database, "serving", "metrics", [], metrics(id=[1]))


def test_types_that_postgresql_lacks_are_named(database: DatabaseResource) -> None:
    frame = metrics(id=[1], many=[[1]], unknown=[None], long=[dt.timedelta(1)])
    with pytest.raises(SchemaMismatch, match=r"many \(List.*unknown \(Null.*long \(Duration"):
        sync(database, frame)


def test_a_value_that_postgresql_refuses_changes_nothing(database: DatabaseResource) -> None:
    sync(database, metrics(id=[1], name=["a"]))
    with pytest.raises(PermanentError, match="0x00"):
        sync(database, metrics(id=[1, 2], name=["b", "zero \x00 byte"]))
    assert rows(database) == [{"id": 1, "name": "a"}]


def test_the_server_being_away_or_refusing_is_told(database: DatabaseResource) -> None:
    with pytest.raises(AuthenticationFailed):
        sync(database.model_copy(update={"password": "no"}), metrics(id=[1]))
    with pytest.raises(SourceUnavailable):
        sync(database.model_copy(update={"port": 1}), metrics(id=[1]))


def test_a_reader_never_sees_a_part(database: DatabaseResource) -> None:
    """Every version has other ids, and another number of rows that all hold that number."""
    seen: set[tuple[int, ...]] = set()
    stop = threading.Event()

    def version(number: int) -> pl.DataFrame:
        height = 500 * number
        return pl.DataFrame(
            {"id": range(number, number + height), "version": [number] * height, "rows": height}
        )

    def read() -> None:
        with psycopg2.connect(database.connection_string) as connection:
            connection.autocommit = True
            while not stop.is_set():
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT count(*), count(DISTINCT version), max(rows) FROM serving.metrics"
                    )
                    seen.add(tuple(cursor.fetchone() or ()))

    sync(database, version(1))
    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for number in [2, 5, 3, 4, 1, 6, 2, 7, 1, 8]:
            sync(database, version(number))
        stop.set()
    assert not [reader.exception() for reader in readers if reader.exception()]
    assert len(seen) > 3
    assert all(count == height and versions == 1 for count, versions, height in seen)


def test_syncs_at_the_same_time_leave_one_of_them(database: DatabaseResource) -> None:
    """The first ones also race to create schema and table."""
    frames = [metrics(id=list(range(n, n + 300)), version=[n] * 300) for n in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda frame: sync(database, frame), frames))
    assert all(count.inserted + count.updated + count.unchanged == 300 for count in counts)
    stored = rows(database)
    assert len(stored) == 300
    assert len({row["version"] for row in stored}) == 1


def test_tables_of_one_new_schema_are_made_at_the_same_time(database: DatabaseResource) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = pool.map(
            lambda number: sync_table(database, "fresh", f"t{number}", KEY, metrics(id=[number])),
            range(6),
        )
        assert [count.inserted for count in made] == [1] * 6
