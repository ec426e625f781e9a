"""The serving copy: a PostgreSQL table that readers see before or after a sync, never within."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forge_platform.errors import ContractViolation, SchemaMismatch

if TYPE_CHECKING:
    import polars as pl

    from forge_platform.resources.database import DatabaseResource


@dataclass(frozen=True, kw_only=True)
class SyncCounts:
    """How many rows of the table a sync inserted, updated, deleted and left as they were."""

    inserted: int
    updated: int
    deleted: int
    unchanged: int

    def as_metadata(self) -> dict[str, int]:
        """The counts under the names that the IO manager uses."""
        return {
            "rows_inserted": self.inserted,
            "rows_updated": self.updated,
            "rows_deleted": self.deleted,
            "rows_unchanged": self.unchanged,
        }


def sync_table(
    database: DatabaseResource,
    schema: str,
    table: str,
    key: Sequence[str],
    frame: pl.DataFrame,
) -> SyncCounts:
    """Makes a PostgreSQL table equal to a frame, in one transaction.

    Only rows that differ are written: grants, views and indexes stay, and a sync of what is
    there already writes nothing. Schema and table are made when missing, with ``key`` as the
    primary key; new columns are added. Two syncs of one table run one after the other.

    Raises:
        ContractViolation: rows have no key, or share one; nothing was written.
        SchemaMismatch: PostgreSQL has no type for a column, or the table differs from the frame
            by more than missing columns; nothing was written.
        SourceUnavailable: the server is away, busy, or took too long; nothing was written.
        AuthenticationFailed: it refuses the user.
    """
    from forge_platform.postgres.sync import Target

    name = f"{schema}.{table}"
    columns = _columns(name, frame)
    _check_key(name, key, frame)
    target = Target(schema, table, tuple(key), columns)
    with database.connect(database.stream_timeout) as connection, connection.cursor() as cursor:
        target.lock(cursor)
        target.stage(cursor, frame)
        target.prepare(cursor)
        deleted = target.delete_absent(cursor)
        updated = target.update_different(cursor)
        inserted = target.insert_missing(cursor)
    unchanged = frame.height - inserted - updated
    return SyncCounts(inserted=inserted, updated=updated, deleted=deleted, unchanged=unchanged)


def _columns(name: str, frame: pl.DataFrame) -> Mapping[str, str]:
    from forge_platform.postgres.sync import postgres_type

    found = {column: postgres_type(kind) for column, kind in frame.schema.items()}
    unknown = [f"{column} ({frame.schema[column]})" for column, kind in found.items() if not kind]
    if unknown:
        raise SchemaMismatch(
            f"PostgreSQL has no type for these columns of {name}: {', '.join(unknown)}. "
            "Cast them, for instance to text, or leave them out."
        )
    return {column: kind for column, kind in found.items() if kind}


def _check_key(name: str, key: Sequence[str], frame: pl.DataFrame) -> None:
    missing = [column for column in key if column not in frame.columns]
    if missing or not key:
        raise SchemaMismatch(
            f"{name} needs a key, and {', '.join(missing) or 'an empty one'} is not in its rows: "
            f"name one or more of {', '.join(frame.columns)}."
        )
    keys = frame.select(key)
    empty = keys.height - keys.drop_nulls().height
    repeated = keys.height - keys.n_unique()
    if empty or repeated:
        raise ContractViolation(
            f"The rows for {name} are not unique by {', '.join(key)}: {empty} have no key, "
            f"{repeated} have the key of another. Correct the asset; nothing was written."
        )
