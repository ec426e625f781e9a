"""Tells by a file's statistics what it cannot hold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from pyiceberg.conversions import from_bytes
from pyiceberg.types import PrimitiveType

from forge_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

# Types whose statistics compare with Polars' physical form; those of floats leave out NaN.
_PRUNABLE = (pl.Int32, pl.Int64, pl.String, pl.Date, pl.Datetime)

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Scope:
    """A part of a table: all of it, a window of time, or where a column has certain values.

    Attributes:
        column: the column that decides; None is the whole table.
        window: first moment inside and first moment beyond; for a date or timestamp column. To a
            column without a time zone, the moments are what a clock in their own zone shows.
        values: the values inside, for any other column.
    """

    column: str | None = None
    window: tuple[dt.datetime, dt.datetime] | None = None
    values: Sequence[Any] = ()

    def predicate(self, schema: pl.Schema) -> pl.Expr:
        """Whether a row of this schema is inside.

        Raises:
            ConfigurationError: a value is none that the column can have.
        """
        if self.column is None:
            return pl.lit(value=True)
        if self.window is None:
            inside = self._values(schema[self.column])
            return pl.col(self.column).is_in(inside.implode()).fill_null(value=False)
        start, beyond = self._edges(schema[self.column])
        moment = pl.col(self.column).dt.timestamp("us")
        return ((moment >= start) & (moment < beyond)).fill_null(value=False)

    def may_hold(self, file: DataFile, table: Table) -> bool:
        """Whether the file's statistics allow it to hold a row that is inside."""
        if self.column is None or self.window is None:
            return True
        low, high = bounds(file, table, self.column)
        if low is None or high is None:
            return True
        kind = _polars_type(table, self.column)
        edges = pl.Series([low, high]).cast(kind).dt.timestamp("us")
        start, beyond = self._edges(kind)
        return bool(edges[1] >= start and edges[0] < beyond)

    def _values(self, kind: pl.DataType) -> pl.Series:
        """In the column's type: the keys of Dagster's partitions are texts."""
        try:
            return pl.Series(self.values).cast(kind)
        except pl.exceptions.InvalidOperationError as error:
            raise ConfigurationError(
                f"Not all partitions are values of the column {self.column} ({kind}): "
                f"{', '.join(map(str, self.values))}. Rename the partitions of the asset, or name "
                "another column for them."
            ) from error

    def _edges(self, kind: pl.DataType) -> Sequence[int]:
        has_zone = isinstance(kind, pl.Datetime) and kind.time_zone is not None
        return [
            _microseconds(moment if has_zone else moment.replace(tzinfo=dt.UTC))
            for moment in self.window or ()
        ]


def _microseconds(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // dt.timedelta(microseconds=1)


def within(
    keys: pl.DataFrame, columns: Sequence[str], file: DataFile, table: Table
) -> pl.DataFrame:
    """The keys that the file may hold, by its statistics of the key's columns."""
    for name in columns:
        low, high = bounds(file, table, name)
        if low is None or high is None or not isinstance(keys.schema[name], _PRUNABLE):
            continue
        inside = pl.col(name).to_physical().is_between(pl.lit(low), pl.lit(high))
        keys = keys.filter(inside | pl.col(name).is_null())
    return keys


def bounds(file: DataFile, table: Table, name: str) -> tuple[Any, Any]:
    """Lowest and highest value of a column in a file, in physical form; None if unknown."""
    column = table.schema().find_field(name)
    statistics = (file.lower_bounds, file.upper_bounds)
    found = [(values or {}).get(column.field_id) for values in statistics]
    if not isinstance(column.field_type, PrimitiveType) or None in found:
        return None, None
    low, high = (from_bytes(column.field_type, value) for value in found if value is not None)
    return low, high


def _polars_type(table: Table, column: str) -> pl.DataType:
    schema = table.schema().select(column).as_arrow()
    return pl.DataFrame(pl.from_arrow(schema.empty_table())).dtypes[0]
