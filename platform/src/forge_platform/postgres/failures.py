"""What PostgreSQL answers, as the platform's failure types."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

import psycopg2

from forge_platform.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ForgeError,
    PermanentError,
    SourceSchemaError,
    SourceUnavailable,
)

if TYPE_CHECKING:
    from forge_platform.resources.database import DatabaseResource

Names: TypeAlias = Iterable[str]

# While connecting, libpq gives no SQLSTATE, only the server's text.
_REFUSED = re.compile(
    "authentication failed|no pg_hba.conf entry|no password supplied"
    '|role "[^"]*" does not exist|not permitted to log in|permission denied for database'
)
_NO_DATABASE = re.compile('database "[^"]*" does not exist')
_MISSING_NAME = re.compile('(?:relation|column|schema) "?([^" ]+)"? does not exist')

_UNDEFINED_TABLE = "42P01"
_UNDEFINED_COLUMN = "42703"
_UNDEFINED_SCHEMA = "3F000"
_NO_PRIVILEGE = "42501"
# Connection, resources, operator intervention, system; serialisation and lock conflicts.
_PASSING = ("08", "53", "57", "58", "40", "55P03")


def failure(error: psycopg2.Error, database: DatabaseResource) -> ForgeError:
    """The platform's failure for one of psycopg2's; its text holds no secret."""
    code = error.pgcode
    if code is None:
        return _without_code(error, database)
    if code in {_UNDEFINED_TABLE, _UNDEFINED_COLUMN, _UNDEFINED_SCHEMA}:
        return _missing(error, database)
    said = _said(error)
    if code == _NO_PRIVILEGE or code.startswith("28"):
        return AuthenticationFailed(
            f"{database.address} refuses the user {database.user}: {said}. "
            "Check the credentials, or grant what is missing."
        )
    if code.startswith(_PASSING):
        return unavailable(said, database)
    return PermanentError(f"{database.address} refuses the statement: {said}")


def unavailable(said: str, database: DatabaseResource) -> SourceUnavailable:
    """The failure for a server that is away, busy, or cancelled what took too long."""
    if "statement timeout" in said:
        remedy = "The statement took too long: raise the timeout, or try when it is less busy."
    elif "lock timeout" in said:
        remedy = "A change of the table goes first: read when it is done."
    else:
        remedy = "Check that it is running and can be reached."
    return SourceUnavailable(f"{database.address} does not answer: {said}. {remedy}")


def inexact(column: str | None, said: str, database: DatabaseResource) -> SourceSchemaError:
    """The failure for a value that has no exact counterpart where it goes."""
    where = f"in its column {column}" if column else "for a column"
    return SourceSchemaError(
        f"{database.address} sent a value {where} that cannot be held exactly: {said}. "
        "Correct the value in the source, or read the column as text."
    )


def nearest(name: str, names: Names) -> str:
    """The names most like a missing one, as the end of a sentence; empty when there is none."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.4)
    return f" (nearest: {', '.join(close)})" if close else ""


def _without_code(error: psycopg2.Error, database: DatabaseResource) -> ForgeError:
    said = _said(error)
    if not isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return PermanentError(f"{database.address} was not asked: {said}")
    if _NO_DATABASE.search(said):
        return ConfigurationError(
            f"{database.address} answers that there is no such database. Check its name."
        )
    if _REFUSED.search(said):
        return AuthenticationFailed(
            f"{database.address} refuses the user {database.user}: {said}. Check user and password."
        )
    return unavailable(said, database)


def _missing(error: psycopg2.Error, database: DatabaseResource) -> SourceSchemaError:
    said = _said(error)
    found = _MISSING_NAME.search(said)
    known = _known_columns if error.pgcode == _UNDEFINED_COLUMN else known_tables
    suggestion = nearest(found.group(1), known(database)) if found else ""
    return SourceSchemaError(
        f"{database.address}: {said}{suggestion}. Correct the name, or restore it in the source."
    )


def known_tables(database: DatabaseResource) -> Names:
    """Every table and view, with its schema and as the search path finds it."""
    rows = database.query(
        "SELECT oid::regclass::text AS short, relnamespace::regnamespace || '.' || relname AS full "
        "FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f') "
        "AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')"
    )
    return {name for row in rows for name in row.values()}


def _known_columns(database: DatabaseResource) -> Names:
    rows = database.query(
        "SELECT DISTINCT column_name FROM information_schema.columns "
        "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
    )
    return [row["column_name"] for row in rows]


def _said(error: psycopg2.Error) -> str:
    """The server's message in one line, without the statement that it quotes."""
    message = error.diag.message_primary or str(error)
    return " ".join(message.split()).rstrip(".?")
