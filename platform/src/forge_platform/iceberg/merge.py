"""Merges rows into a table by key: only files that hold a changed row are rewritten."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from pyiceberg.conversions import from_bytes
from pyiceberg.types import PrimitiveType

from forge_platform.errors import PermanentError
from forge_platform.iceberg.commit import Plan
from forge_platform.iceberg.view import current_snapshot_id, files, read_files
from forge_platform.iceberg.writer import removed_on_failure, write_frame

# Types whose statistics compare with Polars' physical form.
_PRUNABLE = (
    *(pl.Int32, pl.Int64, pl.Float32, pl.Float64),
    *(pl.String, pl.Date, pl.Datetime),
)

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table


@dataclass(frozen=True)
class Scope:
    """A part of a table: all of it, a window of time, or where a column has certain values.

    Attributes:
        column: the column that decides; None is the whole table.
        window: first moment inside and first moment beyond; for a date or timestamp column.
        values: the values inside, for any other column.
    """

    column: str | None = None
    window: tuple[dt.datetime, dt.datetime] | None = None
    values: Sequence[Any] = ()

    def predicate(self) -> pl.Expr:
        """Whether a row is inside."""
        if self.column is None:
            return pl.lit(value=True)
        if self.window is None:
            return pl.col(self.column).is_in(list(self.values)).fill_null(value=False)
        start, beyond = map(_microseconds, self.window)
        moment = pl.col(self.column).dt.timestamp("us")
        return ((moment >= start) & (moment < beyond)).fill_null(value=False)

    def may_hold(self, file: DataFile, table: Table) -> bool:
        """Whether the file's statistics allow it to hold a row that is inside."""
        if self.column is None or self.window is None:
            return True
        low, high = bounds(file, table, self.column)
        if low is None or high is None:
            return True
        edges = pl.Series([low, high]).cast(_polars_type(table, self.column)).dt.timestamp("us")
        start, beyond = map(_microseconds, self.window)
        return bool(edges[1] >= start and edges[0] < beyond)


