"""What an Iceberg table holds in ranges of its key, read file by file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, And, GreaterThanOrEqual, LessThan, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.io.pyarrow import ArrowScan

from forge_platform.comparison.columns import ComparedColumn, table_digest, table_text
from forge_platform.comparison.ranges import DIGEST, KEY, Figures, KeyRange

if TYPE_CHECKING:
    from pyiceberg.expressions import BooleanExpression

    from forge_platform.iceberg.view import IcebergView

_SAMPLES_AN_EDGE = 64
_BUCKET = "_bucket"


@dataclass(frozen=True, kw_only=True)
class TableSide:
    """A table at a snapshot.

    Attributes:
        key: columns that identify a row.
        columns: what the digest is made of.
    """

    view: IcebergView
    key: Sequence[ComparedColumn]
    columns: Sequence[ComparedColumn]
    _engine: duckdb.DuckDBPyConnection = field(default_factory=duckdb.connect)

    def figures(self, within: KeyRange, edges: Sequence[Any]) -> list[Figures]:
        """Counted and summed up batch by batch."""
        found = [Figures()] * (len(edges) + 1)
        for batch in self._batches(within, self._names):
            numbered = batch.append_column(_BUCKET, self._buckets(batch, edges))
            figures = self._engine.from_arrow(_plain(numbered)).aggregate(
                f"{_last(numbered)}, count(*), sum({self._digest(batch)})", _last(numbered)
            )
            for bucket, rows, digest in figures.fetchall():
                found[bucket] += Figures(rows, int(digest))
        return found

    def edges(self, within: KeyRange, count: int) -> list[Any]:
        """Quantiles of a sample of the first column of the key."""
        name = self.key[0].name
        step = max(1, self._most_rows(within) // (count * _SAMPLES_AN_EDGE))
        samples = [
            pl.Series(pl.from_arrow(batch.column(name))).gather_every(step)
            for batch in self._batches(within, [name])
        ]
        if not samples:
            return []
        ordered = pl.concat(samples).sort()
        edges = [ordered[ordered.len() * number // count] for number in range(1, count)]
        return [edge for edge in dict.fromkeys(edges) if edge != within.low]

    def rows(self, within: KeyRange) -> pl.DataFrame:
        """Key and digest, and the columns of the key as they are in the table."""
        frames = [
            self._digests(batch).with_columns(
                pl.Series(pl.from_arrow(batch.column(of.name))).alias(of.name) for of in self.key
            )
            for batch in self._batches(within, self._names)
        ]
        return pl.concat([self.no_rows(), *frames])

    def no_rows(self) -> pl.DataFrame:
        """What ``rows`` gives where there are none."""
        empty = pl.DataFrame(pl.from_arrow(self._schema.empty_table()))
        types = {of.name: empty.schema[of.name] for of in self.key}
        return pl.DataFrame(schema={KEY: pl.String, DIGEST: pl.Int64, **types})

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(of.name for of in (*self.key, *self.columns)))

    @property
    def _schema(self) -> pa.Schema:
        return self.view.table.schema().as_arrow()

    def _batches(self, within: KeyRange, names: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of the rows; one file at a time, because a scan of all reads ahead."""
        if self.view.snapshot_id is None:
            return
        table = self.view.table
        wanted = self._filter(within)
        scan = ArrowScan(table.metadata, table.io, table.schema().select(*names), wanted)
        for task in table.scan(wanted, snapshot_id=self.view.snapshot_id).plan_files():
            for batch in scan.to_record_batches([task]):
                yield pa.Table.from_batches([batch])

    def _filter(self, within: KeyRange) -> BooleanExpression:
        column = Reference(self.key[0].name)
        low, high = (None if edge is None else literal(edge) for edge in (within.low, within.high))
        return And(
            AlwaysTrue() if low is None else GreaterThanOrEqual(term=column, value=low),
            AlwaysTrue() if high is None else LessThan(term=column, value=high),
        )

    def _most_rows(self, within: KeyRange) -> int:
        scan = self.view.table.scan(self._filter(within), snapshot_id=self.view.snapshot_id)
        return sum(task.file.record_count for task in scan.plan_files())

    def _buckets(self, batch: pa.Table, edges: Sequence[Any]) -> pa.Array[Any]:
        values = pl.Series(pl.from_arrow(batch.column(self.key[0].name)))
        if not edges:
            return pa.array([0] * batch.num_rows, pa.int64())
        found = pl.Series(edges, dtype=values.dtype).search_sorted(values, side="right")
        return found.cast(pl.Int64).to_arrow()

    def _digest(self, batch: pa.Table) -> str:
        return table_digest(self.columns, _positions(batch, self.columns))

    def _digests(self, batch: pa.Table) -> pl.DataFrame:
        key = table_text(self.key, _positions(batch, self.key))
        found = self._engine.from_arrow(_plain(batch)).project(
            f"{key} AS {KEY}, {self._digest(batch)} AS {DIGEST}"
        )
        return pl.DataFrame(pl.from_arrow(found.to_arrow_table()))


def _plain(batch: pa.Table) -> pa.Table:
    """The columns by their number: no name has to be quoted."""
    return batch.rename_columns([f"c{number}" for number in range(batch.num_columns)])


def _positions(batch: pa.Table, columns: Sequence[ComparedColumn]) -> list[str]:
    return [f"c{batch.column_names.index(column.name)}" for column in columns]


def _last(batch: pa.Table) -> str:
    return f"c{batch.num_columns - 1}"
