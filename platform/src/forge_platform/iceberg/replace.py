"""Puts rows without a key in the place of others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forge_platform.iceberg.commit import Plan
from forge_platform.iceberg.pruning import Scope, within
from forge_platform.iceberg.view import current_snapshot_id, files, read_files
from forge_platform.iceberg.writer import removed_on_failure, write_frame

if TYPE_CHECKING:
    import polars as pl
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table


@dataclass(frozen=True, kw_only=True)
class Replace:
    """Rows without a key that take the place of others.

    Attributes:
        rows: the new rows.
        scope: the part of the table that is replaced.
        matching: column values whose rows are replaced, instead of a scope.
    """

    rows: pl.DataFrame
    scope: Scope = field(default_factory=Scope)
    matching: pl.DataFrame | None = None

    def plan(self, table: Table) -> Plan:
        """Plans the replacement against the table's current snapshot, writing the new files."""
        added: list[DataFile] = []
        removed: list[DataFile] = []
        deleted = 0
        with removed_on_failure(table.io, added):
            for task in self._tasks(table):
                existing = read_files(table, [task])
                kept = self._kept(existing)
                if kept.height == existing.height:
                    continue
                removed.append(task.file)
                deleted += existing.height - kept.height
                added.extend(write_frame(table, kept))
            added.extend(write_frame(table, self.rows))
        return Plan(added=added, removed=removed, inserted=self.rows.height, deleted=deleted)

    def _tasks(self, table: Table) -> list[FileScanTask]:
        tasks = files(table, current_snapshot_id(table)).values()
        return [task for task in tasks if self._may_hold(table, task)]

    def _may_hold(self, table: Table, task: FileScanTask) -> bool:
        if self.matching is None:
            return self.scope.may_hold(task.file, table)
        return not within(self.matching, self.matching.columns, task.file, table).is_empty()

    def _kept(self, existing: pl.DataFrame) -> pl.DataFrame:
        if self.matching is None:
            return existing.filter(~self.scope.predicate(existing.schema))
        on = self.matching.columns
        return existing.join(self.matching, on=on, how="anti", nulls_equal=True)
