"""What PostgreSQL holds is what the Iceberg table holds, compared with what psycopg2 reads."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql
from pyiceberg.catalog import Catalog

from forge_platform.errors import SourceSchemaError
from forge_platform.extraction import ExtractConfig, SourceTable, extract
from forge_platform.iceberg.catalog import open_catalog
from forge_platform.iceberg.view import IcebergView, current_snapshot_id
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table
from forge_platform.resources.database import DatabaseResource
from forge_platform.tables import Position
from forge_platform.testing import ConnectionParameters, EmbeddedPostgres

TABLE = "space.things"

# Column type, what Iceberg has for it, and values beside NULL.
EXACT: Mapping[str, tuple[str, list[Any]]] = {
    "smallint": ("int", [-32768, 0, 32767]),
    "integer": ("int", [-(2**31), 2**31 - 1]),
    "bigint": ("long", [-(2**63), 2**63 - 1]),
    "real": ("float", ["1.5", "-0", "3.4028235e38", "Infinity", "-Infinity", "1e-45"]),
    "double precision": ("double", ["0.1", "1.7976931348623157e308", "-Infinity", "5e-324"]),
    "numeric(1,0)": ("decimal(1, 0)", ["9", "-9", "0"]),
    "numeric(12,2)": ("decimal(12, 2)", ["9999999999.99", "-0.01", "0"]),
    "numeric(19,4)": ("decimal(19, 4)", ["999999999999999.9999", "-1"]),
    "numeric(38,0)": ("decimal(38, 0)", ["9" * 38, "-" + "9" * 38]),
    "numeric(38,10)": ("decimal(38, 10)", ["9" * 28 + "." + "9" * 10, "-0.0000000001"]),
    "numeric(38,38)": ("decimal(38, 38)", ["0." + "9" * 38, "-0." + "0" * 37 + "1"]),
    "boolean": ("boolean", [True, False]),
    "text": ("string", ["", " ", "\\N", "NULL", "a\tb\r\nc", "\x01\x1f\x7f", "\\0 \\x00", "😀 ﷽"]),
    "varchar(10)": ("string", ["", "0123456789", "\ufeffbom"]),
    "bytea": ("binary", [b"", b"\x00\x00", bytes(range(256))]),
    "date": ("date", ["0001-01-01", "1582-10-10", "1970-01-01", "2024-02-29", "9999-12-31"]),
    "timestamp": (
        "timestamp",
        ["0001-01-01 00:00:00", "1969-12-31 23:59:59.999999", "9999-12-31 23:59:59.999999"],
    ),
    "timestamptz": (
        "timestamptz",
        ["0001-01-01 00:00:00+00", "2024-03-31 02:30:00+05:30", "9999-12-31 23:59:59.999999+00"],
    ),
    "time": ("time", ["00:00:00", "23:59:59.999999"]),
    "whole": ("int", [1, 7]),
    "price": ("decimal(10, 2)", ["0.01"]),
    "name_of_20": ("string", ["x" * 20]),
}
AS_TEXT = {
    "numeric": ["0.1", "9" * 60, "1e-30", "NaN", "Infinity", "-Infinity", "1.10"],
    "numeric(39,2)": ["9" * 37 + ".99"],
    "numeric(3,-2)": ["12300"],
    "uuid": ["d5a1cf94-4b40-4b4e-8d6a-0f6d5b4f6d11"],
    "interval": ["1 year -2 mons 3 days 04:05:06.789", "-00:00:01", "0"],
    "timetz": ["10:00:00+02", "24:00:00-15:59"],
    "json": ['{"b": 1.10,  "a": [null, "\\u00e9"], "b": 2}', "null", "[]"],
    "jsonb": ['{"a": 1.10, "b": {"c": []}}', "null", "12345678901234567890.10"],
    "integer[]": ["{}", "{1,NULL,-3}", "{{1,2},{3,4}}"],
    "double precision[]": ["{0.1,NaN,-Infinity,1e-300}"],
    "text[]": ['{"a,b","","NULL",NULL,"q\\"uote"}'],
    "bytea[]": ['{"\\\\x0001"}'],
    "timestamptz[]": ['{"2024-01-01 00:00:00+00",infinity}'],
    "mood": ["sad", "very happy"],
    "place": ['(1,"a ""b"" c",2024-01-01)', "(,,)"],
    "inet": ["127.0.0.1/32", "::1/128"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit(3)": ["101"],
    "char(5)": ["ab", " ab  "],
    "bit varying": ["", "0011"],
    "int4range": ["[1,5)", "empty"],
    "point": ["(1.5,-2)"],
    "tsvector": ["'cat':1 'fat':2"],
    '"char"': ["x"],
    "name": ["abc"],
    "oid": ["4294967295"],
}
TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'very happy');
CREATE TYPE place AS (number int, text text, day date);
CREATE DOMAIN whole AS integer CHECK (VALUE > 0);
CREATE DOMAIN price AS numeric(10,2);
CREATE DOMAIN name_of_20 AS varchar(20) NOT NULL
"""
NO_NULL = {"name_of_20"}


