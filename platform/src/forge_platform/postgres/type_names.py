"""Names of PostgreSQL's types as it prints them, and which of them holds all values of another."""

import re

_MODIFIER = re.compile(r"\([^)]*\)")
_NUMBERS = re.compile(r"-?\d+")
_ONE_WORD = re.compile(r"(\w+)\s*(\(.*\))?")
_SHORT_NAMES = {
    "bool": "boolean",
    "char": "character",
    "decimal": "numeric",
    "float4": "real",
    "float8": "double precision",
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "timetz": "time with time zone",
    "varchar": "character varying",
}
_WIDER = {
    ("smallint", "integer"),
    ("smallint", "bigint"),
    ("integer", "bigint"),
    ("real", "double precision"),
    ("character varying", "text"),
}
_LARGEST_PRECISION = 38


def full_name(kind: str) -> str:
    """A type as PostgreSQL prints it: ``varchar(50)`` is ``character varying(50)``."""
    short = _ONE_WORD.fullmatch(kind.strip().lower())
    if short is None:
        return kind
    name, modifier = short.groups(default="")
    # timestamptz(3) is "timestamp(3) with time zone", and varchar(9) "character varying(9)"
    first, zone, rest = _SHORT_NAMES.get(name, name).partition(" with")
    return f"{first}{modifier.replace(' ', '')}{zone}{rest}"


def plain(kind: str) -> str:
    """A type without its modifier: that of ``numeric(12,2)`` is ``numeric``."""
    return _MODIFIER.sub("", kind)


def is_wider(kind: str, other: str) -> bool:
    """Whether a type holds all values of another, and Iceberg can widen a column to it."""
    if (plain(other), plain(kind)) in _WIDER:
        return True
    if plain(other) != plain(kind):
        return False
    new, old = _modifiers(kind), _modifiers(other)
    if plain(kind) == "numeric" and new and old:
        return new[1:] == old[1:] and old[0] <= new[0] <= _LARGEST_PRECISION
    return plain(kind) == "character varying" and bool(old) and (not new or old <= new)


def _modifiers(kind: str) -> tuple[int, ...]:
    found = _MODIFIER.search(kind)
    return tuple(map(int, _NUMBERS.findall(found[0]))) if found else ()