def _microseconds(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // dt.timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Replace:
    """Rows without a key that take the place of others.

    Attributes:
        rows: the new rows.
        scope: the part of the table that is replaced.
        matching: column values whose rows are replaced, instead of a scope.
    """

    rows: pl.DataFrame
    scope: Scope = Scope()
    matching: pl.DataFrame | None = None

    def plan(self, table: Table) -> Plan:
        """Plans the replacement against the table's current snapshot, writing the new files."""
        added: list[DataFile] = []
        removed: list[DataFile] = []
        deleted = 0
        with removed_on_failure(table.io, added):
            for task in self._tasks(table):
                existing = read_files(table, [task])
                kept = self._kept(existing)
                if kept.height == existing.height:
                    continue
                removed.append(task.file)
                deleted += existing.height - kept.height
                added.extend(write_frame(table, kept))
            added.extend(write_frame(table, self.rows))
        return Plan(added=added, removed=removed, inserted=self.rows.height, deleted=deleted)

    def _tasks(self, table: Table) -> list[FileScanTask]:
        tasks = files(table, current_snapshot_id(table)).values()
        return [task for task in tasks if self._may_hold(table, task)]

    def _may_hold(self, table: Table, task: FileScanTask) -> bool:
        if self.matching is None:
            return self.scope.may_hold(task.file, table)
        return may_hold(task.file, table, self.matching)

    def _kept(self, existing: pl.DataFrame) -> pl.DataFrame:
        if self.matching is None:
            return existing.filter(~self.scope.predicate())
        on = self.matching.columns
        return existing.join(self.matching, on=on, how="anti", nulls_equal=True)


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What to merge, and by which rule.

    Attributes:
        rows: the new rows; several with one key are reduced to the newest.
        key: columns that identify a row; never NULL.
        order_by: column that tells which of two rows with one key is newer; an existing
            row that is newer stays.
        deleted_keys: keys whose rows are removed, in the key's columns.
        insert_only: rows whose key is there already are left as they are.
        scope: the part of the table that ``rows`` is all of: other rows in it are removed.
    """

    rows: pl.DataFrame
    key: Sequence[str]
    order_by: str | None = None
    deleted_keys: pl.DataFrame | None = None
    insert_only: bool = False
    scope: Scope | None = None

    def plan(self, table: Table) -> Plan:
        """Plans the merge against the table's current snapshot, writing the new files.

        Raises:
            PermanentError: a key column holds NULL.
        """
        incoming = newest(self.rows, self.key, self.order_by)
        progress = _Progress(self, incoming, _as_keys(self.deleted_keys, incoming, self.key))
        with removed_on_failure(table.io, progress.added):
            for task in files(table, current_snapshot_id(table)).values():
                in_scope = self.scope is not None and self.scope.may_hold(task.file, table)
                if in_scope or may_hold(task.file, table, progress.keys):
                    progress.visit(table, task)
            return progress.finish(table)


def newest(rows: pl.DataFrame, key: Sequence[str], order_by: str | None) -> pl.DataFrame:
    """One row per key: the one with the greatest ``order_by``, the last one among equals.

    Raises:
        PermanentError: a key column holds NULL; the column and the count are named.
    """
    for column in key:
        if missing := rows.get_column(column).null_count():
            raise PermanentError(
                f"{missing} of {rows.height} rows have no {column}, which is part of the key "
                f"({', '.join(key)}). Reject these rows in the asset before they are written."
            )
    ordered = rows.sort(order_by, maintain_order=True, nulls_last=False) if order_by else rows
    return ordered.unique(subset=list(key), keep="last", maintain_order=True)


def may_hold(file: DataFile, table: Table, keys: pl.DataFrame) -> bool:
    """Whether the file's statistics allow it to hold one of the keys."""
    for name in keys.columns:
        low, high = bounds(file, table, name)
        if low is None or high is None:
            continue
        column = keys.get_column(name)
        if not isinstance(column.dtype, _PRUNABLE):
            continue
        column = column.to_physical()
        if not column.is_between(low, high).any():
            return False
    return True


def bounds(file: DataFile, table: Table, name: str) -> tuple[Any, Any]:
    """Lowest and highest value of a column in a file, in physical form; None if unknown."""
    column = table.schema().find_field(name)
    statistics = (file.lower_bounds, file.upper_bounds)
    found = [(values or {}).get(column.field_id) for values in statistics]
    if not isinstance(column.field_type, PrimitiveType) or None in found:
        return None, None
    low, high = (from_bytes(column.field_type, value) for value in found if value is not None)
    return low, high


class _Progress:
    """Goes through the files that may hold a key, and gathers what the commit changes."""

    def __init__(self, merge: Merge, incoming: pl.DataFrame, deleted: pl.DataFrame) -> None:
        self._merge = merge
        self._key = list(merge.key)
        self._pending = incoming
        self._deleted = deleted
        self.keys = pl.concat([incoming.select(self._key), deleted])
        self.added: list[DataFile] = []
        self._removed: list[DataFile] = []
        self._updated = 0
        self._deleted_rows = 0
        self._unchanged_rows = 0

    def visit(self, table: Table, task: FileScanTask) -> None:
        """Splits one file's rows into what stays, what is replaced and what goes."""
        existing = read_files(table, [task])
        matched = self._pending.join(existing, on=self._key, how="semi")
        outdated = matched if self._merge.insert_only else self._unchanged(matched, existing)
        replaced = matched.join(outdated, on=self._key, how="anti")
        gone = self._gone(existing)
        self._updated += replaced.height
        self._deleted_rows += gone.height
        self._unchanged_rows += outdated.height
        self._pending = self._pending.join(outdated, on=self._key, how="anti")
        drop = pl.concat([replaced.select(self._key), gone])
        if drop.is_empty():
            return
        self._removed.append(task.file)
        kept = existing.join(drop, on=self._key, how="anti")
        if not kept.is_empty():
            self.added.extend(write_frame(table, kept))

    def finish(self, table: Table) -> Plan:
        """Writes the rows that are new or replaced, and sums up."""
        if not self._pending.is_empty():
            self.added.extend(write_frame(table, self._pending))
        return Plan(
            added=self.added,
            removed=self._removed,
            inserted=self._pending.height - self._updated,
            updated=self._updated,
            deleted=self._deleted_rows,
            unchanged=self._unchanged_rows,
        )

    def _unchanged(self, matched: pl.DataFrame, existing: pl.DataFrame) -> pl.DataFrame:
        """The matched rows that need no write: the same already, or older than what is there."""
        columns = matched.columns
        same = matched.join(existing, on=columns, how="semi", nulls_equal=True)
        order = self._merge.order_by
        if order is None:
            return same
        current = existing.select(*self._key, pl.col(order).alias("_current"))
        older = matched.join(current, on=self._key).filter(pl.col(order) < pl.col("_current"))
        return pl.concat([same, older.select(columns)]).unique(subset=self._key)

    def _gone(self, existing: pl.DataFrame) -> pl.DataFrame:
        asked = existing.select(self._key).join(self._deleted, on=self._key, how="semi")
        if self._merge.scope is None:
            return asked
        inside = existing.filter(self._merge.scope.predicate()).select(self._key)
        return pl.concat([asked, inside.join(self.keys, on=self._key, how="anti")])


def _polars_type(table: Table, column: str) -> pl.DataType:
    schema = table.schema().select(column).as_arrow()
    return pl.DataFrame(pl.from_arrow(schema.empty_table())).dtypes[0]


def _as_keys(
    deleted: pl.DataFrame | None, incoming: pl.DataFrame, key: Sequence[str]
) -> pl.DataFrame:
    """The deleted keys in the types of the incoming ones; a key that also comes in stays."""
    kinds = pl.Schema({name: incoming.schema[name] for name in key})
    if deleted is None:
        return pl.DataFrame(schema=kinds)
    return deleted.select(key).cast(kinds).unique().join(incoming, on=list(key), how="anti")