@pytest.fixture(scope="module")
def database_with_types(postgres: EmbeddedPostgres) -> Iterator[DatabaseResource]:
    name = "types"
    resource = DatabaseResource(**postgres.create_database(name))
    execute(resource, "ALTER DATABASE types SET search_path = public, kinds")
    execute(resource, f"CREATE SCHEMA kinds; SET search_path = kinds; {TYPES}")
    yield resource
    postgres.drop_database(name)


@pytest.fixture
def database(database_with_types: DatabaseResource) -> DatabaseResource:
    execute(database_with_types, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return database_with_types


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(f"sqlite:///{tmp_path}/catalog.db", f"file://{tmp_path}/tables", {})


def execute(database: DatabaseResource, statement: str | sql.Composable, *values: Any) -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(statement, values or None)


def asked(database: DatabaseResource, statement: str | sql.Composable) -> list[tuple[Any, ...]]:
    """What psycopg2 gives to somebody who asks the database directly."""
    with (
        closing(psycopg2.connect(database.connection_string)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.execute(statement)
        return [tuple(map(_plain, row)) for row in cursor.fetchall()]


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


def exactly(rows: list[tuple[Any, ...]], *, single: bool = False) -> list[str]:
    """Rows so that 0.0 and -0.0, 1.1 and 1.10 are told apart, but not two names of UTC."""

    def text(value: Any) -> str:
        if isinstance(value, dt.datetime) and value.tzinfo is not None:
            return repr(value.astimezone(dt.UTC))
        if isinstance(value, float) and single:
            return repr(struct.unpack("f", struct.pack("f", value)))
        return repr(value)

    return [", ".join(map(text, row)) for row in rows]


def create(database: DatabaseResource, kind: str, values: list[Any]) -> SourceTable:
    """A table with the values, one to a row, in a column of that type."""
    typed = sql.SQL(kind)
    statement = sql.SQL("CREATE TABLE things (id serial, value {}, updated_at timestamptz)")
    execute(database, statement.format(typed))
    insert = sql.SQL("INSERT INTO things (value, updated_at) VALUES (CAST(%s AS {}), now())")
    for value in values:
        execute(database, insert.format(typed), value)
    return things(database.columns("public", "things"))


def things(columns: Mapping[str, str], table: str = "things") -> SourceTable:
    return SourceTable("public", table, columns)


def copied(database: DatabaseResource, catalog: Catalog, source: SourceTable) -> IcebergView:
    """The source table's copy, after one run."""
    found = extract(database, source, ExtractConfig(), Position())
    assert found.rows is not None
    request = WriteRequest(rows=found.rows, mode="overwrite")
    write_table(catalog, TABLE, request, TableOptions())
    table = catalog.load_table(TABLE)
    return IcebergView(table, TABLE, current_snapshot_id(table))


@pytest.mark.parametrize("kind", EXACT)
def test_values_arrive_as_they_are(database: DatabaseResource, catalog: Catalog, kind: str) -> None:
    expected_type, values = EXACT[kind]
    source = create(database, kind, [*values, *([] if kind in NO_NULL else [None])])
    view = copied(database, catalog, source)
    assert view.column_types()["value"] == expected_type
    found = sorted(view.read(["id", "value"]).rows())
    expected = asked(database, "SELECT id, value FROM things ORDER BY id")
    single = kind == "real"
    assert exactly(found, single=single) == exactly(expected, single=single)


@pytest.mark.parametrize("kind", AS_TEXT)
def test_what_has_no_exact_type_arrives_as_postgresqls_text(
    database: DatabaseResource, catalog: Catalog, kind: str
) -> None:
    source = create(database, kind, [*AS_TEXT[kind], None])
    view = copied(database, catalog, source)
    assert view.column_types()["value"] == "string"
    expected = asked(database, "SELECT id, value::text FROM things ORDER BY id")
    assert sorted(view.read(["id", "value"]).rows()) == expected


def test_nan_of_floats_is_no_null(database: DatabaseResource, catalog: Catalog) -> None:
    view = copied(database, catalog, create(database, "double precision", ["NaN", None]))
    values = [value for _, value in sorted(view.read(["id", "value"]).rows())]
    assert values[0] != values[0]
    assert values[1] is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("numeric(12,2)", "NaN"),
        ("date", "infinity"),
        ("date", "0044-03-15 BC"),
        ("timestamp", "-infinity"),
        ("timestamp", "10000-01-01 00:00:00"),
        ("timestamptz", "infinity"),
        ("timestamptz", "10000-01-01 00:00:00+00"),
        ("timestamptz", "294276-12-31 23:59:59+00"),
        ("time", "24:00:00"),
    ],
)
def test_what_cannot_be_held_is_refused_by_column_and_nothing_is_written(
    database: DatabaseResource, catalog: Catalog, tmp_path: Path, kind: str, value: str
) -> None:
    source = create(database, kind, [None, value])
    with pytest.raises(SourceSchemaError, match="column value"):
        copied(database, catalog, source)
    assert list(tmp_path.rglob("*.parquet")) == []
    assert current_snapshot_id(catalog.load_table(TABLE)) is None


def test_text_does_not_depend_on_settings_of_the_database(
    new_database: ConnectionParameters, catalog: Catalog
) -> None:
    database = DatabaseResource(**new_database)
    expected = [(1, "1 year 00:00:01"), (2, "1 day")]
    for setting in (
        "IntervalStyle = 'iso_8601'",
        "DateStyle = 'German'",
        "extra_float_digits = -3",
        "bytea_output = 'escape'",
        "TimeZone = 'Asia/Kolkata'",
        "client_encoding = 'LATIN1'",
    ):
        name = sql.Identifier(database.database)
        execute(database, sql.SQL("ALTER DATABASE {} SET " + setting).format(name))
    source = create(database, "interval", ["1 year 1 second", "1 day"])
    execute(
        database,
        """ALTER TABLE things ADD COLUMN floats double precision[] DEFAULT '{0.1234567890123456}',
           ADD COLUMN bytes bytea[] DEFAULT '{"\\\\x00ff"}',
           ADD COLUMN times timestamptz[] DEFAULT '{"2024-01-31 12:00:00+00"}',
           ADD COLUMN snowman text DEFAULT '☃'""",
    )
    source = things(database.columns("public", "things"))
    view = copied(database, catalog, source)
    assert sorted(view.read(["id", "value"]).rows()) == expected
    assert view.read(["floats", "bytes", "times", "snowman"]).unique().rows() == [
        ("{0.1234567890123456}", '{"\\\\x00ff"}', '{"2024-01-31 12:00:00+00"}', "☃")
    ]


def test_a_thousand_columns(database: DatabaseResource, catalog: Catalog) -> None:
    kinds = ["bigint", "text", "numeric(12,2)", "timestamptz", "boolean"]
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(f"c{n}"), sql.SQL(kinds[n % 5])) for n in range(999)
    ]
    everything = sql.SQL(", ").join([*columns, sql.SQL("updated_at timestamptz")])
    execute(database, sql.SQL("CREATE TABLE things ({})").format(everything))
    execute(database, "INSERT INTO things (c0, c1, c2, c998) VALUES (1, 'a', 1.10, '2024-01-01')")
    execute(database, "INSERT INTO things (updated_at) VALUES ('2024-01-01')")
    view = copied(database, catalog, things(database.columns("public", "things")))
    assert len(view.column_types()) == 1000
    expected = asked(database, "SELECT * FROM things")
    assert sorted(exactly(view.read().rows())) == sorted(exactly(expected))


