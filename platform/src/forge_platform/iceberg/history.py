"""The snapshots of a table in the order in which they were committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

_VERSION = "forge.data-version"
_COMMIT = "forge.commit-id"


def ancestors(table: Table, snapshot_id: int | None) -> Iterator[Snapshot]:
    """A snapshot and those before it, newest first, as far as they were not expired."""
    while snapshot_id is not None and (snapshot := table.snapshot_by_id(snapshot_id)):
        yield snapshot
        snapshot_id = snapshot.parent_snapshot_id


def properties_of(snapshot: Snapshot) -> Mapping[str, str]:
    """What a snapshot's summary says, Iceberg's own figures included."""
    return snapshot.summary.additional_properties if snapshot.summary else {}


def stretches(table: Table, older: int, newer: int) -> list[tuple[int, int]]:
    """Pairs of snapshots that tell together what changed between two, oldest pair first.

    What lies between two pairs are commits that wrote the same rows anew, as a compaction does:
    comparing across them would read all those rows twice, to find that they are the same.
    """
    newest_first = list(ancestors(table, newer))
    ids = [snapshot.snapshot_id for snapshot in newest_first]
    if older not in ids:
        return [(older, newer)]
    chain = newest_first[ids.index(older) :: -1]
    found = []
    start = older
    for before, after in pairwise(chain):
        if _holds_the_same_rows(before, after):
            found.append((start, before.snapshot_id))
            start = after.snapshot_id
    found.append((start, newer))
    return [pair for pair in found if pair[0] != pair[1]]


def _holds_the_same_rows(before: Snapshot, after: Snapshot) -> bool:
    known, now = properties_of(before), properties_of(after)
    is_rewritten = int(now.get("deleted-data-files") or 0) > 0
    are_ours = _COMMIT in known and _COMMIT in now
    return is_rewritten and are_ours and known.get(_VERSION) == now.get(_VERSION) is not None
