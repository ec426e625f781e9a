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
_PREPARED = "EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database())"
_SEES_TRANSACTIONS = sql.SQL("""
    NOT pg_is_in_recovery() AND pg_has_role('pg_read_all_stats', 'USAGE') AND NOT EXISTS (
        SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'disabled'
          AND pid <> pg_backend_pid() AND application_name IS DISTINCT FROM {stream}
    )
""").format(stream=sql.Literal(STREAM_NAME))
_SAMPLED_PAGES = 8
_SAMPLED_ROWS = 1_000


def relation(source: SourceTable) -> sql.Composable:
    """The table's quoted name."""
    return sql.Identifier(source.schema, source.table)


def position_query(source: SourceTable) -> sql.Composable:
    """One row: the settled position, and whether other users' transactions were visible.

    The third value says whether a transaction is prepared: when it began, PostgreSQL does not tell,
    only when it was prepared, and the position is that of one which began then.

    Up to the settled position the table is complete for every statement that follows: it is
    the newest watermark-column value, but neither beyond the start of the oldest transaction
    that is open, which may still commit rows with that time stamp, nor beyond the present.
    NULL for an empty table.
    """
    return sql.SQL("SELECT {}, {}, {} FROM {}").format(
        _SETTLED, _SEES_TRANSACTIONS, sql.SQL(_PREPARED), _newest(source)
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


def selected_since(source: SourceTable, moment: datetime) -> sql.Composable:
    """Predicate of the rows that a run reads from a moment on."""
    if source.also is None:
        return changed_since(source, moment)
    return sql.SQL("({} OR {} >= current_date - {})").format(
        changed_since(source, moment),
        sql.Identifier(source.also.column),
        sql.Literal(source.also.age),
    )


def window_query(source: SourceTable, start: datetime, *others: datetime) -> sql.Composable:
    """One row: number and digest of the rows read from each moment on, of all in one snapshot.

    The digest is the sum of the rows' hashes: the same in whichever order they are read.
    """
    moments = (start, *others)
    row = sql.SQL("hashtextextended(ROW({})::text, 0)").format(_names(tuple(source.columns)))
    figures = sql.SQL("count(*) FILTER (WHERE {0}), coalesce(sum({1}) FILTER (WHERE {0}), 0)::text")
    return sql.SQL("SELECT {} FROM {} WHERE {}").format(
        sql.SQL(", ").join(
            figures.format(selected_since(source, moment), row) for moment in moments
        ),
        relation(source),
        selected_since(source, min(moments)),
    )


def key_query(source: SourceTable) -> sql.Composable:
    """Rows if the source sees to it that no two rows have one key.

    The index of a table does not cover the tables that inherit from it; that of a partitioned one
    covers its partitions.
    """
    return sql.SQL(
        "SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) "
        "WHERE indrelid = {} AND indisunique AND indisvalid AND indpred IS NULL "
        "AND indexprs IS NULL AND NOT EXISTS (SELECT FROM pg_inherits JOIN pg_class "
        "ON oid = inhparent WHERE inhparent = indrelid AND relkind <> 'p') GROUP BY indexrelid "
        "HAVING bool_and(attnotnull) AND array_agg(attname::text) <@ {}"
    ).format(_regclass(source), sql.Literal(list(source.key)))


def pages_query(source: SourceTable) -> sql.Composable:
    """One row: pages of its largest partition, and of all; NULL where rows have no place."""
    return sql.SQL(
        "SELECT max(pages), sum(pages)::bigint FROM (SELECT "
        "pg_relation_size(oid) / current_setting('block_size')::bigint AS pages FROM {}) AS parts"
    ).format(_stored_parts(source))


def sample_query(source: SourceTable, pages: int) -> sql.Composable:
    """One row: mean bytes of a row as text, and rows on a page; NULL where the sample is empty.

    What is on disk tells little of the bytes: large values are compressed there. The rows on a
    page are NULL before PostgreSQL 14, which reads the whole table for a range of pages.

    Args:
        source: the table; neither a view nor a foreign table, which cannot be sampled.
        pages: that its rows lie on.
    """
    width = sql.SQL(" + ").join(
        sql.SQL("coalesce(octet_length({}::text), 0)").format(sql.Identifier(name))
        for name in source.columns
    )
    percent = min(100.0, 100.0 * _SAMPLED_PAGES / max(pages, 1))
    return sql.SQL(
        "SELECT avg({})::bigint, CASE WHEN current_setting('server_version_num')::int >= 140000 "
        "THEN count(*) / nullif(count(DISTINCT (place::text::point)[0]), 0) END FROM "
        "(SELECT ctid AS place, {} FROM {} TABLESAMPLE SYSTEM ({}) LIMIT {}) AS sample"
    ).format(
        width,
        _names(tuple(source.columns)),
        relation(source),
        sql.Literal(percent),
        sql.Literal(_SAMPLED_ROWS),
    )


def _stored_parts(source: SourceTable) -> sql.Composable:
    """What has rows on disk: the table itself, and its partitions."""
    return sql.SQL(
        "pg_class WHERE relkind IN ('r', 'm') AND oid IN "
        "(SELECT relid FROM pg_partition_tree({0}) UNION ALL SELECT {0})"
    ).format(_regclass(source))


def rows_query(
    source: SourceTable,
    start: datetime | None,
    *,
    unique: bool,
    pages: tuple[str | None, str | None] = (None, None),
) -> sql.Composable:
    """The rows to read: all, or those from a moment on, and what is read with them.

    Args:
        source: the table.
        start: the moment; None reads all.
        unique: whether no two rows of the table have one key.
        pages: places of the first row and of the first beyond; None is the table's end.
    """
    newest_only = source.versions == "newest" and not unique
    conditions = [*_between(*pages), *([selected_since(source, start)] if start else [])]
    where = sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(conditions))
    return sql.SQL("SELECT {distinct}{columns} FROM {relation}{where}{order}").format(
        distinct=_distinct_on(source) if newest_only else sql.SQL(""),
        columns=_names(tuple(source.columns)),
        relation=relation(source),
        where=where if conditions else sql.SQL(""),
        order=_newest_first(source) if newest_only else sql.SQL(""),
    )


def count_query(source: SourceTable, start: datetime) -> sql.Composable:
    """One row: how many rows there are to read from a moment on."""
    return sql.SQL("SELECT count(*) FROM {} WHERE {}").format(
        relation(source), selected_since(source, start)
    )


def part_queries(
    source: SourceTable, start: datetime | None, pages: int, parts: int
) -> Sequence[sql.Composable]:
    """The same in parts, by the pages that the rows lie on."""
    edges = [f"({pages * part // parts},0)" for part in range(1, parts)]
    ranges = zip([None, *edges], [*edges, None], strict=True)
    return [rows_query(source, start, unique=True, pages=part) for part in ranges]


def _between(first: str | None, beyond: str | None) -> Sequence[sql.Composable]:
    bounds = {">=": first, "<": beyond}
    return [
        sql.SQL("ctid " + operator + " {}::tid").format(sql.Literal(place))
        for operator, place in bounds.items()
        if place is not None
    ]


def _regclass(source: SourceTable) -> sql.Composable:
    return sql.SQL("format('%I.%I', {}, {})::regclass").format(
        sql.Literal(source.schema), sql.Literal(source.table)
    )


def _names(columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


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
