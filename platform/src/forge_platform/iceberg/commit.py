"""One commit to a table: planned against its newest snapshot, retried when another was first."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pyiceberg.exceptions import CommitFailedException, ValidationException

from forge_platform.errors import CommitConflict, StorageFull
from forge_platform.iceberg.snapshot import QuickTransaction, SnapshotOfFiles
from forge_platform.iceberg.state import (
    COMMIT_ID,
    DATA_VERSION,
    committed,
    data_version,
    is_lasting,
    state,
)
from forge_platform.iceberg.view import current_snapshot_id
from forge_platform.iceberg.writer import discard, storage_errors

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

ATTEMPTS = 100  # of four writers that never pause, one loses three times out of four
LONGEST_WAIT_SECONDS = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The files that a commit adds and removes, and what that means in rows.

    Attributes:
        added: data files, and files of position deletes.
        removed: data files; the position deletes of their rows go with them.
        written_once: the files come from a stream that cannot be read again, so they are
            kept for the next attempt.
        same_rows: the files hold the same rows in another shape, so the data version stays.
    """

    added: list[DataFile] = field(default_factory=list)
    removed: list[DataFile] = field(default_factory=list)
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    written_once: bool = False
    same_rows: bool = False


@dataclass(frozen=True, kw_only=True)
class CommitResult:
    """What a write did to a table.

    Attributes:
        table: as it was afterwards.
        snapshot_id: its current snapshot then.
        data_version: changes only when rows do.
        committed: False when there was nothing to change and so no snapshot was written.
        received: rows that were given to be written.
        bytes_written: size of the data files that were added.
    """

    table: Table = field(repr=False)
    snapshot_id: int | None
    committed: bool
    data_version: str
    received: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    bytes_written: int = 0


Planner: TypeAlias = Callable[["Table"], Plan]


def commit(
    table: Table,
    planner: Planner,
    properties: Mapping[str, str],
    *,
    carry: bool = True,
    always: bool = False,
) -> CommitResult:
    """Plans and commits until the plan's snapshot is the one that the commit builds on.

    Args:
        table: the table to change; refreshed in place.
        planner: makes the plan for the table as it is now; called again after a conflict.
        properties: snapshot properties, watermark included, of the same commit.
        carry: whether watermark and inputs that are not given are taken over.
        always: whether a snapshot is written also where nothing changes, for others to see.

    Raises:
        CommitConflict: other writers were first every time.
        StorageFull: no room is left; nothing was committed.
    """
    for attempt in range(ATTEMPTS):
        table.refresh()
        plan = planner(table)
        lasting = {**(state(table) if carry else {}), **properties}
        if not always and not _differs(table, plan, lasting):
            return _result(table, plan, committed=False)
        try:
            _commit_once(table, plan, lasting)
        except StorageFull:
            discard(table.io, plan.added)
            raise
        except (CommitFailedException, ValidationException) as conflict:
            if not plan.written_once:
                discard(table.io, plan.added)
            logger.info("another writer was first (%s), planning again", conflict)
            _wait(attempt)
            continue
        return _result(table, plan, committed=True)
    raise CommitConflict(
        f"Other writers of {'.'.join(table.name())} were first {ATTEMPTS} times in a row. "
        "Nothing was changed; run fewer writers of this table at once and retry."
    )


def unchanged(table: Table) -> CommitResult:
    """The result of a write that has nothing to write."""
    return CommitResult(
        table=table,
        snapshot_id=current_snapshot_id(table),
        committed=False,
        data_version=data_version(table),
    )


def _differs(table: Table, plan: Plan, properties: Mapping[str, str]) -> bool:
    known = state(table)
    lasting = {name: value for name, value in properties.items() if is_lasting(name)}
    moved = any(known.get(name, "") != value for name, value in lasting.items())
    return bool(plan.added or plan.removed or moved or not _is_in_schema(table))


def _is_in_schema(table: Table) -> bool:
    """Whether the newest snapshot has the table's schema: readers read it in its own."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return False
    return snapshot.schema_id in (None, table.schema().schema_id)


def _commit_once(table: Table, plan: Plan, properties: Mapping[str, str]) -> None:
    commit_id = str(uuid.uuid4())
    changed = bool(plan.added or plan.removed) and not plan.same_rows
    version = {DATA_VERSION: commit_id} if changed or DATA_VERSION not in properties else {}
    transaction = QuickTransaction(table)
    given = {**properties, **version, COMMIT_ID: commit_id}
    snapshot = SnapshotOfFiles(transaction, table.io, given)
    try:
        with storage_errors(table.location()), transaction:
            for file in plan.removed:
                snapshot.delete_data_file(file)
            for file in plan.added:
                snapshot.add(file)
            snapshot.commit()
    except Exception as error:
        # The catalog may have accepted the commit, and failed to say so or, asked again by a client
        # that got no answer, said that somebody else was first.
        table.refresh()
        if committed(table, COMMIT_ID, commit_id) is not None:
            return
        if isinstance(error, (CommitFailedException, ValidationException)):
            snapshot.discard()
        raise


def _wait(attempt: int) -> None:
    ceiling = min(LONGEST_WAIT_SECONDS, 0.05 * 2**attempt)
    time.sleep(random.uniform(0, ceiling))  # noqa: S311 - jitter, not a secret


def _result(table: Table, plan: Plan, *, committed: bool) -> CommitResult:
    return CommitResult(
        table=table,
        snapshot_id=current_snapshot_id(table),
        committed=committed,
        data_version=data_version(table),
        inserted=plan.inserted,
        updated=plan.updated,
        deleted=plan.deleted,
        unchanged=plan.unchanged,
        bytes_written=sum(file.file_size_in_bytes for file in plan.added),
    )
