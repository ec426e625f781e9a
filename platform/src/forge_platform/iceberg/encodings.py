"""Chooses the Parquet encodings of columns by a sample of their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

if TYPE_CHECKING:
    from collections.abc import Sequence

_SAMPLE_ROWS = 16_384
_LONGEST_DECIMAL = 18  # digits that fit into 8 bytes
# Where a column repeats itself less, a dictionary costs more time than it saves room.
_REPEATING_NUMBERS = 0.02
_REPEATING_TEXT = 0.5


@dataclass(frozen=True)
class Encodings:
    """How the columns of a file are encoded; those in neither are plain.

    Attributes:
        dictionary: columns whose values repeat themselves.
        delta: columns of whole numbers that are stored by their differences.
    """

    dictionary: Sequence[str]
    delta: Sequence[str]


def choose_encodings(rows: pa.Table) -> Encodings:
    """The encodings for a file that begins with these rows."""
    sample = rows.slice(0, _SAMPLE_ROWS)
    chosen = [name for name in sample.column_names if _repeats(sample.column(name))]
    return Encodings(
        dictionary=chosen,
        delta=[
            field.name
            for field in sample.schema
            if field.name not in chosen and _is_whole_number(field.type)
        ],
    )


def _repeats(values: pa.ChunkedArray[pa.Scalar[pa.DataType]]) -> bool:
    kind = values.type
    is_opaque = isinstance(kind, pa.BaseExtensionType) or types.is_nested(kind)
    if is_opaque or types.is_boolean(kind) or not len(values):
        return False
    is_text = types.is_string(kind) or types.is_binary(kind)
    limit = _REPEATING_TEXT if is_text else _REPEATING_NUMBERS
    return bool(pc.count_distinct(values).as_py() <= limit * len(values))


def _is_whole_number(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.Decimal128Type):
        return bool(kind.precision <= _LONGEST_DECIMAL)
    return bool(types.is_integer(kind) or types.is_temporal(kind))
