"""The same text for the same value in PostgreSQL and in DuckDB, by Iceberg type.

Where both print a type alike, that is the text; else it is the value's bits, or how many
microseconds or days it is from 1970. So a digest of the text is equal where the values are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from psycopg2 import sql

from forge_platform.postgres.type_names import full_name

T = TypeVar("T")

_SEPARATOR = 31
_NULL = 30
_MOST_ARGUMENTS = 50  # PostgreSQL's functions take no more than 100
_DIGITS = 15  # 60 bits: a sum of them cannot overflow

_FINITE = "CASE WHEN isfinite({0}) THEN %s ELSE ({0})::text END"
_MICROSECONDS = "(extract(epoch FROM {0}) * 1000000)::bigint::text"
_VARCHAR = "CAST({0} AS VARCHAR)"

_TEXTS: dict[str, tuple[str, str]] = {
    "boolean": ("({0})::int::text", "CAST(CAST({0} AS INTEGER) AS VARCHAR)"),
    "int": ("({0})::bigint::text", _VARCHAR),
    "long": ("({0})::bigint::text", _VARCHAR),
    "float": (
        "('x' || encode(float4send(({0})::real), 'hex'))::bit(32)::text",
        "CAST(CAST({0} AS BIT) AS VARCHAR)",
    ),
    "double": (
        "('x' || encode(float8send(({0})::float8), 'hex'))::bit(64)::text",
        "CAST(CAST({0} AS BIT) AS VARCHAR)",
    ),
    "decimal": ("({0})::numeric(38,{2})::text", _VARCHAR),
    "date": (
        _FINITE % "(({0})::date - date '1970-01-01')::text",
        "CAST({0} - DATE '1970-01-01' AS VARCHAR)",
    ),
    "time": (_MICROSECONDS, "CAST(epoch_us({0}) AS VARCHAR)"),
    "timestamp": (_FINITE % _MICROSECONDS, "CAST(epoch_us({0}) AS VARCHAR)"),
    "timestamptz": (_FINITE % _MICROSECONDS, "CAST(epoch_us({0}) AS VARCHAR)"),
    "string": ("({0})::text", "{0}"),
    "binary": ("encode({0}, 'hex')", "lower(hex({0}))"),
    "fixed": ("encode({0}, 'hex')", "lower(hex({0}))"),
    "uuid": ("replace(({0})::text, '-', '')", "replace(CAST({0} AS VARCHAR), '-', '')"),
}
_ORDERED = {
    "int": "bigint",
    "long": "bigint",
    "decimal": "numeric",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
    "string": "bytea",
}


@dataclass(frozen=True)
class ComparedColumn:
    """A column that both tables have.

    Attributes:
        name: in both.
        kind: its Iceberg type as Iceberg prints it.
        source_type: its type in PostgreSQL.
    """

    name: str
    kind: str
    source_type: str = ""

    @property
    def is_comparable(self) -> bool:
        """Whether its values can be compared: not a list, a map or a structure."""
        return self._family in _TEXTS

    @property
    def is_ordered(self) -> bool:
        """Whether ranges of it are the same in both systems."""
        return self._family in _ORDERED

    def in_source(self) -> sql.Composable:
        """The text in PostgreSQL; NULL for NULL."""
        modifiers = map(sql.SQL, re.findall(r"\d+", self.kind))
        return sql.SQL(_TEXTS[self._family][0]).format(sql.Identifier(self.name), *modifiers)

    def in_table(self, column: str) -> str:
        """The text in DuckDB, of a column with another name there."""
        return _TEXTS[self._family][1].format(column)

    def ordered(self) -> sql.Composable:
        """The column in PostgreSQL as it is compared: text by its bytes, as everywhere else."""
        return self._comparable(sql.Identifier(self.name))

    def bound(self, value: object) -> sql.Composable:
        """A value, to be compared with the column."""
        literal = sql.Literal(value)
        return sql.SQL("{}::uuid").format(literal) if self._is_uuid else self._comparable(literal)

    def bucket(self, edges: Sequence[object]) -> sql.Composable:
        """The number of edges that are not beyond the value, in PostgreSQL."""
        kind = sql.SQL("uuid" if self._is_uuid else _ORDERED[self._family])
        if not edges:
            return sql.SQL("0")
        bounds = sql.SQL(", ").join(map(self.bound, edges))
        return sql.SQL("width_bucket(({0})::{1}, ARRAY[{2}]::{1}[])").format(
            self.ordered(), kind, bounds
        )

    def _comparable(self, value: sql.Composable) -> sql.Composable:
        # The bytes of UTF-8, which those of the database's encoding need not be in the order of.
        is_text = self._family == "string" and not self._is_uuid
        return sql.SQL("convert_to(({})::text, 'UTF8')").format(value) if is_text else value

    @property
    def _is_uuid(self) -> bool:
        """Whether the table has the text of a UUID, which is in the order of UUIDs."""
        return self._family == "string" and full_name(self.source_type) == "uuid"

    @property
    def _family(self) -> str:
        return re.split(r"[(\[<]", self.kind, maxsplit=1)[0]


def source_digest(columns: Sequence[ComparedColumn]) -> sql.Composable:
    """A digest of a row, in PostgreSQL, as a number of 60 bits."""
    return sql.SQL("('x' || substr({}, 1, {}))::bit(60)::bigint").format(
        _folded([column.in_source() for column in columns], _source_hash), sql.Literal(_DIGITS)
    )


def source_text(columns: Sequence[ComparedColumn]) -> sql.Composable:
    """All columns of a row as one text, in PostgreSQL."""
    return _source_joined([column.in_source() for column in columns])


def table_digest(columns: Sequence[ComparedColumn], names: Sequence[str]) -> str:
    """The same digest in DuckDB, of columns with other names there."""
    texts = [column.in_table(name) for column, name in zip(columns, names, strict=True)]
    return f"CAST('0x' || substr({_folded(texts, _table_hash)}, 1, {_DIGITS}) AS BIGINT)"


def table_text(columns: Sequence[ComparedColumn], names: Sequence[str]) -> str:
    """The same text in DuckDB."""
    return _table_joined(
        [column.in_table(name) for column, name in zip(columns, names, strict=True)]
    )


def _folded(texts: Sequence[T], hashed: Callable[[Sequence[T]], T]) -> T:
    """The hash of some texts; of many, that of the hashes of groups of them."""
    if len(texts) <= _MOST_ARGUMENTS:
        return hashed(texts)
    groups = range(0, len(texts), _MOST_ARGUMENTS)
    return _folded([hashed(texts[at : at + _MOST_ARGUMENTS]) for at in groups], hashed)


def _source_hash(texts: Sequence[sql.Composable]) -> sql.Composable:
    # Not of the text: its bytes are those of the database's encoding.
    return sql.SQL("md5(convert_to({}, 'UTF8'))").format(_source_joined(texts))


def _source_joined(texts: Sequence[sql.Composable]) -> sql.Composable:
    known = [sql.SQL("coalesce({}, chr({}))").format(text, sql.Literal(_NULL)) for text in texts]
    return sql.SQL("concat_ws(chr({}), {})").format(
        sql.Literal(_SEPARATOR), sql.SQL(", ").join(known)
    )


def _table_hash(texts: Sequence[str]) -> str:
    return f"md5({_table_joined(texts)})"


def _table_joined(texts: Sequence[str]) -> str:
    known = ", ".join(f"coalesce({text}, chr({_NULL}))" for text in texts)
    return f"concat_ws(chr({_SEPARATOR}), {known})"
