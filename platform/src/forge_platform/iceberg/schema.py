"""Arrow schemas as Iceberg stores them, and what a table allows to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    if pa.types.is_nested(kind):
        return _storable_nested(kind)
    unknown = (
        pa.types.is_null,
        pa.types.is_duration,
        pa.types.is_uint64,
        pa.types.is_decimal256,
        pa.types.is_interval,
    )
    return None if any(test(kind) for test in unknown) else kind


def _storable_nested(kind: pa.DataType) -> pa.DataType | None:
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        value = storable_type(kind.value_type)
        return value and pa.list_(value)
    if isinstance(kind, pa.MapType):
        key, item = storable_type(kind.key_type), storable_type(kind.item_type)
        return pa.map_(key, item) if key and item else None
    if isinstance(kind, pa.StructType):
        fields = {field.name: storable_type(field.type) for field in kind}
        known = [(name, value) for name, value in fields.items() if value]
        return pa.struct(known) if len(known) == len(fields) else None
    return None


def table_schema(table: Table) -> pa.Schema:
    """The table's current schema in Arrow types, without field ids."""
    return storable(table.schema().as_arrow())


def cast_column(column: pa.ChunkedArray[Any], field: pa.Field[Any]) -> pa.ChunkedArray[Any]:
    """A column of rows in the type that the table has it in.

    Raises:
        SchemaMismatch: a value does not fit, as a time of nanoseconds in microseconds.
    """
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise SchemaMismatch(
            f"A value of the column {field.name} ({column.type}) does not fit the table's type, "
            f"{field.type}: {error}. Round or cast it in the asset before it is written."
        ) from error


def reconcile(table: Table, incoming: pa.Schema, *, fixed: bool = False) -> None:
    """Adds the columns that the table lacks, and widens types; refuses any other difference.

    When another writer changed the schema first, the difference is worked out again.

    Args:
        table: the table, refreshed in place when columns are added.
        incoming: storable schema of the rows about to be written.
        fixed: whether every difference is refused.

    Raises:
        SchemaMismatch: a column is gone or has another type; the text shows both schemas.
        CommitConflict: other writers changed the schema first every time.
    """
    for _ in range(ATTEMPTS):
        try:
            return _reconcile_once(table, incoming, fixed=fixed)
        except CommitFailedException:
            table.refresh()
    raise CommitConflict(
        f"Other writers changed the schema of {'.'.join(table.name())} {ATTEMPTS} times in a row. "
        "Nothing was written; retry when they are done."
    )


def _reconcile_once(table: Table, incoming: pa.Schema, *, fixed: bool) -> None:
    current = table_schema(table)
    shared = [field for field in incoming if field.name in current.names]
    added = [field for field in incoming if field.name not in current.names]
    other = [field for field in shared if not fits(field.type, current.field(field.name).type)]
    wider = [field for field in other if fits(current.field(field.name).type, field.type)]
    refused = [*other, *added] if fixed else [field for field in other if field not in wider]
    if problems := [
        *(f"{name} is missing" for name in current.names if name not in incoming.names),
        *(_difference(field, current) for field in refused),
    ]:
        raise SchemaMismatch(_both(table, current, incoming, problems))
    if added or wider:
        changed = {field.name: field for field in wider}
        columns = [changed.get(field.name, field) for field in current]
        with table.update_schema() as update:
            update.union_by_name(pa.schema([*columns, *added]))


def _difference(field: pa.Field[pa.DataType], current: pa.Schema) -> str:
    if field.name not in current.names:
        return f"{field.name} is new, and the table's schema is fixed"
    return f"{field.name} is {field.type}, the table has {current.field(field.name).type}"


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
        "New columns are added and types widened by themselves, unless the asset's schema is "
        "fixed. For any other change, rename the column in the asset, or change the table's "
        "schema on purpose and run the asset in full."
    )


def _lines(schema: pa.Schema) -> str:
    return "\n".join(f"  {field.name}: {field.type}" for field in schema)
