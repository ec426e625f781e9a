"""One snapshot of added and removed files, delete files included.

pyiceberg reads delete files but writes none. What it lacks is here, on its snapshot producer:
the only module that relies on pyiceberg's internals for writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
)
from pyiceberg.table import TableProperties, Transaction
from pyiceberg.table.delete_file_index import PATH_FIELD_ID
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update.snapshot import _ManifestMergeManager, _OverwriteFiles
from pyiceberg.utils.properties import property_as_int

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.table import Table
    from pyiceberg.table.metadata import TableMetadata


class _DeleteManifestWriter(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class QuickTransaction(Transaction):
    """A transaction that does not copy all the table's metadata to look at one thing of it.

    A table of hundreds of snapshots would have it copied sixteen times for one commit.
    """

    @property
    def table_metadata(self) -> TableMetadata:
        """The metadata as it will be."""
        return super().table_metadata if self._updates else self._table.metadata

    def commit_transaction(self) -> Table:
        """Commits once, and removes nothing when that fails.

        pyiceberg would move what was planned onto a snapshot that the plan has not seen, where the
        table allows retries, and remove the files of a commit that is said to have failed, also
        when it has landed and its answer was lost.
        """
        self._snapshot_producers = []
        return super().commit_transaction()


class SnapshotOfFiles(_OverwriteFiles):
    """Adds and removes data files, and delete files that belong to one data file each.

    The delete files of a removed data file are removed with it. Like any overwrite it refuses to
    be moved onto a snapshot that it was not planned for.
    """

    def __init__(
        self, transaction: Transaction, io: FileIO, snapshot_properties: Mapping[str, str]
    ) -> None:
        super().__init__(
            operation=Operation.OVERWRITE,
            transaction=transaction,
            io=io,
            snapshot_properties=dict(snapshot_properties),
        )
        self._added_deletes: list[DataFile] = []
        self._obsolete: list[ManifestEntry] = []

    def discard(self) -> None:
        """Removes the manifests, once it is known that the snapshot is not part of the table."""
        self._clean_all_uncommitted()

    def add(self, file: DataFile) -> None:
        """Adds a data file, or a file of position deletes."""
        if file.content == DataFileContent.DATA:
            self.append_data_file(file)
        else:
            self._added_deletes.append(file)

    def _manifests(self) -> list[ManifestFile]:
        self._obsolete.clear()
        return [*super()._manifests(), *self._delete_manifests()]

    def _existing_manifests(self) -> list[ManifestFile]:
        removed = {file.file_path for file in self._deleted_data_files}
        return [
            kept
            for manifest in super()._existing_manifests()
            for kept in self._without_obsolete(manifest, removed)
        ]

    def _without_obsolete(
        self, manifest: ManifestFile, removed: set[str]
    ) -> Sequence[ManifestFile]:
        if manifest.content != ManifestContent.DELETES or not removed:
            return [manifest]
        entries = manifest.fetch_manifest_entry(io=self._io, discard_deleted=True)
        obsolete = [entry for entry in entries if referenced_path(entry.data_file) in removed]
        if not obsolete:
            return [manifest]
        self._obsolete.extend(obsolete)
        rest = [entry for entry in entries if entry not in obsolete]
        written = [(ManifestEntryStatus.EXISTING, entry) for entry in rest]
        return self._written_deletes(self.spec(manifest.partition_spec_id), written)

    def _delete_manifests(self) -> Iterable[ManifestFile]:
        added = [
            ManifestEntry.from_args(snapshot_id=self._snapshot_id, data_file=file)
            for file in self._added_deletes
        ]
        entries = [
            *((ManifestEntryStatus.ADDED, entry) for entry in added),
            *((ManifestEntryStatus.DELETED, entry) for entry in self._obsolete),
        ]
        by_spec: dict[int, list[tuple[ManifestEntryStatus, ManifestEntry]]] = {}
        for status, entry in entries:
            by_spec.setdefault(entry.data_file.spec_id, []).append((status, entry))
        for spec_id, group in by_spec.items():
            yield from self._written_deletes(self.spec(spec_id), group)

    def _written_deletes(
        self, spec: PartitionSpec, entries: Sequence[tuple[ManifestEntryStatus, ManifestEntry]]
    ) -> Sequence[ManifestFile]:
        if not entries:
            return []
        output = self.new_manifest_output()
        with _DeleteManifestWriter(
            spec, self.schema(), output, self._snapshot_id, self._compression
        ) as writer:
            for status, entry in entries:
                is_existing = status == ManifestEntryStatus.EXISTING
                writer.add_entry(
                    ManifestEntry.from_args(
                        status=status,
                        snapshot_id=entry.snapshot_id if is_existing else self._snapshot_id,
                        sequence_number=entry.sequence_number,
                        file_sequence_number=entry.file_sequence_number,
                        data_file=entry.data_file,
                    )
                )
        return [writer.to_manifest_file()]

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        """Merges many small manifests into one, as other engines do with every commit."""
        properties = self._transaction.table_metadata.properties
        manager = _ManifestMergeManager(
            target_size_bytes=property_as_int(
                properties,
                TableProperties.MANIFEST_TARGET_SIZE_BYTES,
                TableProperties.MANIFEST_TARGET_SIZE_BYTES_DEFAULT,
            )
            or TableProperties.MANIFEST_TARGET_SIZE_BYTES_DEFAULT,
            min_count_to_merge=property_as_int(
                properties,
                TableProperties.MANIFEST_MIN_MERGE_COUNT,
                TableProperties.MANIFEST_MIN_MERGE_COUNT_DEFAULT,
            )
            or TableProperties.MANIFEST_MIN_MERGE_COUNT_DEFAULT,
            merge_enabled=True,
            snapshot_producer=self,
        )
        data = [found for found in manifests if found.content == ManifestContent.DATA]
        deletes = [found for found in manifests if found.content != ManifestContent.DATA]
        return [*manager.merge_manifests(data), *deletes]

    def _summary(self, snapshot_properties: Mapping[str, str] | None = None) -> Summary:
        added, removed = self._added_data_files, self._deleted_data_files
        obsolete = {entry.data_file for entry in self._obsolete}
        self._added_data_files = [*added, *self._added_deletes]
        self._deleted_data_files = removed | obsolete
        try:
            return super()._summary(dict(snapshot_properties or {}))
        finally:
            self._added_data_files, self._deleted_data_files = added, removed


def referenced_path(file: DataFile) -> str | None:
    """The data file that all deletes of a delete file are about; None if they are about more."""
    low = (file.lower_bounds or {}).get(PATH_FIELD_ID)
    high = (file.upper_bounds or {}).get(PATH_FIELD_ID)
    return low.decode() if low is not None and low == high else None
