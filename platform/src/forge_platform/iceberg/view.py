"""A table pinned at one snapshot, and the difference between two snapshots."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from forge_platform.concurrency import concurrently
from forge_platform.iceberg.data_file import DataFileReader
from forge_platform.iceberg.failures import of_store
from forge_platform.iceberg.history import stretches
from forge_platform.tables import Changes, TableView

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from pyiceberg.schema import Schema
    from pyiceberg.table import FileScanTask, Table

# Polars warns that its own planner, a first release, is not installed.
os.environ.setdefault("POLARS_ICEBERG_PLANNER", "pyiceberg")

_SIGN = "_forge_sign"
_COPY = "_forge_copy"
_DIGEST = "_forge_digest"


def files(table: Table, snapshot_id: int | None) -> Mapping[str, FileScanTask]:
    """The data files of a snapshot by path; empty for a table without a snapshot."""
    if snapshot_id is None:
        return {}
    tasks = table.scan(snapshot_id=snapshot_id).plan_files()
    return {task.file.file_path: task for task in tasks}


def read_files(
    table: Table, tasks: Sequence[FileScanTask], as_of: Schema | None = None
) -> pl.DataFrame:
    """The rows of some data files, deletes applied, in the current or another schema."""
    parts = concurrently(lambda task: list(stream_files(table, [task], as_of)), tasks)
    batches = [batch for part in parts for batch in part]
    schema = (as_of or table.schema()).as_arrow()
    return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches, schema)))


def stream_files(
    table: Table, tasks: Iterable[FileScanTask], as_of: Schema | None = None
) -> Iterator[pa.RecordBatch]:
    """The same in bounded memory, one file after the other."""
    schema = (as_of or table.schema()).as_arrow()
    for task in tasks:
        for group in DataFileReader(table, task, as_of).rows(schema.names):
            yield from pa.Table.from_arrays(group.columns, schema=schema).to_batches()


def live_rows(task: FileScanTask) -> int:
    """The rows of a data file that are not deleted."""
    return int(task.file.record_count - sum(file.record_count for file in task.delete_files))


def current_snapshot_id(table: Table) -> int | None:
    """The id of the table's current snapshot; None before the first one."""
    snapshot = table.current_snapshot()
    return snapshot.snapshot_id if snapshot else None


