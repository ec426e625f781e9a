"""The files that snapshots consist of, and their removal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestFile
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

THREADS = 8
GC_ENABLED = "gc.enabled"

logger = logging.getLogger(__name__)


def may_remove(table: Table) -> bool:
    """Whether files that the table no longer refers to may be removed.

    Its property ``gc.enabled`` is false where others may refer to them: other tables, or a catalog
    with branches and a history of its own, as Nessie.
    """
    return str(table.properties.get(GC_ENABLED, True)).lower() != "false"


def manifests(table: Table, snapshots: Iterable[Snapshot]) -> dict[str, ManifestFile]:
    """The manifests of some snapshots, by path."""
    return {
        manifest.manifest_path: manifest
        for snapshot in snapshots
        for manifest in snapshot.manifests(table.io)
    }


def content_files(table: Table, found: Iterable[ManifestFile]) -> set[str]:
    """Paths of the data and delete files that some manifests keep alive."""
    return {
        entry.data_file.file_path
        for manifest in found
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    }


def reachable(table: Table) -> set[str]:
    """Paths of everything that the table's metadata refers to, itself included."""
    metadata = table.metadata
    found = manifests(table, metadata.snapshots)
    return {
        table.metadata_location,
        *(entry.metadata_file for entry in metadata.metadata_log),
        *(snapshot.manifest_list for snapshot in metadata.snapshots),
        *(statistics.statistics_path for statistics in metadata.statistics),
        *(statistics.statistics_path for statistics in metadata.partition_statistics),
        *found,
        *content_files(table, found.values()),
    }


def removed(delete: Callable[[str], object], paths: Iterable[str]) -> int:
    """Removes files, and returns how many; what cannot be removed is left and logged."""

    def attempt(path: str) -> bool:
        try:
            delete(path)
        except Exception:  # noqa: BLE001 - any store's error: an orphan is harmless
            logger.warning("could not remove %s, which no snapshot uses", path)
            return False
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(attempt, paths))
