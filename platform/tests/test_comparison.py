"""Reconciliation and deletes against a real PostgreSQL and real Iceberg tables."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import psycopg2
import pytest
from psycopg2 import sql

from forge_platform.comparison import compare as comparing
from forge_platform.comparison.ranges import KeyRange
from forge_platform.comparison.tables import KeyedTables, Report, compare_keys, reconcile
from forge_platform.deletes import DeletesConfig, remove_marked, remove_missing_keys
from forge_platform.errors import ConfigurationError
from forge_platform.extraction import ExtractConfig, Recent, SourceTable, extract
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table
from forge_platform.resources.database import DatabaseResource
from forge_platform.resources.iceberg import IcebergResource
from forge_platform.tables import TableWrite
from forge_platform.testing import ConnectionParameters

TABLE = "ingestion.things"
CREATE = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN short AS varchar(5);
CREATE TABLE things (
    id bigint PRIMARY KEY, small smallint, plain integer, flag boolean, single real,
    twice double precision, money numeric(12, 2), wide numeric(38, 10), loose numeric,
    word text, fixed char(5), name varchar(20), blob bytea, day date, at time,
    moment timestamp, instant timestamptz, span interval, ident uuid, doc jsonb, list integer[],
    feeling mood, brief short, updated_at timestamptz DEFAULT '2024-05-01 12:00+00'
);
INSERT INTO things SELECT n, n % 7, -n, n % 2 = 0, n / 3.0, n / 7.0, n / 4.0, n / 9.0, n / 11.0,
    'wörd ' || n || chr(31), 'x', 'n' || n, decode(lpad(to_hex(n), 8, '0'), 'hex'),
    date '1900-01-01' + n * 20, time '00:00' + n * interval '7.123456 s',
    timestamp '1950-01-01' + n * interval '1 day 0.000001 s',
    timestamptz '1960-02-03 04:05:06.789012+00' + n * interval '13 h', n * interval '1 day',
    md5(n::text)::uuid, jsonb_build_object('n', n), ARRAY[n, n + 1],
    (ARRAY['sad', 'ok', 'happy'])[1 + n % 3]::mood, 'b' || n % 10
FROM generate_series(1, 3000) AS n;
INSERT INTO things (id) VALUES (-5);
INSERT INTO things (id, single, twice) VALUES (-6, 'NaN', '-Infinity'), (-7, '-0', 1e-320);
INSERT INTO things (id, day, moment, instant)
    VALUES (-8, '0001-01-01', '9999-12-31 23:59:59.999999', '0001-01-01 00:00+00');
"""
TYPES = {
    "id": "bigint",
    "small": "smallint",
    "plain": "integer",
    "flag": "boolean",
    "single": "real",
    "twice": "double precision",
    "money": "numeric(12,2)",
    "wide": "numeric(38,10)",
    "loose": "numeric",
    "word": "text",
    "fixed": "char(5)",
    "name": "varchar(20)",
    "blob": "bytea",
    "day": "date",
    "at": "time without time zone",
    "moment": "timestamp",
    "instant": "timestamptz",
    "span": "interval",
    "ident": "uuid",
    "doc": "jsonb",
    "list": "integer[]",
    "feeling": "mood",
    "brief": "short",
    "updated_at": "timestamptz",
}
CHANGES = {
    "small": "small + 1",
    "plain": "plain + 1",
    "flag": "NOT flag",
    "single": "single * 1.000001",
    "twice": "twice * 1.00000000000001",
    "money": "money + 0.01",
    "wide": "wide + 0.0000000001",
    "loose": "loose + 1e-16",
    "word": "word || ' '",
    "fixed": "'y'",
    "name": "NULL",
    "blob": "blob || '\\x00'",
    "day": "day + 1",
    "at": "at + interval '1 us'",
    "moment": "moment + interval '1 us'",
    "instant": "instant - interval '1 us'",
    "span": "span + interval '1 us'",
    "ident": "gen_random_uuid()",
    "doc": "doc || '{\"m\": 1}'",
    "list": "list || 1",
    "feeling": "CASE feeling WHEN 'ok' THEN 'sad' ELSE 'ok' END::mood",
    "brief": "'c'",
    "updated_at": "updated_at + interval '1 us'",
}
THINGS = SourceTable("public", "things", TYPES, key=("id",))
FULL = ExtractConfig(mode="full")
SETTLED = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def database(new_database: ConnectionParameters) -> DatabaseResource:
    return DatabaseResource(**new_database)


