"""Finds the rows of data files that a merge concerns, reading no more than the key's columns.

A row that is to be replaced is compared as a whole only where its order does not decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from forge_platform.iceberg.data_file import DataFileReader
from forge_platform.iceberg.pruning import Scope, within

if TYPE_CHECKING:
    from pyiceberg.table import FileScanTask, Table

ROW = "_forge_row"
"""Position of an existing row in its file."""
NEW = "_forge_new"
"""Number of an incoming row."""

_ORDER = "_forge_order"


@dataclass(frozen=True)
class Matches:
    """What a merge does to one data file.

    Attributes:
        replaced: existing rows (``ROW``) and the incoming ones that take their place (``NEW``).
        gone: existing rows without one.
        settled: incoming rows that are there already, or older than what is there.
    """

    reader: DataFileReader
    replaced: pl.DataFrame
    gone: pl.Series
    settled: pl.Series

    @property
    def changes(self) -> bool:
        """Whether any existing row is replaced or gone."""
        return bool(self.replaced.height or len(self.gone))

    def affected(self) -> pl.Series:
        """The existing rows that are no longer there as they are."""
        return pl.concat([self.replaced.get_column(ROW), self.gone])


class Lookup:
    """Looks incoming and deleted keys up in data files."""

    def __init__(
        self,
        table: Table,
        incoming: pl.DataFrame,
        key: Sequence[str],
        deleted: pl.DataFrame,
        *,
        order_by: str | None = None,
        insert_only: bool = False,
        scope: Scope | None = None,
    ) -> None:
        """Prepare to look.

        Args:
            table: whose files are looked into.
            incoming: new rows, one per key, with the table's columns.
            key: columns that identify a row.
            deleted: keys whose rows are to go.
            order_by: column that tells which of two rows with one key is newer.
            insert_only: rows whose key is there already are settled.
            scope: the part of the table that ``incoming`` is all of.
        """
        self._table = table
        self._incoming = incoming
        self._key = list(key)
        self._deleted = deleted
        self._order = order_by
        self._insert_only = insert_only
        self._scope = scope
        order = [pl.col(order_by).alias(_ORDER)] if order_by else []
        self._keys = incoming.select(*self._key, *order).with_row_index(NEW)

    def look(self, task: FileScanTask) -> Matches | None:
        """What the merge does to a file; None if its statistics say that it is nothing."""
        keys = within(self._keys, self._key, task.file, self._table)
        deleted = within(self._deleted, self._key, task.file, self._table)
        in_scope = self._scope is not None and self._scope.may_hold(task.file, self._table)
        if keys.is_empty() and deleted.is_empty() and not in_scope:
            return None
        reader = DataFileReader(self._table, task)
        existing = reader.live(self._columns(), ROW)
        hits = existing.join(keys, on=self._key)
        settled = hits if self._insert_only else self._settled(reader, hits)
        return Matches(
            reader=reader,
            replaced=hits.join(settled, on=ROW, how="anti").select(ROW, NEW),
            gone=self._gone(existing, deleted, in_scope=in_scope),
            settled=settled.get_column(NEW),
        )

    def _columns(self) -> Sequence[str]:
        scoped = self._scope.column if self._scope else None
        names = [*self._key, self._order, scoped]
        return list(dict.fromkeys(name for name in names if name is not None))

    def _settled(self, reader: DataFileReader, hits: pl.DataFrame) -> pl.DataFrame:
        if self._order is None:
            return self._same(reader, hits)
        new, current = pl.col(_ORDER), pl.col(self._order)
        older = hits.filter((new < current) | (new.is_null() & current.is_not_null()))
        undecided = hits.filter(new.eq_missing(current))
        return pl.concat([older, self._same(reader, undecided)])

    def _same(self, reader: DataFileReader, hits: pl.DataFrame) -> pl.DataFrame:
        """The hits whose existing and incoming row are equal in every column."""
        names = self._incoming.columns
        equal = [hits.clear()]
        for position, group in reader.groups(names, touching=hits.get_column(ROW)):
            here = hits.filter(pl.col(ROW).is_between(position, position + group.num_rows - 1))
            old = pl.DataFrame(pl.from_arrow(group))[here.get_column(ROW) - position]
            new = self._incoming[here.get_column(NEW)].select(pl.all().name.prefix(NEW))
            both = pl.concat([old, new], how="horizontal")
            test = pl.all_horizontal(map(_is_same, names, self._incoming.dtypes))
            equal.append(here.filter(both.select(test).to_series()))
        return pl.concat(equal)

    def _gone(self, existing: pl.DataFrame, deleted: pl.DataFrame, *, in_scope: bool) -> pl.Series:
        asked = existing.join(deleted, on=self._key, how="semi").get_column(ROW)
        if self._scope is None or not in_scope:
            return asked
        inside = existing.filter(self._scope.predicate(existing.schema))
        outdated = inside.join(self._keys, on=self._key, how="anti").get_column(ROW)
        return pl.concat([asked, outdated]).unique()


def _is_same(name: str, kind: pl.DataType) -> pl.Expr:
    old, new = pl.col(name), pl.col(NEW + name)
    if not kind.is_float():
        return old.eq_missing(new)
    # 0.0 equals -0.0, and only their reciprocals differ.
    return old.eq_missing(new) & (1 / old).eq_missing(1 / new)


def with_one_place_each(found: Sequence[Matches]) -> Sequence[Matches]:
    """Gives each incoming row one place; the other rows with its key are gone.

    A table that only this library writes has no two rows with one key.
    """
    taken = pl.concat([pl.Series(NEW, dtype=pl.UInt32), *(match.settled for match in found)])
    places = pl.concat([taken, *(match.replaced.get_column(NEW) for match in found)])
    if places.n_unique() == len(places):
        return found
    result = []
    for match in found:
        first = match.replaced.unique(NEW, keep="first", maintain_order=True)
        kept = first.filter(~pl.col(NEW).is_in(taken.implode()))
        lost = match.replaced.join(kept, on=ROW, how="anti").get_column(ROW)
        taken = pl.concat([taken, kept.get_column(NEW)])
        gone = pl.concat([match.gone, lost]) if len(lost) else match.gone
        result.append(replace(match, replaced=kept, gone=gone))
    return result
