"""Turns columns as they are found in files into columns of a table, by Iceberg type.

A value that does not fit becomes NULL here and a reason there: nothing is rounded, cut or
guessed, but for what a type cannot hold by its nature: parts of a microsecond, and the difference
of a decimal number to the nearest double. Text, which CSV has only, is accepted for every type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from forge_platform.errors import ConfigurationError

REASON = "_reason"

_LARGEST_EXACT_FLOAT = 2**53
_SHOWN_CHARACTERS = 50
_CONVERTED = "_converted_"

# ISO 8601, and as PostgreSQL and Java print it: a blank for T, no seconds, an offset of hours.
_TIMESTAMP = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](?<time>\d{2}:\d{2})(?<seconds>:\d{2}(?:\.\d{1,9})?)?"
    r"(?:[Zz]|(?<hours>[+-]\d{2})(?::?(?<minutes>\d{2}))?))?$"
)


@dataclass(frozen=True)
class ColumnType:
    """A type of a table's column.

    Attributes:
        dtype: how Polars holds it.
        meaning: what a value is, for messages.
        convert: makes it of a column of the given type; None when that makes no sense.
    """

    dtype: pl.DataType
    meaning: str
    convert: Callable[[pl.Expr, pl.DataType], pl.Expr | None]


def column_type(name: str) -> ColumnType:
    """The type with this Iceberg name.

    Raises:
        ConfigurationError: files cannot have columns of this type.
    """
    if name not in _TYPES:
        known = ", ".join(_TYPES)
        raise ConfigurationError(f"Columns of files cannot have the type {name}: use {known}.")
    return _TYPES[name]


def unusable_columns(found: Mapping[str, pl.DataType], wanted: Mapping[str, str]) -> list[str]:
    """The columns whose whole type is wrong, each with both types."""
    return [
        f"{name} ({found[name]} instead of {wanted[name]})"
        for name in wanted
        if _conversion(name, found[name], wanted[name]) is None
    ]


def split_by_type(
    cells: pl.DataFrame, wanted: Mapping[str, str], required: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Separates rows whose values all fit from those with a value that does not.

    Args:
        cells: the wanted columns as found, and further ones.
        wanted: Iceberg type of each wanted column.
        required: columns that must have a value.

    Returns:
        The fitting rows with their columns converted, and the others as they are with a REASON.
    """
    converted = cells.with_columns(
        _expression(name, cells.schema[name], kind).alias(_CONVERTED + name)
        for name, kind in wanted.items()
    )
    problems = {
        name: _problem(name, cells.schema[name], kind, required=name in required)
        for name, kind in wanted.items()
    }
    bad = pl.any_horizontal(found for found, _ in problems.values())
    rest = [name for name in cells.columns if name not in wanted]
    fitting = converted.filter(~bad).select(
        *(pl.col(_CONVERTED + name).alias(name) for name in wanted), *rest
    )
    reasons = [pl.when(found).then(text) for found, text in problems.values()]
    others = converted.filter(bad).select(
        *cells.columns,
        pl.concat_str(reasons, separator="; ", ignore_nulls=True).alias(REASON),
    )
    return fitting, others


def _problem(
    name: str, found: pl.DataType, kind: str, *, required: bool
) -> tuple[pl.Expr, pl.Expr]:
    """Whether a value cannot be used, and the text that says so."""
    failed = pl.col(_CONVERTED + name).is_null()
    blank = _is_blank(pl.col(name), found)
    shown = pl.col(name).cast(pl.String).str.slice(0, _SHOWN_CHARACTERS)
    wrong = pl.format(f"{name} is not {column_type(kind).meaning}: {{}}", shown)
    text = pl.when(blank).then(pl.lit(f"{name} is missing")).otherwise(wrong)
    return (failed if required else failed & ~blank), text


def _expression(name: str, found: pl.DataType, kind: str) -> pl.Expr:
    expression = _conversion(name, found, kind)
    if expression is None:
        raise TypeError(f"{name}: {found} cannot become {kind}")
    return expression


