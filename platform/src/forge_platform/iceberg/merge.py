"""Merges rows into a table by key: only files that hold a changed row are touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow

from forge_platform.concurrency import concurrently
from forge_platform.errors import PermanentError
from forge_platform.iceberg.commit import Plan
from forge_platform.iceberg.data_file import inside
from forge_platform.iceberg.matching import (
    NEW,
    ROW,
    Lookup,
    Matches,
    with_one_place_each,
)
from forge_platform.iceberg.position_deletes import write_position_deletes
from forge_platform.iceberg.view import current_snapshot_id, files
from forge_platform.iceberg.writer import (
    ROW_GROUP_ROWS,
    removed_on_failure,
    write_frame,
    write_stream,
)

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

    from forge_platform.iceberg.pruning import Scope

_REWRITTEN_FRACTION = 0.5
"""Share of a file's rows from which it is rewritten even when deletes are written apart."""


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
        on_read: writes which rows are gone in place of the files that hold them, which readers
            then leave out.
    """

    rows: pl.DataFrame
    key: Sequence[str]
    order_by: str | None = None
    deleted_keys: pl.DataFrame | None = None
    insert_only: bool = False
    scope: Scope | None = None
    on_read: bool = False

    def plan(self, table: Table) -> Plan:
        """Plans the merge against the table's current snapshot, writing the new files.

        Raises:
            PermanentError: a key column holds NULL.
        """
        incoming = newest(self.rows, self.key, self.order_by)
        found = with_one_place_each(self._matches(table, incoming))
        added: list[DataFile] = []
        with removed_on_failure(table.io, added):
            change = _Change(table, incoming, on_read=self.on_read, added=added)
            concurrently(change.apply, [match for match in found if match.changes])
            change.insert([match.settled for match in found])
        replaced = sum(match.replaced.height for match in found)
        settled = sum(len(match.settled) for match in found)
        return Plan(
            added=added,
            removed=change.removed,
            inserted=incoming.height - replaced - settled,
            updated=replaced,
            deleted=sum(len(match.gone) for match in found),
            unchanged=settled,
        )

    def _matches(self, table: Table, incoming: pl.DataFrame) -> Sequence[Matches]:
        deleted = _as_keys(self.deleted_keys, incoming, self.key)
        if incoming.is_empty() and deleted.is_empty() and self.scope is None:
            return []
        lookup = Lookup(
            table,
            incoming,
            self.key,
            deleted,
            # What takes the place of a part of the table does so whatever was there.
            order_by=self.order_by if self.scope is None else None,
            insert_only=self.insert_only,
            scope=self.scope,
        )
        tasks = files(table, current_snapshot_id(table)).values()
        return [match for match in concurrently(lookup.look, tasks) if match is not None]


def newest(rows: pl.DataFrame, key: Sequence[str], order_by: str | None) -> pl.DataFrame:
    """One row per key: the one with the greatest ``order_by``, the last one among equals.

    Raises:
        PermanentError: a key column holds NULL; the column and the count are named.
    """
    for column in key:
        refuse_missing(column, rows.get_column(column).null_count(), rows.height, key)
    ordered = rows.sort(order_by, maintain_order=True, nulls_last=False) if order_by else rows
    return ordered.unique(subset=list(key), keep="last", maintain_order=True)


def refuse_missing(column: str, missing: int, rows: int, key: Sequence[str]) -> None:
    """Raises a PermanentError if rows have no value in a column of their key."""
    if missing:
        raise PermanentError(
            f"{missing} of {rows} rows have no {column}, which is part of the key "
            f"({', '.join(key)}). Reject these rows in the asset before they are written."
        )


@dataclass
class _Change:
    """Writes the files of a merge, several at once.

    Attributes:
        added: files that were written; a file of position deletes is one.
        removed: data files that are no longer part of the table.
        placed: numbers of the incoming rows that were written where the row was that they
            replace.
    """

    table: Table
    incoming: pl.DataFrame
    on_read: bool
    added: list[DataFile]
    removed: list[DataFile] = field(default_factory=list)
    placed: list[pl.Series] = field(default_factory=list)

    def apply(self, match: Matches) -> None:
        """Takes the rows out of a file that are replaced or gone."""
        file = match.reader.task.file
        affected = match.affected()
        if self.on_read and len(affected) < _REWRITTEN_FRACTION * file.record_count:
            self.added.append(write_position_deletes(self.table, file, affected))
            return
        # In the same place, so that a file goes on holding one range of keys. Where a row may
        # belong to another partition than before, it is inserted anew instead.
        in_place = not self.table.spec().fields
        replaced = match.replaced if in_place else match.replaced.clear()
        if in_place:
            self.placed.append(replaced.get_column(NEW))
        self.removed.append(file)
        batches = (
            batch
            for group in self._kept(match, replaced)
            for batch in group.to_batches(max_chunksize=ROW_GROUP_ROWS)
        )
        self.added.extend(write_stream(self.table, batches))

    def insert(self, settled: Sequence[pl.Series]) -> None:
        """Writes the incoming rows that have no place yet."""
        rows = self.incoming.with_row_index(NEW)
        placed = pl.concat([pl.Series(NEW, dtype=pl.UInt32), *settled, *self.placed])
        rest = rows.join(placed.to_frame(NEW), on=NEW, how="anti").drop(NEW)
        if not rest.is_empty():
            self.added.extend(write_frame(self.table, rest))

    def _kept(self, match: Matches, replaced: pl.DataFrame) -> Iterator[pa.Table]:
        """The rows of a file as they are after the merge, by row group."""
        places = replaced.get_column(ROW).to_numpy()
        outdated = match.affected().to_numpy() if not replaced.height else match.gone.to_numpy()
        dropped = np.concatenate([outdated, match.reader.deleted]).astype(np.int64)
        for position, group in match.reader.groups(self.incoming.columns):
            here = inside(places, position, group.num_rows)
            gone = dropped[inside(dropped, position, group.num_rows)] - position
            if not here.any() and not len(gone):
                yield group
                continue
            new = self._rows(replaced.get_column(NEW).filter(pl.Series(here)))
            chosen = np.arange(group.num_rows)
            chosen[places[here] - position] = group.num_rows + np.arange(new.num_rows)
            chosen = np.delete(chosen, gone)
            yield pa.concat_tables([group, new]).take(pa.array(chosen, pa.int64()))

    def _rows(self, numbers: pl.Series) -> pa.Table:
        schema = schema_to_pyarrow(self.table.schema(), include_field_ids=True)
        return self.incoming[numbers].select(schema.names).to_arrow().cast(schema)


def _as_keys(
    deleted: pl.DataFrame | None, incoming: pl.DataFrame, key: Sequence[str]
) -> pl.DataFrame:
    """The deleted keys in the types of the incoming ones; a key that also comes in stays."""
    kinds = pl.Schema({name: incoming.schema[name] for name in key})
    if deleted is None:
        return pl.DataFrame(schema=kinds)
    return deleted.select(key).cast(kinds).unique().join(incoming, on=list(key), how="anti")