@pytest.fixture
def iceberg(tmp_path: Path) -> IcebergResource:
    return IcebergResource(
        catalog_uri=f"sqlite:///{tmp_path}/catalog.db", warehouse_path=f"file://{tmp_path}/tables"
    )


@pytest.fixture(autouse=True)
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "LEAF_ROWS", 20)
    monkeypatch.setattr(comparing, "FANOUT", 8)


def execute(database: DatabaseResource, statement: str | sql.Composable, *values: Any) -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement, values or None)


Extraction = Callable[[], TableWrite]


def load(
    database: DatabaseResource,
    iceberg: IcebergResource,
    source: SourceTable,
    change: Callable[[Extraction], TableWrite] = lambda extraction: extraction(),
    config: ExtractConfig | None = None,
) -> TableWrite:
    """A run of an asset that extracts the source table."""
    position = iceberg.position(TABLE)
    write = change(partial(extract, database, source, config or ExtractConfig(), position))
    if write.rows is not None:
        request = WriteRequest(
            rows=write.rows,
            mode=write.mode or "merge",
            deleted_keys=write.deleted_keys,
            properties={"forge.watermark": write.watermark} if write.watermark else {},
        )
        options = TableOptions(key=source.key, order_by=source.watermark_column)
        write_table(iceberg.catalog(), TABLE, request, options)
    return write


def tables(
    database: DatabaseResource, iceberg: IcebergResource, source: SourceTable = THINGS
) -> KeyedTables:
    return KeyedTables.of(database, source, iceberg.view(TABLE), source.key)


def report(
    database: DatabaseResource, iceberg: IcebergResource, source: SourceTable = THINGS
) -> Report:
    return reconcile(tables(database, iceberg, source), None)


