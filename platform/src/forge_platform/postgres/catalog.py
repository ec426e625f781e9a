"""What PostgreSQL's catalog says about tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812


def column_types(cursor: Cursor, schema: str, table: str) -> dict[str, str]:
    """Column name to type, in the table's order; empty when there is no such table."""
    cursor.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "JOIN pg_class ON pg_class.oid = attrelid "
        "JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE nspname = %s AND relname = %s AND relkind IN ('r', 'p', 'v', 'm', 'f') "
        "AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (schema, table),
    )
    return dict(cursor.fetchall())


def primary_key(cursor: Cursor, schema: str, table: str) -> set[str]:
    """The columns of a table's primary key; empty when it has none."""
    cursor.execute(
        "SELECT attname FROM pg_index JOIN pg_class ON pg_class.oid = indrelid "
        "JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) "
        "WHERE indisprimary AND nspname = %s AND relname = %s",
        (schema, table),
    )
    return {name for (name,) in cursor.fetchall()}


def schema_exists(cursor: Cursor, schema: str) -> bool:
    """Whether there is such a schema."""
    cursor.execute("SELECT FROM pg_namespace WHERE nspname = %s", (schema,))
    return cursor.fetchone() is not None