class IcebergView(TableView):
    """A table pinned at one snapshot; see :class:`forge_platform.tables.TableView`."""

    def __init__(self, table: Table, identifier: str, snapshot_id: int | None) -> None:
        self.table = table
        self.identifier = identifier
        self.snapshot_id = snapshot_id

    @cached_property
    def schema(self) -> Schema:
        """The table's schema when the snapshot was written, as every reader of Iceberg sees it."""
        snapshot = self.table.snapshot_by_id(self.snapshot_id) if self.snapshot_id else None
        if snapshot is None or snapshot.schema_id is None:
            return self.table.schema()
        return self.table.schemas()[snapshot.schema_id]

    def column_types(self) -> Mapping[str, str]:
        """Column name to Iceberg type, as Iceberg prints it."""
        return {field.name: str(field.field_type) for field in self.schema.fields}

    def scan(self) -> pl.LazyFrame:
        """The rows, lazily; filters and projections are pushed into the files."""
        if self.snapshot_id is None:
            return self._read([]).lazy()
        return pl.scan_iceberg(self.table, snapshot_id=self.snapshot_id)

    def read(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows, in memory."""
        rows = self.scan()
        with self._failures():
            return (rows if columns is None else rows.select(columns)).collect()

    def head(self, rows: int) -> pl.DataFrame:
        """The first rows of the table, as few files as possible being read."""
        with self._failures():
            return self.scan().head(rows).collect()

    def tasks(self) -> Sequence[FileScanTask]:
        """The data files of the snapshot, with Iceberg's statistics."""
        with self._failures():
            return list(files(self.table, self.snapshot_id).values())

    def batches(self) -> pa.RecordBatchReader:
        """The rows as a stream of Arrow batches, in bounded memory."""
        return pa.RecordBatchReader.from_batches(
            self.schema.as_arrow(), self._streamed(self.tasks())
        )

    def has_snapshot(self, snapshot_id: int | None) -> bool:
        """Whether it is known what changed after a snapshot: it is not None, nor was expired."""
        if snapshot_id is None or self.snapshot_id is None:
            return False
        return self.table.snapshot_by_id(snapshot_id) is not None

    def changes_since(
        self, snapshot_id: int | None, columns: Sequence[str] | None = None
    ) -> Changes:
        """What changed after a snapshot; everything when it is None or was expired.

        Only the data files that the two snapshots do not share are read, and none for a commit
        between them that wrote the same rows anew. Where only some columns are wanted, these are
        in memory and a digest of each row.
        """
        current = self.snapshot_id
        if snapshot_id is None or current is None or not self.has_snapshot(snapshot_id):
            rows = self.read(columns)
            return Changes(rows=rows, removed=rows.clear(), snapshot_id=current, complete=True)
        wanted = list(columns or self.schema.as_arrow().names)
        with self._failures():
            parts = [
                self._between(files(self.table, older), files(self.table, newer), columns)
                for older, newer in stretches(self.table, snapshot_id, current)
            ]
        rows, removed = (frame.select(wanted) for frame in self._net(parts, columns))
        return Changes(rows=rows, removed=removed, snapshot_id=current, complete=False)

    def _failures(self) -> AbstractContextManager[None]:
        return of_store(self.table.location())

    def _streamed(self, tasks: Sequence[FileScanTask]) -> Iterator[pa.RecordBatch]:
        with self._failures():
            yield from stream_files(self.table, tasks, self.schema)

    def _between(
        self,
        before: Mapping[str, FileScanTask],
        after: Mapping[str, FileScanTask],
        columns: Sequence[str] | None,
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows that came and those that went."""
        old = self._rows(before, after, columns)
        new = self._rows(after, before, columns)
        return _minus(new, old), _minus(old, new)

    def _net(
        self,
        parts: Sequence[tuple[pl.DataFrame, pl.DataFrame]],
        columns: Sequence[str] | None,
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """What came and went in all: a row that came and went again did neither."""
        if len(parts) == 1:
            return parts[0]
        none = _reduced(self._read([]), columns)
        signed = [
            frame.with_columns(pl.lit(sign, pl.Int32).alias(_SIGN))
            for came, went in parts
            for frame, sign in ((came, 1), (went, -1))
        ]
        total = pl.concat([none.with_columns(pl.lit(0, pl.Int32).alias(_SIGN)), *signed])
        net = total.group_by(none.columns, maintain_order=True).agg(pl.col(_SIGN).sum())
        return _repeated(net, pl.col(_SIGN)), _repeated(net, -pl.col(_SIGN))

    def _rows(
        self,
        wanted: Mapping[str, FileScanTask],
        other: Mapping[str, FileScanTask],
        columns: Sequence[str] | None,
    ) -> pl.DataFrame:
        """The rows of a snapshot that lie where another has none."""
        none = self._read([])
        whole = [wanted[path] for path in wanted if path not in other]
        shared = [(wanted[path], other[path]) for path in wanted if path in other]
        parts = [
            DataFileReader(self.table, here, self.schema).rows_that(there, none.columns)
            for here, there in shared
            if there.delete_files - here.delete_files
        ]
        return pl.concat(
            [
                _reduced(none, columns),
                *concurrently(lambda task: self._of_file(task, columns), whole),
                *(_reduced(part, columns) for part in parts),
            ]
        )

    def _of_file(self, task: FileScanTask, columns: Sequence[str] | None) -> pl.DataFrame:
        """Its rows; where only some columns are wanted, all of them for a row group at a time."""
        batches = stream_files(self.table, [task], self.schema)
        frames = (pl.DataFrame(pl.from_arrow(batch)) for batch in batches)
        return pl.concat(
            [_reduced(self._read([]), columns), *(_reduced(f, columns) for f in frames)]
        )

    def _read(self, tasks: Sequence[FileScanTask]) -> pl.DataFrame:
        return read_files(self.table, tasks, self.schema)


def _reduced(rows: pl.DataFrame, columns: Sequence[str] | None) -> pl.DataFrame:
    """Some columns, and a digest of all, which tells rows apart that differ in others."""
    if columns is None:
        return rows
    digests = (rows.hash_rows(seed).alias(f"{_DIGEST}{seed}") for seed in (1, 2))
    return rows.select(columns).with_columns(digests)


def _repeated(net: pl.DataFrame, times: pl.Expr) -> pl.DataFrame:
    """The rows with a positive number of times, so often."""
    counted = net.with_columns(times.alias(_SIGN)).filter(pl.col(_SIGN) > 0)
    numbers = pl.int_range(counted.height, eager=True).repeat_by(counted[_SIGN]).explode()
    return counted.drop(_SIGN)[numbers.drop_nulls()]


def _minus(rows: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """The rows that the others have not, or not so often."""
    columns = rows.columns
    if rows.n_unique() == rows.height and others.n_unique() == others.height:
        return rows.join(others, on=columns, how="anti", nulls_equal=True)
    copy = pl.int_range(pl.len()).over(columns).alias(_COPY)
    left, right = rows.with_columns(copy), others.with_columns(copy)
    return left.join(right, on=left.columns, how="anti", nulls_equal=True).drop(_COPY)
