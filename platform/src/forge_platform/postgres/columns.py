"""The columns of a query's result, and how their values arrive exactly or not at all."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from psycopg2 import sql

_NUMERIC = 1700
_LARGEST_PRECISION = 38
_DATE, _TIME, _TIMESTAMP, _TIMESTAMPTZ = 1082, 1083, 1114, 1184

_DAY = dt.timedelta(days=1)
_EPOCH = dt.date(1970, 1, 1)
_DAYS = ((dt.date.min - _EPOCH) // _DAY, (dt.date.max - _EPOCH) // _DAY)
_DAY_MICROSECONDS = 86_400_000_000
_MICROSECONDS = (_DAYS[0] * _DAY_MICROSECONDS, (_DAYS[1] + 1) * _DAY_MICROSECONDS - 1)
_LIMITS = {
    _DATE: _DAYS,
    _TIME: (0, _DAY_MICROSECONDS - 1),
    _TIMESTAMP: _MICROSECONDS,
    _TIMESTAMPTZ: _MICROSECONDS,
}
# bool, bytea, bigint, smallint, integer, text, real, double precision, varchar
_EXACT = {16, 17, 20, 21, 23, 25, 700, 701, 1043, *_LIMITS}


@dataclass(frozen=True)
class ResultColumn:
    """A result column: its name, the type's oid, and the modifiers of a numeric.

    What Arrow has no exact type for comes as PostgreSQL's text: a numeric without precision
    would become a double. Three kinds of value have no counterpart and are found in what
    arrives: a date or time stamp that is infinite or outside of the years 1 to 9999, the time
    24:00, and the NaN of a numeric, which DuckDB reads as 0.
    """

    name: str
    oid: int
    precision: int
    scale: int

    @property
    def can_be_inexact(self) -> bool:
        """Whether some value of the column's type has no counterpart."""
        return self._is_decimal or self.oid in _LIMITS

    def in_source(self, alias: str) -> sql.Composable:
        """What PostgreSQL sends, under another name: to DuckDB "Name" and "name" are the same."""
        exact = self._is_decimal or self.oid in _EXACT
        select = sql.SQL("{} AS {}" if exact else "{}::text AS {}")
        return select.format(sql.Identifier(self.name), sql.Identifier(alias))

    def problem(self, values: pa.Array[Any]) -> str | None:
        """What is wrong with a batch of values, if anything is."""
        if self.oid not in _LIMITS:
            return None
        lowest, highest = _LIMITS[self.oid]
        edges = pc.min_max(values.view(pa.int32() if self.oid == _DATE else pa.int64()))
        low, high = edges["min"].as_py(), edges["max"].as_py()
        if low is None or (low >= lowest and high <= highest):
            return None
        return self.excluded

    @property
    def excluded(self) -> str:
        """What its values must not be."""
        if self._is_decimal:
            return "NaN"
        return "24:00" if self.oid == _TIME else "infinity, or a year outside of 1 to 9999"

    def is_inexact(self) -> sql.Composable:
        """Whether a value is one of these, for PostgreSQL to tell."""
        name = sql.Identifier(self.name)
        if self._is_decimal:
            return sql.SQL("{} = 'NaN'::numeric").format(name)
        if self.oid == _TIME:
            return sql.SQL("{} = '24:00'::time").format(name)
        kind = {_DATE: "date", _TIMESTAMP: "timestamp", _TIMESTAMPTZ: "timestamptz"}[self.oid]
        outside = "NOT ({0} >= '0001-01-01'::%s AND {0} < '10000-01-01'::%s)" % (kind, kind)  # noqa: UP031 - braces are psycopg2's
        return sql.SQL(outside).format(name)

    def is_suspect(self, values: pa.Array[Any]) -> bool:
        """Whether a batch of values may hold a NaN."""
        if not self._is_decimal:
            return False
        return bool(pc.any(pc.equal(values, _zero(values.type))).as_py())

    def suspect_query(self, statement: sql.Composable) -> sql.Composable:
        """A row if there is a NaN among the rows of a query, else none."""
        query = "SELECT 1 AS found FROM ({}) AS rows WHERE {} = 'NaN'::numeric LIMIT 1"
        return sql.SQL(query).format(statement, sql.Identifier(self.name))

    @property
    def _is_decimal(self) -> bool:
        fits = 0 < self.precision <= _LARGEST_PRECISION and 0 <= self.scale <= self.precision
        return self.oid == _NUMERIC and fits


def _zero(kind: pa.DataType) -> pa.Scalar[Any]:
    """Made of bytes: ``pyarrow.scalar`` would import pandas where that is installed."""
    return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(bytes(kind.bit_width // 8))])[0]