NAMES = [
    "Mixed Case",
    "mixed_case",
    "select",
    'quo"ted',
    "it's",
    "a%b",
    "%s",
    "ünï",
    "€",
    "1st",
    " ",
]


def test_names_of_any_kind(database: DatabaseResource, catalog: Catalog) -> None:
    table = 'The "Things" of Ünï'
    columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(n)) for n in NAMES)
    execute(
        database,
        sql.SQL("CREATE TABLE {} ({}, updated_at timestamptz)").format(
            sql.Identifier(table), columns
        ),
    )
    values = sql.SQL(", ").join(sql.Literal(name) for name in NAMES)
    execute(database, sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(table), values))
    view = copied(database, catalog, things(database.columns("public", table), table))
    assert view.read(NAMES).rows() == [tuple(NAMES)]
    assert view.scan().select(NAMES).collect().rows() == [tuple(NAMES)]


def test_names_that_differ_by_case_alone(database: DatabaseResource, catalog: Catalog) -> None:
    execute(database, 'CREATE TABLE things ("Name" text, name text, updated_at timestamptz)')
    execute(database, "INSERT INTO things VALUES ('upper', 'lower', now())")
    view = copied(database, catalog, things(database.columns("public", "things")))
    assert view.read().select("name", "Name").rows() == [("lower", "upper")]


