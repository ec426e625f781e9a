"""Arrow schemas as Iceberg stores them, and what a table allows to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException

from forge_platform.errors import CommitConflict, SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyiceberg.table import Table

ATTEMPTS = 5

_LOSSLESS: tuple[tuple[frozenset[pa.DataType], pa.DataType], ...] = (
    (frozenset({pa.large_string(), pa.string_view()}), pa.string()),
    (frozenset({pa.large_binary(), pa.binary_view()}), pa.binary()),
    (frozenset({pa.int8(), pa.int16(), pa.uint8(), pa.uint16()}), pa.int32()),
    (frozenset({pa.uint32()}), pa.int64()),
    (frozenset({pa.float16()}), pa.float32()),
    (frozenset({pa.time32("s"), pa.time32("ms"), pa.time64("ns")}), pa.time64("us")),
)


def storable(schema: pa.Schema) -> pa.Schema:
    """The schema with every type replaced by the one that Iceberg stores it as.

    Raises:
        SchemaMismatch: names every column that Iceberg has no type for.
    """
    kinds = {field.name: storable_type(field.type) for field in schema}
    problems = [f"{name} ({schema.field(name).type})" for name, kind in kinds.items() if not kind]
    if problems:
        raise SchemaMismatch(
            f"Iceberg has no type for these columns: {', '.join(problems)}. "
            "Cast them in the asset before they are written."
        )
    return pa.schema([(name, kind) for name, kind in kinds.items() if kind])


def storable_type(kind: pa.DataType) -> pa.DataType | None:
    """The Arrow type that Iceberg stores this type as; None when there is none."""
    for sources, target in _LOSSLESS:
        if kind in sources:
            return target
    if isinstance(kind, pa.TimestampType):
        return pa.timestamp("us", tz="UTC" if kind.tz else None)
    if isinstance(kind, pa.DictionaryType):
        return storable_type(kind.value_type)
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        value = storable_type(kind.value_type)
        return value and pa.list_(value)
    if isinstance(kind, pa.StructType):
        fields = {field.name: storable_type(field.type) for field in kind}
        known = [(name, value) for name, value in fields.items() if value]
        return pa.struct(known) if len(known) == len(fields) else None
    unknown = (
        pa.types.is_null,
        pa.types.is_duration,
        pa.types.is_uint64,
        pa.types.is_decimal256,
        pa.types.is_interval,
    )
    return None if any(test(kind) for test in unknown) else kind


def table_schema(table: Table) -> pa.Schema:
    """The table's current schema in Arrow types, without field ids."""
    return storable(table.schema().as_arrow())


def reconcile(table: Table, incoming: pa.Schema) -> None:
    """Adds the columns that the table lacks; refuses any other difference.

    When another writer changed the schema first, the difference is worked out again.

    Args:
        table: the table, refreshed in place when columns are added.
        incoming: storable schema of the rows about to be written.

    Raises:
        SchemaMismatch: a column is gone or has another type; the text shows both schemas.
        CommitConflict: other writers changed the schema first every time.
    """
    for _ in range(ATTEMPTS):
        try:
            return _reconcile_once(table, incoming)
        except CommitFailedException:
            table.refresh()
    raise CommitConflict(
        f"Other writers changed the schema of {'.'.join(table.name())} {ATTEMPTS} times in a row. "
        "Nothing was written; retry when they are done."
    )


def _reconcile_once(table: Table, incoming: pa.Schema) -> None:
    current = table_schema(table)
    problems = [
        *(f"{name} is missing" for name in current.names if name not in incoming.names),
        *(
            f"{field.name} is {field.type}, the table has {current.field(field.name).type}"
            for field in incoming
            if field.name in current.names and not fits(field.type, current.field(field.name).type)
        ),
    ]
    if problems:
        raise SchemaMismatch(_both(table, current, incoming, problems))
    added = [field for field in incoming if field.name not in current.names]
    if added:
        with table.update_schema() as update:
            update.union_by_name(pa.schema([*current, *added]))


def fits(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether every value of one type is a value of the other, so it can be cast unharmed."""
    if source == target:
        return True
    if isinstance(source, pa.Decimal128Type) and isinstance(target, pa.Decimal128Type):
        return bool(source.scale == target.scale and source.precision <= target.precision)
    return (source, target) in {
        (pa.int32(), pa.int64()),
        (pa.float32(), pa.float64()),
    }


def _both(table: Table, current: pa.Schema, incoming: pa.Schema, problems: Iterable[str]) -> str:
    name = ".".join(table.name())
    listing = "; ".join(problems)
    return (
        f"The rows do not fit the table {name}: {listing}.\n"
        f"Table:\n{_lines(current)}\nRows:\n{_lines(incoming)}\n"
        "New columns are added by themselves. For any other change, rename the column in the "
        "asset, or change the table's schema on purpose and run the asset in full."
    )


def _lines(schema: pa.Schema) -> str:
    return "\n".join(f"  {field.name}: {field.type}" for field in schema)
