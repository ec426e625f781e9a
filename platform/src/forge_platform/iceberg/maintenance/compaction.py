"""Writes small files, and files of which much is deleted, anew as fewer and larger ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl
import pyarrow as pa

from forge_platform.errors import CommitConflict, PermanentError, StorageFull
from forge_platform.iceberg.commit import Plan, commit
from forge_platform.iceberg.pruning import bounds
from forge_platform.iceberg.view import current_snapshot_id, files, stream_files
from forge_platform.iceberg.writer import (
    TARGET_FILE_BYTES,
    discard,
    removed_on_failure,
    write_frame,
    write_stream,
)

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table

_VARIABLE_WIDTH = 16
"""Bytes that a value of a type without a fixed width takes at least in memory."""

Group: TypeAlias = Sequence["FileScanTask"]


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """Which files are rewritten, and how.

    Attributes:
        small_bytes: a file below this size is small.
        group_bytes: most bytes of files that become one (a writer may still split them); with
            ``sort_by`` their rows are in memory together.
        min_files: small files of one partition that make it worthwhile.
        deleted_fraction: share of deleted rows from which a file is written anew.
        most_delete_files: so many files of deletes of one data file stay.
        sort_by: columns by which the rows of a group are sorted; none leaves their order.
    """

    small_bytes: int
    group_bytes: int
    min_files: int
    deleted_fraction: float
    most_delete_files: int = 10
    sort_by: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What a compaction did.

    Attributes:
        commits: snapshots that it wrote.
        rewritten: files that it read and took out of the table.
        written: files that it put there instead.
    """

    commits: int
    rewritten: int
    written: int
    bytes_written: int


def compact(table: Table, rule: Compaction) -> Compacted:
    """Rewrites groups of files, several groups a commit; the rows and their version stay.

    Another writer's commit costs nothing but another attempt: files that it left alone are not
    written again.

    Raises:
        CommitConflict: other writers were first every time.
        StorageFull: no room is left; what was committed before stays.
    """
    table.refresh()
    commits = rewritten = written = size = 0
    for batch in _batches(groups(table, rule), rule.group_bytes):
        rewrite = _Rewrite(batch, rule)
        try:
            result = commit(table, rewrite.plan, {})
        except (PermanentError, CommitConflict, StorageFull):
            rewrite.discard(table.io)
            raise
        commits += result.committed
        rewritten += len(rewrite.planned.removed)
        written += len(rewrite.planned.added)
        size += result.bytes_written
    return Compacted(commits=commits, rewritten=rewritten, written=written, bytes_written=size)


def groups(table: Table, rule: Compaction) -> list[Group]:
    """The files of the current snapshot that are worth rewriting, in groups of one partition."""
    by_partition: defaultdict[Any, list[FileScanTask]] = defaultdict(list)
    # Rows that compress well fill a file of the writer's size in memory with few bytes on disk.
    full_rows = TARGET_FILE_BYTES // 2 // _row_width(table)
    for task in files(table, current_snapshot_id(table)).values():
        is_small = task.file.file_size_in_bytes < rule.small_bytes
        if (is_small and task.file.record_count < full_rows) or _is_eroded(task, rule):
            by_partition[task.file.spec_id, task.file.partition].append(task)
    return [
        group
        for tasks in by_partition.values()
        for group in _packed(_in_order(table, tasks, rule.sort_by), rule.group_bytes)
        if len(group) >= rule.min_files or any(_is_eroded(task, rule) for task in group)
    ]


def _row_width(table: Table) -> int:
    return sum(_width(field.type) for field in table.schema().as_arrow())


def _width(kind: pa.DataType) -> int:
    try:
        return max(1, kind.bit_width // 8)
    except ValueError:
        return _VARIABLE_WIDTH


def _is_eroded(task: FileScanTask, rule: Compaction) -> bool:
    if len(task.delete_files) > rule.most_delete_files:
        return True
    deleted = sum(file.record_count for file in task.delete_files)
    return bool(deleted) and deleted >= rule.deleted_fraction * task.file.record_count


def _in_order(table: Table, tasks: Group, sort_by: Sequence[str]) -> Group:
    """Neighbours by the first column to sort by, as far as the statistics tell."""
    if not sort_by:
        return tasks
    lows = [(bounds(task.file, table, sort_by[0])[0], task) for task in tasks]
    known = sorted((pair for pair in lows if pair[0] is not None), key=lambda pair: pair[0])
    return [task for _, task in known] + [task for low, task in lows if low is None]


def _packed(tasks: Group, most_bytes: int) -> Iterator[Group]:
    group: list[FileScanTask] = []
    size = 0
    for task in tasks:
        if group and size + task.file.file_size_in_bytes > most_bytes:
            yield group
            group, size = [], 0
        group.append(task)
        size += task.file.file_size_in_bytes
    if group:
        yield group


def _batches(found: Sequence[Group], most_bytes: int) -> Iterator[Sequence[Group]]:
    """Groups for one commit each: a table of many partitions gets few snapshots."""
    batch: list[Group] = []
    size = 0
    for group in found:
        batch.append(group)
        size += sum(task.file.file_size_in_bytes for task in group)
        if size >= most_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Rewrite:
    """Plans the rewriting of some groups; what is written stays good while its files do."""

    def __init__(self, batch: Sequence[Group], rule: Compaction) -> None:
        self._paths = [[task.file.file_path for task in group] for group in batch]
        self._rule = rule
        self._seen: Mapping[str, frozenset[str]] | None = None
        self.planned = Plan()

    def plan(self, table: Table) -> Plan:
        """The plan for the table as it is now."""
        current = files(table, current_snapshot_id(table))
        found = [[current[path] for path in group if path in current] for group in self._paths]
        seen = {task.file.file_path: _deletes(task) for group in found for task in group}
        if seen != self._seen:
            self.discard(table.io)
            self._seen = None
            self.planned = self._written(table, found)
            self._seen = seen
        return self.planned

    def discard(self, io: FileIO) -> None:
        """Removes what was written and not committed."""
        discard(io, self.planned.added)
        self.planned = Plan()

    def _written(self, table: Table, found: Sequence[Group]) -> Plan:
        added: list[DataFile] = []
        removed: list[DataFile] = []
        with removed_on_failure(table.io, added):
            for group in found:
                fresh = self._rewritten(table, group)
                if len(fresh) < len(group) or any(task.delete_files for task in group):
                    added.extend(fresh)
                    removed.extend(task.file for task in group)
                else:
                    discard(table.io, fresh)
        return Plan(added=added, removed=removed, written_once=True, same_rows=True)

    def _rewritten(self, table: Table, group: Group) -> list[DataFile]:
        if not self._rule.sort_by:
            return write_stream(table, stream_files(table, group))
        frames = [pl.DataFrame(pl.from_arrow(batch)) for batch in stream_files(table, group)]
        if not frames:
            return []
        return write_frame(table, pl.concat(frames).sort(self._rule.sort_by))


def _deletes(task: FileScanTask) -> frozenset[str]:
    return frozenset(file.file_path for file in task.delete_files)