@pytest.mark.parametrize(
    "relation",
    [
        "CREATE VIEW things AS SELECT * FROM base",
        "CREATE MATERIALIZED VIEW things AS SELECT * FROM base",
        """CREATE TABLE things (LIKE base) PARTITION BY RANGE (id);
           CREATE TABLE low PARTITION OF things FOR VALUES FROM (0) TO (50);
           CREATE TABLE high PARTITION OF things FOR VALUES FROM (50) TO (1000);
           INSERT INTO things SELECT * FROM base""",
        """CREATE TABLE things (LIKE base); CREATE TABLE child () INHERITS (things);
           INSERT INTO child SELECT * FROM base""",
    ],
    ids=["view", "materialised view", "partitioned", "inherited"],
)
def test_relations_of_other_kinds(
    database: DatabaseResource, catalog: Catalog, relation: str
) -> None:
    execute(
        database,
        "CREATE TABLE base AS SELECT id, id::text AS value, now() AS updated_at"
        " FROM generate_series(1, 100) AS id",
    )
    execute(database, relation)
    view = copied(database, catalog, things(database.columns("public", "things")))
    assert sorted(view.read().rows()) == asked(database, "SELECT * FROM things ORDER BY id")


@pytest.mark.parametrize("is_view", [False, True])
def test_an_empty_table_has_columns_and_no_rows(
    database: DatabaseResource, catalog: Catalog, *, is_view: bool
) -> None:
    source = create(database, "numeric(12,2)", [])
    if is_view:
        execute(database, "CREATE VIEW seen AS SELECT * FROM things")
        source = things(source.columns, "seen")
    view = copied(database, catalog, source)
    assert view.read().is_empty()
    assert view.column_types() == {
        "id": "int",
        "value": "decimal(12, 2)",
        "updated_at": "timestamptz",
    }


def test_large_values(database: DatabaseResource, catalog: Catalog) -> None:
    sizes = [1, 2**20, 10 * 2**20]
    source = create(database, "text", ["é" * (size // 2) for size in sizes])
    execute(database, "INSERT INTO things (value, updated_at) SELECT repeat('x', 1048576), now()")
    view = copied(database, catalog, source)
    assert sorted(view.read(["id", "value"]).rows()) == asked(
        database, "SELECT id, value FROM things ORDER BY id"
    )


def test_a_moment_is_the_same_in_every_zone(database: DatabaseResource, catalog: Catalog) -> None:
    source = create(database, "timestamptz", ["2024-10-27 02:30:00+02", "2024-10-27 02:30:00+01"])
    view = copied(database, catalog, source)
    [first, second] = view.read().sort("id")["value"].to_list()
    assert second - first == dt.timedelta(hours=1)
