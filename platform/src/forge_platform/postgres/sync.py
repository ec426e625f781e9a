"""The statements that make a table equal to a frame, for one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import polars as pl
from psycopg2 import sql

from forge_platform.errors import SchemaMismatch
from forge_platform.postgres.catalog import column_types, primary_key, schema_exists

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

_COPY_ROWS = 50_000
_STAGING = sql.Identifier("forge_staging")
_TYPES: Mapping[type[pl.DataType], str] = {
    pl.Boolean: "boolean",
    pl.Int8: "smallint",
    pl.Int16: "smallint",
    pl.Int32: "integer",
    pl.Int64: "bigint",
    pl.UInt8: "smallint",
    pl.UInt16: "integer",
    pl.UInt32: "bigint",
    pl.UInt64: "numeric(20,0)",
    pl.Float32: "real",
    pl.Float64: "double precision",
    pl.String: "text",
    pl.Categorical: "text",
    pl.Enum: "text",
    pl.Binary: "bytea",
    pl.Date: "date",
    pl.Time: "time without time zone",
}


def postgres_type(kind: pl.DataType) -> str | None:
    """The PostgreSQL type that holds every value of a Polars type; None if there is none."""
    if isinstance(kind, pl.Decimal):
        return f"numeric({kind.precision},{kind.scale})"
    if isinstance(kind, pl.Datetime):
        zone = "with" if kind.time_zone else "without"
        return f"timestamp {zone} time zone"
    return _TYPES.get(type(kind))


@dataclass(frozen=True)
class Target:
    """The table to sync, with the PostgreSQL types of its columns as they shall be."""

    schema: str
    table: str
    key: tuple[str, ...]
    columns: Mapping[str, str]

    @property
    def name(self) -> str:
        """``schema.table``."""
        return f"{self.schema}.{self.table}"

    @property
    def relation(self) -> sql.Composable:
        """The table's quoted name."""
        return sql.Identifier(self.schema, self.table)

    def lock(self, cursor: Cursor) -> None:
        """Waits for other syncs of this table to end."""
        _lock(cursor, self.name)

    def stage(self, cursor: Cursor, frame: pl.DataFrame) -> None:
        """Copies the frame into a temporary table."""
        create = sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP")
        cursor.execute(create.format(_STAGING, self._definitions()))
        copy = sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(_STAGING)
        for piece in _sendable(frame).iter_slices(_COPY_ROWS):
            file = BytesIO()
            # Quoted: a bare \. ends the data before PostgreSQL 18, and the rest is lost silently.
            piece.write_csv(file, include_header=False, quote_style="non_numeric")
            file.seek(0)
            cursor.copy_expert(copy, file)
        cursor.execute(sql.SQL("ANALYZE {}").format(_STAGING))

    def prepare(self, cursor: Cursor) -> None:
        """Makes the table when it is missing, and adds the columns that are new.

        Raises:
            SchemaMismatch: it differs in another way.
        """
        found = column_types(cursor, self.schema, self.table)
        if not found:
            return self._create(cursor)
        self._refuse_other(found, primary_key(cursor, self.schema, self.table))
        add = sql.SQL("ALTER TABLE {} ADD COLUMN {}")
        for name in self.columns:
            if name not in found:
                cursor.execute(add.format(self.relation, self._definitions([name])))
        return None

    def delete_absent(self, cursor: Cursor) -> int:
        """Deletes the rows that the frame does not have; returns how many."""
        cursor.execute(
            sql.SQL(
                "DELETE FROM {target} AS target WHERE NOT EXISTS "
                "(SELECT FROM {staging} AS staging WHERE {same})"
            ).format(target=self.relation, staging=_STAGING, same=self._same_key())
        )
        return cursor.rowcount

    def update_different(self, cursor: Cursor) -> int:
        """Updates the rows whose values differ from the frame's; returns how many."""
        values = [name for name in self.columns if name not in self.key]
        if not values:
            return 0
        cursor.execute(
            sql.SQL(
                "UPDATE {target} AS target SET {assignments} FROM {staging} AS staging "
                "WHERE {same} AND ROW({current}) IS DISTINCT FROM ROW({wanted})"
            ).format(
                target=self.relation,
                assignments=_comma(
                    sql.SQL("{0} = staging.{0}").format(sql.Identifier(name)) for name in values
                ),
                staging=_STAGING,
                same=self._same_key(),
                current=_of("target", values),
                wanted=_of("staging", values),
            )
        )
        return cursor.rowcount

    def insert_missing(self, cursor: Cursor) -> int:
        """Inserts the frame's rows that are not there yet; returns how many."""
        cursor.execute(
            sql.SQL(
                "INSERT INTO {target} ({names}) SELECT {values} FROM {staging} AS staging "
                "WHERE NOT EXISTS (SELECT FROM {target} AS target WHERE {same})"
            ).format(
                target=self.relation,
                names=_comma(map(sql.Identifier, self.columns)),
                values=_of("staging", self.columns),
                staging=_STAGING,
                same=self._same_key(),
            )
        )
        return cursor.rowcount

    def _create(self, cursor: Cursor) -> None:
        if not schema_exists(cursor, self.schema):
            _lock(cursor, self.schema)  # CREATE SCHEMA IF NOT EXISTS fails in a race
            create = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}")
            cursor.execute(create.format(sql.Identifier(self.schema)))
        cursor.execute(
            sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
                self.relation, self._definitions(), _comma(map(sql.Identifier, self.key))
            )
        )

    def _refuse_other(self, found: Mapping[str, str], key: set[str]) -> None:
        as_found = all(self.columns.get(name) == kind for name, kind in found.items())
        if as_found and key == set(self.key):
            return
        raise SchemaMismatch(
            f"{self.name} cannot take these rows; only new columns are added to it.\n"
            f"  table: {_shown(found)}; primary key {', '.join(sorted(key)) or 'none'}\n"
            f"  rows:  {_shown(self.columns)}; key {', '.join(sorted(self.key))}\n"
            "Alter the table to match the rows, or drop it: the next sync makes it again."
        )

    def _definitions(self, names: Iterable[str] | None = None) -> sql.Composable:
        return _comma(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(self.columns[name]))
            for name in names or self.columns
        )

    def _same_key(self) -> sql.Composable:
        return sql.SQL("({}) = ({})").format(_of("target", self.key), _of("staging", self.key))


def _lock(cursor: Cursor, name: str) -> None:
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"forge {name}",))


def _comma(parts: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)


def _of(relation: str, names: Iterable[str]) -> sql.Composable:
    return _comma(sql.Identifier(relation, name) for name in names)


def _shown(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


def _sendable(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with its binary columns as PostgreSQL reads them in CSV."""
    binary = [name for name, kind in frame.schema.items() if kind == pl.Binary]
    return frame.with_columns(
        pl.concat_str(pl.lit("\\x"), pl.col(name).bin.encode("hex")).alias(name) for name in binary
    )
