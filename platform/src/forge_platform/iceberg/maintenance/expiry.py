"""Removes old snapshots, and the files that nothing but they used."""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotsUpdate,
)

from forge_platform.errors import CommitConflict
from forge_platform.iceberg.history import ancestors, properties_of
from forge_platform.iceberg.maintenance.reachable import (
    content_files,
    manifests,
    may_remove,
    removed,
)
from forge_platform.iceberg.state import COMMIT_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

T = TypeVar("T")

ATTEMPTS = 10
LONGEST_WAIT_SECONDS = 2.0

DELETE_AFTER_COMMIT = "write.metadata.delete-after-commit.enabled"
PREVIOUS_VERSIONS = "write.metadata.previous-versions-max"


@dataclass(frozen=True, kw_only=True)
class Expired:
    """What an expiry removed."""

    snapshots: int = 0
    files: int = 0


def expire(
    table: Table, *, older_than: dt.datetime, keep: int, needed: Collection[int] = ()
) -> Expired:
    """Removes the snapshots that are older than a moment, but for those that must stay.

    None where the table's files may not be removed (``gc.enabled``).

    Args:
        table: the table; refreshed in place.
        older_than: younger snapshots stay.
        keep: as many of the newest ones stay, however old.
        needed: further snapshots that stay, those that other tables were made from.

    Raises:
        CommitConflict: other writers were first every time.
    """
    if not may_remove(table.refresh()):
        return Expired()
    gone = _retried(table, lambda: _drop(table, older_than, keep, needed))
    if not gone:
        return Expired()
    # From here on the files can only be lost, so whoever dies leaves orphans and nothing else.
    table.refresh()
    return Expired(snapshots=len(gone), files=_remove_files(table, gone))


def trim_metadata(table: Table, versions: int) -> None:
    """Lets every commit remove the metadata files beyond a number of earlier versions.

    Raises:
        CommitConflict: other writers were first every time.
    """
    wanted = {DELETE_AFTER_COMMIT: "true", PREVIOUS_VERSIONS: str(versions)}
    _retried(table, lambda: _set_properties(table, wanted))


def _set_properties(table: Table, wanted: Mapping[str, str]) -> None:
    if not wanted.items() <= table.properties.items():
        with table.transaction() as transaction:
            transaction.set_properties(dict(wanted))


def _drop(
    table: Table, older_than: dt.datetime, keep: int, needed: Collection[int]
) -> list[Snapshot]:
    staying = {*needed, *_referred(table), *_last_of_history(table, keep)}
    limit = older_than.timestamp() * 1000
    gone = [
        snapshot
        for snapshot in table.metadata.snapshots
        if snapshot.timestamp_ms < limit and snapshot.snapshot_id not in staying
    ]
    if gone:
        _commit_removal(table, [snapshot.snapshot_id for snapshot in gone])
    return gone


def _commit_removal(table: Table, ids: list[int]) -> None:
    # A commit cannot ask for what is not there: a tag that was made meanwhile is looked for before.
    if table.catalog.load_table(table.name()).metadata.refs != table.metadata.refs:
        raise CommitFailedException("branches or tags have changed")
    unchanged = [
        AssertRefSnapshotId.model_validate({"ref": name, "snapshot-id": ref.snapshot_id})
        for name, ref in table.metadata.refs.items()
    ]
    removal = RemoveSnapshotsUpdate.model_validate({"snapshot-ids": ids})
    same_table = AssertTableUUID(uuid=table.metadata.table_uuid)
    try:
        table.catalog.commit_table(table, (same_table, *unchanged), (removal,))
    except ValueError as error:
        # pyiceberg's answer where another expiry was first.
        if all(table.refresh().snapshot_by_id(id_) for id_ in ids):
            raise
        raise CommitFailedException(str(error)) from error


def _referred(table: Table) -> Iterator[int]:
    """Heads of branches, and tagged snapshots."""
    yield from (ref.snapshot_id for ref in table.metadata.refs.values())


def _last_of_history(table: Table, keep: int) -> Iterator[int]:
    """The newest snapshots, back to the one that carries the watermark if that is older.

    Another engine's snapshots carry none; they stay as the way to the one that does.
    """
    found = False
    for number, snapshot in enumerate(ancestors(table, table.metadata.current_snapshot_id)):
        if number >= keep and found:
            return
        yield snapshot.snapshot_id
        found = found or COMMIT_ID in properties_of(snapshot)


def _remove_files(table: Table, gone: Collection[Snapshot]) -> int:
    used = manifests(table, table.metadata.snapshots)
    unused = {
        path: manifest for path, manifest in manifests(table, gone).items() if path not in used
    }
    data = content_files(table, unused.values()) - content_files(table, used.values())
    lists = [snapshot.manifest_list for snapshot in gone]
    # The lists last: as long as one is there, what it leads to can still be found.
    return sum(removed(table.io.delete, paths) for paths in (data, unused, lists))


def _retried(table: Table, action: Callable[[], T]) -> T:
    for attempt in range(ATTEMPTS):
        table.refresh()
        try:
            return action()
        except CommitFailedException:
            ceiling = min(LONGEST_WAIT_SECONDS, 0.05 * 2**attempt)
            time.sleep(random.uniform(0, ceiling))  # noqa: S311 - jitter, not a secret
    raise CommitConflict(
        f"Other writers of {'.'.join(table.name())} were first {ATTEMPTS} times in a row. "
        "The table is as they left it; its next care makes up for it."
    )
