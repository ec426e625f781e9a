"""The SQL that extraction and its sensor ask a source table with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from psycopg2 import sql

from forge_platform.postgres.stream import STREAM_NAME

if TYPE_CHECKING:
    from datetime import datetime

    from forge_platform.extraction import SourceTable

_SETTLED = sql.SQL("""
    CASE WHEN newest IS NOT NULL THEN least(newest, now(), (SELECT min(started) FROM (
        SELECT xact_start AS started FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          AND backend_type IS DISTINCT FROM 'autovacuum worker'
          AND application_name IS DISTINCT FROM {stream}
        UNION ALL SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()
    ) AS open)) END
""").format(stream=sql.Literal(STREAM_NAME))
_SEES_TRANSACTIONS = "NOT pg_is_in_recovery() AND pg_has_role('pg_read_all_stats', 'USAGE')"


def relation(source: SourceTable) -> sql.Composable:
    """The table's quoted name."""
    return sql.Identifier(source.schema, source.table)


def position_query(source: SourceTable) -> sql.Composable:
    """One row: the settled position, and whether other users' transactions were visible.

    Up to the settled position the table is complete for every statement that follows: it is
    the newest watermark-column value, but neither beyond the start of the oldest transaction
    that is open, which may still commit rows with that time stamp, nor beyond the present.
    NULL for an empty table.
    """
    return sql.SQL("SELECT {}, {} FROM {}").format(
        _SETTLED, sql.SQL(_SEES_TRANSACTIONS), _newest(source)
    )


def edge_query(source: SourceTable) -> sql.Composable:
    """One row: the newest time stamp, and the first moment from which rows may still appear."""
    return sql.SQL("SELECT newest, {} - {} FROM {}").format(
        _SETTLED, sql.Literal(source.overlap), _newest(source)
    )


def _newest(source: SourceTable) -> sql.Composable:
    """The newest time stamp alone: beside anything else ``max`` would not use the index."""
    return sql.SQL("(SELECT max({})::timestamptz AS newest FROM {}) AS edge").format(
        sql.Identifier(source.watermark_column), relation(source)
    )


def changed_since(source: SourceTable, moment: datetime) -> sql.Composable:
    """Predicate of the rows that are as new as a moment, or of unknown age."""
    return sql.SQL("({0} >= {1} OR {0} IS NULL)").format(
        sql.Identifier(source.watermark_column), sql.Literal(moment)
    )


def window_query(source: SourceTable, start: datetime, *others: datetime) -> sql.Composable:
    """One row: number and digest of the rows from each moment on, of all in one snapshot.

    The digest is the sum of the rows' hashes: the same in whichever order they are read.
    """
    starts = (start, *others)
    row = sql.SQL("hashtextextended(ROW({})::text, 0)").format(_names(tuple(source.columns)))
    figures = sql.SQL("count(*) FILTER (WHERE {0}), coalesce(sum({1}) FILTER (WHERE {0}), 0)::text")
    return sql.SQL("SELECT {} FROM {} WHERE {}").format(
        sql.SQL(", ").join(figures.format(changed_since(source, moment), row) for moment in starts),
        relation(source),
        changed_since(source, min(starts)),
    )


def rows_query(source: SourceTable, start: datetime | None) -> sql.Composable:
    """The rows to read: all, or those from a moment on, and what is read with them."""
    newest_only = bool(source.key) and source.versions == "newest"
    return sql.SQL("SELECT {distinct}{columns} FROM {relation}{where}{order}").format(
        distinct=_distinct_on(source) if newest_only else sql.SQL(""),
        columns=_names(tuple(source.columns)),
        relation=relation(source),
        where=_where(source, start),
        order=_newest_first(source) if newest_only else sql.SQL(""),
    )


def _names(columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _where(source: SourceTable, start: datetime | None) -> sql.Composable:
    if start is None:
        return sql.SQL("")
    conditions = [changed_since(source, start)]
    if source.also is not None:
        conditions.append(
            sql.SQL("{} >= current_date - {}").format(
                sql.Identifier(source.also.column), sql.Literal(source.also.age)
            )
        )
    return sql.SQL(" WHERE {}").format(sql.SQL(" OR ").join(conditions))


def _distinct_on(source: SourceTable) -> sql.Composable:
    return sql.SQL("DISTINCT ON ({}) ").format(_names(source.key))


def _newest_first(source: SourceTable) -> sql.Composable:
    """By key, newest version first; equals in an order that is the same in every run."""
    others = [name for name in source.columns if name not in {*source.key, source.watermark_column}]
    versions = [
        sql.Identifier(source.watermark_column),
        *(sql.SQL("{}::text").format(sql.Identifier(name)) for name in others),
    ]
    descending = [sql.SQL("{} DESC NULLS LAST").format(version) for version in versions]
    return sql.SQL(" ORDER BY {}").format(
        sql.SQL(", ").join([*map(sql.Identifier, source.key), *descending])
    )