def test_every_type_is_equal_until_it_changes(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    execute(database, CREATE)
    load(database, iceberg, THINGS)
    same = report(database, iceberg)
    assert (same.source.rows, same.table.rows) == (3004, 3004)
    assert same.source == same.table
    assert not same.ranges
    assert not same.left_out
    with database.connect() as connection, connection.cursor() as cursor:
        for number, (column, value) in enumerate(CHANGES.items(), 1):
            change = sql.SQL("UPDATE things SET {} = {} WHERE id = {}").format(
                sql.Identifier(column), sql.SQL(value), sql.Literal(number * 100)
            )
            cursor.execute(change)
    found = report(database, iceberg)
    assert found.source.rows == 3004
    changed = sorted(int(key) for part in found.ranges for key in part.examples)
    assert changed == [number * 100 for number in range(1, len(CHANGES) + 1)]
    assert sum(part.different for part in found.ranges) == len(CHANGES)
    assert not found.is_equal


def test_what_is_newer_than_the_watermark_is_pending(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    execute(database, CREATE)
    load(database, iceberg, THINGS)
    execute(database, "UPDATE things SET plain = 0, updated_at = now() WHERE id = 7")
    execute(database, "INSERT INTO things (id, updated_at) VALUES (9000, now())")
    assert reconcile(tables(database, iceberg), SETTLED).is_equal
    execute(database, "DELETE FROM things WHERE id = 8")
    found = reconcile(tables(database, iceberg), SETTLED)
    assert not found.is_equal
    assert [sum(numbers) for numbers in zip(*map(numbers_of, found.ranges), strict=True)] == [
        1,
        1,
        1,
        2,
    ]


def numbers_of(part: Any) -> tuple[int, ...]:
    return part.missing, part.extra, part.different, part.pending


KEYS = {
    "number": ("bigint", "n"),
    "word": ("text", "(CASE n % 3 WHEN 0 THEN 'Ä' WHEN 1 THEN 'a' ELSE 'Z' END) || n"),
    "ident": ("uuid", "md5(n::text)::uuid"),
    "instant": ("timestamptz", "timestamptz '1969-12-01+00' + n * interval '1 h 0.000001 s'"),
    "moment": ("timestamp", "timestamp '2020-01-01' + n * interval '1 s'"),
    "day": ("date", "date '1970-01-01' + n::int - 500"),
    "amount": ("numeric(12,2)", "n / 4.0"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_differences_are_found_whatever_the_key_is(
    database: DatabaseResource, iceberg: IcebergResource, kind: str
) -> None:
    type_, value = KEYS[kind]
    create = sql.SQL(
        "CREATE TABLE things (k {}, n bigint, updated_at timestamptz);"
        "INSERT INTO things SELECT {}, n, '2024-05-01+00' FROM generate_series(1, 1000) n"
    )
    execute(database, create.format(sql.SQL(type_), sql.SQL(value)))
    columns = {"k": type_, "n": "bigint", "updated_at": "timestamptz"}
    source = SourceTable("public", "things", columns, key=("k",))
    load(database, iceberg, source)
    assert report(database, iceberg, source).is_equal
    execute(database, "DELETE FROM things WHERE n IN (1, 500, 1000)")
    execute(database, "UPDATE things SET n = -n WHERE n = 250")
    found = report(database, iceberg, source)
    assert sum(part.extra for part in found.ranges) == 3
    assert sum(part.different for part in found.ranges) == 1
    gone = compare_keys(tables(database, iceberg, source), None).gone
    kept = iceberg.view(TABLE).read().join(gone, on="k", how="anti")
    assert sorted(set(range(1, 1001)) - set(kept["n"])) == [1, 500, 1000]


def test_a_composite_key_whose_first_column_is_one_value(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    execute(database, "CREATE TABLE things (a int, b text, updated_at timestamptz)")
    execute(
        database, "INSERT INTO things SELECT 1, n, '2024-05-01+00' FROM generate_series(1, 300) n"
    )
    columns = {"a": "int", "b": "text", "updated_at": "timestamptz"}
    source = SourceTable("public", "things", columns, key=("a", "b"))
    load(database, iceberg, source)
    execute(database, "DELETE FROM things WHERE b = '77'")
    gone = compare_keys(tables(database, iceberg, source), None).gone
    assert gone.rows() == [(1, "77")]


def test_of_several_versions_only_the_newest_counts(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    execute(database, "CREATE TABLE things (id int, n int, updated_at timestamptz)")
    execute(
        database,
        "INSERT INTO things SELECT n % 50, n, now() - n * interval '1 day' "
        "FROM generate_series(1, 500) n",
    )
    columns = {"id": "int", "n": "int", "updated_at": "timestamptz"}
    source = SourceTable("public", "things", columns, key=("id",))
    load(database, iceberg, source)
    found = report(database, iceberg, source)
    assert found.is_equal
    assert found.source.rows == 50


def test_random_differences_are_all_found(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    execute(database, "CREATE TABLE things (id int PRIMARY KEY, n int, updated_at timestamptz)")
    columns = {"id": "int", "n": "int", "updated_at": "timestamptz"}
    source = SourceTable("public", "things", columns, key=("id",))
    chance = random.Random(4)
    skewed = sorted({int(chance.paretovariate(0.3)) % 1_000_000 for _ in range(3000)})
    execute(database, "INSERT INTO things SELECT unnest(%s), 0, '2024-05-01+00'", skewed)
    load(database, iceberg, source)
    gone, changed = chance.sample(skewed[::2], 40), chance.sample(skewed[1::2], 40)
    execute(database, "DELETE FROM things WHERE id = ANY(%s)", gone)
    execute(database, "UPDATE things SET n = 1 WHERE id = ANY(%s)", changed)
    execute(database, "INSERT INTO things SELECT n, 1, now() FROM generate_series(-4000, -1) n")
    found = report(database, iceberg, source)
    sums = [sum(numbers) for numbers in zip(*map(numbers_of, found.ranges), strict=True)]
    assert sums[:3] == [4000, 40, 40]
    keys = compare_keys(tables(database, iceberg, source), None).gone
    assert sorted(keys["id"]) == sorted(gone)


def test_only_ranges_that_differ_are_read(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    execute(database, CREATE)
    load(database, iceberg, THINGS)
    execute(database, "DELETE FROM things WHERE id = 1234")
    found = compare_keys(tables(database, iceberg), None).comparison
    (part,) = found.differences
    assert part.table.rows <= 20
    assert part.within != KeyRange()
    assert part.within.low <= 1234 < part.within.high


@pytest.mark.parametrize("kind", ["number", "ident"])
def test_an_index_of_the_key_finds_a_range(
    database: DatabaseResource, iceberg: IcebergResource, kind: str
) -> None:
    type_, value = KEYS[kind]
    create = sql.SQL(
        "CREATE TABLE things (k {} PRIMARY KEY, updated_at timestamptz);"
        "INSERT INTO things SELECT {}, '2024-05-01+00' FROM generate_series(1, 200) n"
    )
    execute(database, create.format(sql.SQL(type_), sql.SQL(value)))
    source = SourceTable("public", "things", {"k": type_, "updated_at": "timestamptz"}, key=("k",))
    load(database, iceberg, source)
    side, _ = tables(database, iceberg, source).sides([], None)
    low, high, *_ = side.edges(KeyRange(), 8)
    question = sql.SQL("EXPLAIN SELECT * FROM {}").format(side._rows(KeyRange(low, high)))
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(question)
        assert "Index Cond: ((k >=" in "\n".join(line for (line,) in cursor.fetchall())


def test_progress_ends_where_it_says(database: DatabaseResource, iceberg: IcebergResource) -> None:
    execute(database, CREATE)
    load(database, iceberg, THINGS)
    execute(database, "UPDATE things SET plain = 0 WHERE id % 100 = 0")
    steps: list[tuple[int, int]] = []
    reconcile(tables(database, iceberg), None, lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1] > 0


def test_what_cannot_be_compared_is_said(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    execute(database, CREATE)
    load(database, iceberg, THINGS)
    with pytest.raises(ConfigurationError, match=r"cannot be compared by the key \(flag\)"):
        KeyedTables.of(database, THINGS, iceberg.view(TABLE), ["flag"])
    with pytest.raises(ConfigurationError, match="keeps every version"):
        tables(database, iceberg, replace(THINGS, versions="all"))


def test_keys_that_are_gone_go_with_the_rows_that_come(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    execute(database, CREATE)
    load(database, iceberg, THINGS)
    execute(database, "DELETE FROM things WHERE id IN (5, 6, 2999)")
    execute(database, "UPDATE things SET plain = 77, updated_at = now() WHERE id = 8")

    def change(extraction: Extraction) -> TableWrite:
        return remove_missing_keys(extraction, database, THINGS, iceberg, TABLE)

    written = load(database, iceberg, THINGS, change, DeletesConfig(compare_keys=True))
    assert written.metadata["deleted_keys"] == 3
    assert written.metadata["deleted_examples"] == ["5", "6", "2999"]
    assert report(database, iceberg).is_equal
    again = load(database, iceberg, THINGS, change)
    assert again.metadata["deleted_keys"] == 0
    assert again.deleted_keys is None


def test_keys_stay_also_where_the_database_orders_them_otherwise(
    new_database: ConnectionParameters, iceberg: IcebergResource
) -> None:
    """In WIN1251 the letter ё comes before all others of its alphabet, in UTF-8 after them."""
    name = f"other_{uuid4().hex}"
    with closing(psycopg2.connect(**new_database)) as connection:
        connection.autocommit = True
        connection.cursor().execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'WIN1251' LOCALE 'C'"
        )
    there: ConnectionParameters = {**new_database, "database": name}
    other = DatabaseResource(**there)
    execute(
        other,
        "CREATE TABLE things (word text PRIMARY KEY, updated_at timestamptz DEFAULT now()); "
        "INSERT INTO things (word) SELECT letter || number FROM generate_series(1, 40) AS number, "
        "regexp_split_to_table('абвгдеёжзиклмнопрстуфхцчшщэюя', '') AS letter",
    )
    columns = {"word": "text", "updated_at": "timestamptz"}
    words = SourceTable("public", "things", columns, key=("word",))
    load(other, iceberg, words)
    execute(other, "DELETE FROM things WHERE word LIKE '%7'")
    gone = compare_keys(tables(other, iceberg, words), None).gone
    assert len(gone) == 4 * 29
    assert set(gone["word"].str.slice(-1)) == {"7"}


def test_keys_go_also_where_no_row_changed(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    execute(database, CREATE)
    execute(database, "INSERT INTO things (id, updated_at) VALUES (7000, now())")
    load(database, iceberg, THINGS)
    load(database, iceberg, THINGS)
    execute(database, "DELETE FROM things WHERE id = 5")
    load(
        database,
        iceberg,
        THINGS,
        lambda extraction: remove_missing_keys(extraction, database, THINGS, iceberg, TABLE),
    )
    assert report(database, iceberg).is_equal


def test_keys_that_no_run_would_bring_are_told(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    """Among others and apart from them: old rows, and new ones that the same run brings."""
    execute(database, "CREATE TABLE things (id int PRIMARY KEY, day date, updated_at timestamptz)")
    insert = "INSERT INTO things SELECT n, {}, {} FROM generate_series({}, {}) n"
    old, long_ago = "now() - interval '1 day'", "'2024-01-01'"
    execute(database, insert.format(long_ago, old, 1, 100))
    execute(database, insert.format(long_ago, "now()", 200, 200))
    columns = {"id": "int", "day": "date", "updated_at": "timestamptz"}
    recent = Recent("day", timedelta(days=7))
    source = SourceTable("public", "things", columns, key=("id",), also=recent)

    def compared(config: ExtractConfig) -> TableWrite:
        def change(extraction: Extraction) -> TableWrite:
            return remove_missing_keys(extraction, database, source, iceberg, TABLE, config)

        return load(database, iceberg, source, change, config)

    load(database, iceberg, source)
    execute(database, "DELETE FROM things WHERE id = 50")
    execute(database, insert.format(long_ago, "now()", -400, -361))
    for where in (-300, 150):
        execute(database, insert.format(long_ago, old, where, where + 2))
        execute(database, insert.format(long_ago, "now()", where + 10, where + 11))
        execute(database, insert.format("current_date", old, where + 20, where + 20))
    found = compared(ExtractConfig())
    assert (found.metadata["missing_keys"], found.metadata["deleted_keys"]) == (6, 1)
    assert iceberg.view(TABLE).read().height == 100 + 46
    since = ExtractConfig(since=(datetime.now(UTC) - timedelta(days=2)).isoformat())
    assert compared(since).metadata["missing_keys"] == 0
    assert report(database, iceberg, source).is_equal


def test_a_row_that_comes_back_while_keys_are_compared_stays(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    def change(extraction: Extraction) -> TableWrite:
        def late() -> TableWrite:
            execute(database, "INSERT INTO things (id, updated_at) VALUES (5, now())")
            return extraction()

        return remove_missing_keys(late, database, THINGS, iceberg, TABLE)

    execute(database, CREATE)
    load(database, iceberg, THINGS)
    execute(database, "DELETE FROM things WHERE id IN (5, 6)")
    written = load(database, iceberg, THINGS, change)
    assert written.metadata["deleted_examples"] == ["5", "6"]
    assert report(database, iceberg).is_equal


def test_the_source_keeps_no_snapshot_while_keys_are_compared(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    def sessions() -> int:
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL "
                "AND backend_type = 'client backend' AND datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )
            [(count,)] = cursor.fetchall()
            return int(count)

    def change(extraction: Extraction) -> TableWrite:
        def counted() -> TableWrite:
            before = sessions()
            write = extraction()
            assert (before, sessions()) == (0, 1)
            return write

        return remove_missing_keys(counted, database, THINGS, iceberg, TABLE)

    execute(database, CREATE)
    load(database, iceberg, THINGS)
    execute(database, "UPDATE things SET plain = 77, updated_at = now() WHERE id = 8")
    load(database, iceberg, THINGS, change)
    assert report(database, iceberg).is_equal


SOFT = """
CREATE TABLE things (id int PRIMARY KEY, gone boolean, gone_at timestamptz,
    updated_at timestamptz DEFAULT now());
INSERT INTO things (id) SELECT generate_series(1, 100)
"""
SOFT_TYPES = {
    "id": "int",
    "gone": "boolean",
    "gone_at": "timestamptz",
    "updated_at": "timestamptz",
}
MARKED = SourceTable("public", "things", SOFT_TYPES, key=("id",))


@pytest.mark.parametrize(("column", "mark"), [("gone", "true"), ("gone_at", "now()")])
def test_marked_rows_leave_and_come_back(
    database: DatabaseResource, iceberg: IcebergResource, column: str, mark: str
) -> None:
    def run(config: ExtractConfig) -> TableWrite:
        def change(extraction: Extraction) -> TableWrite:
            return remove_marked(
                extraction(), database, MARKED, iceberg, TABLE, column=column, config=config
            )

        return load(database, iceberg, MARKED, change, config)

    def ids() -> list[int]:
        return sorted(iceberg.view(TABLE).read()["id"])

    def mark_rows(value: str, *ids: int) -> None:
        update = sql.SQL("UPDATE things SET updated_at = now(), {} = {} WHERE id = ANY({})")
        execute(
            database,
            update.format(sql.Identifier(column), sql.SQL(value), sql.Literal(list(ids))),
        )

    execute(database, SOFT)
    mark_rows(mark, 1)
    run(ExtractConfig())
    assert ids() == list(range(2, 101))
    mark_rows(mark, 2, 3)
    written = run(ExtractConfig())
    assert written.metadata["deleted_keys"] >= 2
    assert ids() == list(range(4, 101))
    mark_rows("NULL", 2)
    run(ExtractConfig())
    assert ids() == [2, *range(4, 101)]
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    mark_rows(mark, 4)
    run(ExtractConfig(mode="since", since=since))
    assert ids() == [2, *range(5, 101)]
    run(FULL)
    assert ids() == [2, *range(5, 101)]


def test_marked_rows_and_missing_keys_go_in_one_run(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    def change(extraction: Extraction) -> TableWrite:
        def unmarked() -> TableWrite:
            return remove_marked(
                extraction(),
                database,
                MARKED,
                iceberg,
                TABLE,
                column="gone",
                config=ExtractConfig(),
            )

        return remove_missing_keys(unmarked, database, MARKED, iceberg, TABLE)

    execute(database, SOFT)
    load(database, iceberg, MARKED, change, ExtractConfig())
    before = set(iceberg.view(TABLE).read()["id"])
    execute(database, "UPDATE things SET gone = true, updated_at = now() WHERE id = 4")
    execute(database, "DELETE FROM things WHERE id = 5")
    write = load(database, iceberg, MARKED, change, ExtractConfig())
    assert before - set(iceberg.view(TABLE).read()["id"]) == {4, 5}
    assert write.metadata["deleted_keys"] == 2
    assert write.metadata["deleted_examples"] == ["4", "5"]
    why = "marked by gone; keys that the source does not have"
    assert write.metadata["deleted_why"] == why


def test_a_mark_that_is_not_extracted_is_refused(
    database: DatabaseResource, iceberg: IcebergResource
) -> None:
    write = TableWrite(rows=pl.DataFrame())
    with pytest.raises(ConfigurationError, match="name the column among its columns"):
        remove_marked(
            write, database, MARKED, iceberg, TABLE, column="deleted", config=ExtractConfig()
        )