def _conversion(name: str, found: pl.DataType, kind: str) -> pl.Expr | None:
    wanted = column_type(kind)
    if found == pl.Null:
        return pl.col(name).cast(wanted.dtype)
    return wanted.convert(pl.col(name), found)


def _is_blank(values: pl.Expr, found: pl.DataType) -> pl.Expr:
    if found == pl.String:
        return values.is_null() | (values.str.strip_chars() == "")
    return values.is_null() | values.is_nan() if found.is_float() else values.is_null()


def _text(values: pl.Expr, found: pl.DataType) -> pl.Expr | None:
    return values.cast(pl.String) if found == pl.String or found.is_integer() else None


def _whole(dtype: pl.DataType) -> Callable[[pl.Expr, pl.DataType], pl.Expr | None]:
    def convert(values: pl.Expr, found: pl.DataType) -> pl.Expr | None:
        if found == pl.String:  # a column of numbers with a gap is written as 12.0 by pandas
            digits = values.str.strip_chars().str.replace(r"\.0+$", "")
            return digits.cast(dtype, strict=False)
        whole = values.cast(dtype, strict=False)
        if found.is_float():
            is_exact = (whole == values) & (values.abs() <= _LARGEST_EXACT_FLOAT)
            return pl.when(is_exact).then(whole)
        if found.is_decimal():
            return pl.when(whole.cast(found, strict=False) == values).then(whole)
        return whole if found.is_integer() else None

    return convert


def _number(values: pl.Expr, found: pl.DataType) -> pl.Expr | None:
    if found == pl.String:
        text = values.str.strip_chars()
        number = text.cast(pl.Float64, strict=False)
        too_large = number.is_infinite() & text.str.contains(r"\d")
        whole = text.str.extract(r"^([+-]?\d+)$").cast(pl.Int128, strict=False)
        is_exact = whole.is_null() | (number.cast(pl.Int128, strict=False) == whole)
        return pl.when(~too_large & is_exact).then(number)
    if not found.is_numeric():
        return None
    number = values.cast(pl.Float64)
    is_exact = number.cast(found, strict=False) == values
    return pl.when(is_exact).then(number) if found.is_integer() else number


def _date(values: pl.Expr, found: pl.DataType) -> pl.Expr | None:
    if found == pl.String:
        text = values.str.strip_chars().str.extract(r"^(\d{4}-\d{2}-\d{2})$")
        return text.str.to_date("%Y-%m-%d", strict=False)
    return values if found == pl.Date else None


def _timestamp(values: pl.Expr, found: pl.DataType) -> pl.Expr | None:
    if found == pl.String:
        parts = values.str.strip_chars().str.extract_groups(_TIMESTAMP)
        text = pl.concat_str(
            parts.struct.field("date"),
            pl.lit("T"),
            parts.struct.field("time").fill_null("00:00"),
            parts.struct.field("seconds").fill_null(":00"),
            parts.struct.field("hours").fill_null("+00"),
            pl.lit(":"),
            parts.struct.field("minutes").fill_null("00"),
        )
        return text.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    if found == pl.Date:
        return values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if isinstance(found, pl.Datetime) and found.time_zone is not None:
        return values.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    return None


_TYPES: Mapping[str, ColumnType] = {
    "string": ColumnType(pl.String(), "text", _text),
    "int": ColumnType(pl.Int32(), "a whole number", _whole(pl.Int32())),
    "long": ColumnType(pl.Int64(), "a whole number", _whole(pl.Int64())),
    "double": ColumnType(pl.Float64(), "a number", _number),
    "date": ColumnType(pl.Date(), "a date like 2024-01-31", _date),
    "timestamptz": ColumnType(
        pl.Datetime("us", "UTC"),
        "a time with offset like 2024-01-31T10:00:00Z, or a date",
        _timestamp,
    ),
}
