"""What PostgreSQL says of ranges of a table's key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from forge_platform.comparison.columns import ComparedColumn, source_digest, source_text
from forge_platform.comparison.ranges import DIGEST, KEY, PENDING, Figures, KeyRange
from forge_platform.postgres.source import selected_since

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

    from forge_platform.extraction import SourceTable
    from forge_platform.resources.database import DatabaseResource


@dataclass(frozen=True, kw_only=True)
class SourceSide:
    """A source table; every question is a statement and a transaction of its own.

    Attributes:
        key: columns that identify a row; rows without one are left out.
        columns: what the digest is made of.
        newest_only: whether of rows with one key only the newest counts.
        start: rows that a run from this moment on reads are told as pending.
    """

    database: DatabaseResource
    source: SourceTable
    key: Sequence[ComparedColumn]
    columns: Sequence[ComparedColumn]
    newest_only: bool
    start: datetime | None = None

    def figures(self, within: KeyRange, edges: Sequence[Any]) -> list[Figures]:
        """Counted and summed up by the server, in one pass over the range."""
        statement = sql.SQL(
            "SELECT {bucket} AS bucket, count(*), sum({digest})::text FROM {rows} GROUP BY 1"
        ).format(
            bucket=self.key[0].bucket(edges),
            digest=source_digest(self.columns),
            rows=self._rows(within),
        )
        found = {bucket: Figures(rows, int(sum_)) for bucket, rows, sum_ in self._ask(statement)}
        return [found.get(number, Figures()) for number in range(len(edges) + 1)]

    def edges(self, within: KeyRange, count: int) -> list[Any]:
        """Percentiles of the first column of the key."""
        statement = sql.SQL(
            "SELECT DISTINCT unnest(percentile_disc({shares}) WITHIN GROUP (ORDER BY {column})) "
            "AS edge FROM {rows} ORDER BY edge"
        ).format(
            shares=sql.Literal([number / count for number in range(1, count)]),
            column=self.key[0].ordered(),
            rows=self._rows(within),
        )
        found = [
            bytes(edge).decode() if isinstance(edge, memoryview) else edge
            for (edge,) in self._ask(statement)
        ]
        return [edge for edge in found if edge not in (None, within.low)]

    def rows(self, within: KeyRange) -> pl.DataFrame:
        """Key, digest, and whether the row is pending."""
        import polars as pl

        statement = sql.SQL("SELECT {key}, {digest}, {pending} FROM {rows}").format(
            key=source_text(self.key),
            digest=source_digest(self.columns),
            pending=self._pending(),
            rows=self._rows(within),
        )
        schema = {KEY: pl.String, DIGEST: pl.Int64, PENDING: pl.Boolean}
        return pl.DataFrame(self._ask(statement), schema=schema, orient="row")

    def overdue(self, within: KeyRange) -> int:
        """How many rows are not pending."""
        statement = sql.SQL("SELECT count(*) FILTER (WHERE NOT {}) FROM {}").format(
            self._pending(), self._rows(within)
        )
        [(count,)] = self._ask(statement)
        return int(count)

    def _pending(self) -> sql.Composable:
        return sql.SQL("false") if self.start is None else selected_since(self.source, self.start)

    def _rows(self, within: KeyRange) -> sql.Composable:
        relation: sql.Composable = sql.Identifier(self.source.schema, self.source.table)
        conditions = [
            *(sql.SQL("{} IS NOT NULL").format(sql.Identifier(of.name)) for of in self.key),
            *self._bounds(within),
        ]
        condition = sql.SQL(" AND ").join(conditions)
        if not self.newest_only:
            return sql.SQL("{} AS rows WHERE {}").format(relation, condition)
        key = sql.SQL(", ").join(sql.Identifier(of.name) for of in self.key)
        return sql.SQL(
            "(SELECT DISTINCT ON ({0}) * FROM {1} WHERE {2} ORDER BY {0}, {3}) AS rows"
        ).format(key, relation, condition, self._newest_first())

    def _newest_first(self) -> sql.Composable:
        """The order in which extraction takes the first of the rows with one key."""
        moment = self.source.watermark_column
        first = {moment, *(of.name for of in self.key)}
        others = [name for name in self.source.columns if name not in first]
        versions = [
            sql.Identifier(moment),
            *(sql.SQL("{}::text").format(sql.Identifier(name)) for name in others),
        ]
        return sql.SQL(", ").join(
            sql.SQL("{} DESC NULLS LAST").format(version) for version in versions
        )

    def _bounds(self, within: KeyRange) -> list[sql.Composable]:
        column = self.key[0].ordered()
        bounds = ((">=", within.low), ("<", within.high))
        return [
            sql.SQL(" ").join([column, sql.SQL(operator), self.key[0].bound(value)])
            for operator, value in bounds
            if value is not None
        ]

    def _ask(self, statement: sql.Composable) -> list[tuple[Any, ...]]:
        timeout = self.database.stream_timeout
        with self.database.connect(timeout) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()
