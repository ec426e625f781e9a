"""Puts a column of a data file into the shape that the table has now.

Fields inside of structs, lists and maps are told apart by their ids, not by name or place: one may
have been renamed, dropped, or added again under the same name since the file was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

_FIELD_ID = b"PARQUET:field_id"


def field_id(field: pa.Field[Any]) -> int | None:
    """The Iceberg id of a column of a file, or inside of one; None if it was written without."""
    known = (field.metadata or {}).get(_FIELD_ID)
    return int(known) if known is not None else None


def projected(group: pa.Table, name: str, wanted: pa.Field[Any]) -> pa.ChunkedArray[Any]:
    """A column in the wanted type, its inner fields found by their field ids."""
    column = group.column(name)
    found = group.schema.field(name)
    if not pa.types.is_nested(wanted.type) or _is_shaped_alike(found, wanted):
        return column.cast(wanted.type)
    chunks: Any = [_by_id(chunk, found, wanted) for chunk in column.chunks]
    return pa.chunked_array(chunks)


def _inner(field: pa.Field[Any]) -> list[pa.Field[Any]]:
    kind = field.type
    return [kind.field(number) for number in range(kind.num_fields)]


def _is_shaped_alike(found: pa.Field[Any], wanted: pa.Field[Any]) -> bool:
    """Whether the fields inside have the same names and ids, or the file gives no ids."""
    inside = list(zip(_inner(found), _inner(wanted), strict=False))
    return len(_inner(found)) == len(_inner(wanted)) and all(
        field_id(have) in (None, field_id(want))
        and (have.name == want.name or not pa.types.is_struct(wanted.type))
        and _is_shaped_alike(have, want)
        for have, want in inside
    )


def _by_id(values: pa.Array[Any], found: pa.Field[Any], wanted: pa.Field[Any]) -> pa.Array[Any]:
    """A nested column whose inner fields were renamed, dropped, added or moved since."""
    have, want, missing = _inner(found), _inner(wanted), values.is_null()
    if isinstance(values, pa.StructArray):
        places = {field_id(field): number for number, field in enumerate(have)}
        parts = [
            _by_id(values.field(places[field_id(field)]), have[places[field_id(field)]], field)
            if field_id(field) in places
            else pa.nulls(len(values), field.type)
            for field in want
        ]
        return pa.StructArray.from_arrays(parts, fields=want, mask=missing)
    if isinstance(values, pa.MapArray):  # which is a list, too
        keys = values.keys.cast(want[0].type.field(0).type)
        items = _by_id(values.items, have[0].type.field(1), want[0].type.field(1))
        return _made(values, (keys, items), missing, wanted)
    if isinstance(values, pa.ListArray | pa.LargeListArray):
        inner = _by_id(values.values, have[0], want[0])
        return _made(values, (inner,), missing, wanted)
    return values.cast(wanted.type)


def _made(
    like: Any,  # noqa: ANN401 - a list or a map, whose stubs have one signature each
    parts: Sequence[pa.Array[Any]],
    missing: pa.BooleanArray,
    wanted: pa.Field[Any],
) -> pa.Array[Any]:
    made: pa.Array[Any] = type(like).from_arrays(like.offsets, *parts, mask=missing)
    return made.cast(wanted.type)
