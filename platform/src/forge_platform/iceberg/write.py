"""Writes what an asset returned into its table: creation, schema, mode, partitions, commit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl
import pyarrow as pa
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.transforms import (
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
)

from forge_platform.errors import (
    CommitConflict,
    ConfigurationError,
    PermanentError,
    StorageFull,
)
from forge_platform.iceberg.commit import CommitResult, Plan, Planner, commit, unchanged
from forge_platform.iceberg.merge import Merge, refuse_missing
from forge_platform.iceberg.pruning import Scope
from forge_platform.iceberg.replace import Replace
from forge_platform.iceberg.schema import cast_column, reconcile, storable, table_schema
from forge_platform.iceberg.state import (
    DATA_VERSION,
    INPUT_PREFIX,
    RUN_ID,
    WATERMARK,
    WRITE_ID,
    as_properties,
    committed,
    hides_runs,
    is_lasting,
    other_runs,
    reaches,
    state,
)
from forge_platform.iceberg.view import current_snapshot_id, files
from forge_platform.iceberg.writer import discard, pieces, write_stream

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from forge_platform.tables import Frame, Position, WriteMode

logger = logging.getLogger(__name__)

BATCH_ROWS = 65_536

Granularity: TypeAlias = str
_TRANSFORMS: Mapping[Granularity, Transform[Any, Any]] = {
    "hour": HourTransform(),
    "day": DayTransform(),
    "month": MonthTransform(),
    "value": IdentityTransform(),
}


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table is laid out and written.

    Attributes:
        key: columns that identify a row; needed to merge.
        order_by: column that tells which of two versions of a row is newer.
        partition_by: column that Dagster's partitions are mapped to.
        granularity: hour, day, month or value of the partition column.
        on_read: whether a merge writes which rows are gone, and leaves the files that hold them
            to readers and compaction; else it writes these files anew.
        fixed_schema: whether no column is added and no type widened.
    """

    key: tuple[str, ...] = ()
    order_by: str | None = None
    partition_by: str | None = None
    granularity: Granularity = "value"
    on_read: bool = False
    fixed_schema: bool = False


@dataclass(frozen=True, kw_only=True)
class WriteRequest:
    """One write: the rows, how, and what is committed with them.

    Attributes:
        scope: the partitions that the rows are all of, if the asset is partitioned.
        properties: snapshot properties of the same commit.
        carry: whether an earlier watermark is taken over.
        continues: the table's position that the rows continue; see :class:`TableWrite`.
        alone: whether a commit of another run after that snapshot is a conflict. A snapshot is
            written in any case, for other such runs to see.
    """

    rows: Frame
    mode: WriteMode
    scope: Scope | None = None
    deleted_keys: Frame | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    carry: bool = True
    continues: Position | None = None
    alone: bool = False


def write_table(
    catalog: Catalog, identifier: str, request: WriteRequest, options: TableOptions
) -> CommitResult:
    """Writes rows into a table in one commit, creating namespace and table when missing.

    Raises:
        ConfigurationError: the mode needs a key and the asset names none.
        SchemaMismatch: the rows' schema cannot be applied.
        CommitConflict: other writers were first every time, or once if it had to be alone; or one
            that began earlier has taken the table back behind what the rows continue.
        StorageFull: no room is left; nothing was committed.
    """
    received = 0

    def counted(source: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        nonlocal received
        for batch in source:
            received += batch.num_rows
            yield batch

    source = to_reader(request.rows)
    batches = pa.RecordBatchReader.from_batches(source.schema, counted(source))
    result = _write(catalog, identifier, batches, request, options)
    return replace(result, received=received)


def _write(
    catalog: Catalog,
    identifier: str,
    batches: pa.RecordBatchReader,
    request: WriteRequest,
    options: TableOptions,
) -> CommitResult:
    table = open_table(catalog, identifier, storable(batches.schema), options)
    reconcile(table, storable(batches.schema), fixed=options.fixed_schema)
    if request.mode == "merge" and not options.key and request.deleted_keys is None:
        raise ConfigurationError(
            f"{identifier} is written with mode merge but names no key: "
            "add the metadata forge/key to the asset."
        )
    deleted = _frame(request.deleted_keys)
    if request.scope is not None and deleted is not None:
        raise ConfigurationError(
            f"{identifier} is written by partitions: what is not among the rows of a partition is "
            "removed from it anyway. Leave deleted_keys out."
        )
    if request.scope is not None:
        return _write_partitions(table, batches, request, request.scope, options)
    if request.mode == "overwrite":
        return _overwrite(table, batches, request, options)
    if options.key:
        return _merge(table, batches, request, deleted, options)
    if deleted is not None:
        rows = _aligned(table, batches)
        matching = deleted.cast(rows.select(deleted.columns).schema)
        change = Replace(rows=rows, matching=matching)
        return _commit(table, change.plan, request)
    return _append(table, batches, request)


def to_reader(frame: Frame) -> pa.RecordBatchReader:
    """Any of the four frame types as a stream of Arrow batches."""
    if isinstance(frame, pa.RecordBatchReader):
        return frame
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect(engine="streaming")
    table = frame.to_arrow() if isinstance(frame, pl.DataFrame) else frame
    return table.to_reader(BATCH_ROWS)


def open_table(
    catalog: Catalog, identifier: str, schema: pa.Schema, options: TableOptions
) -> Table:
    """Loads a table, or creates it and its namespace, partitioned, in one commit."""
    try:
        return catalog.load_table(identifier)
    except NoSuchTableError:
        pass
    _create_namespace(catalog, identifier.rpartition(".")[0])
    try:
        # A blind retry inside pyiceberg would move a merge onto a snapshot it never saw.
        properties = {
            "commit.retry.num-retries": "0",
            "write.parquet.compression-codec": "zstd",
            "write.metadata.delete-after-commit.enabled": "true",
        }
        creation = catalog.create_table_transaction(identifier, schema, properties=properties)
        if options.partition_by is not None:
            transform = _TRANSFORMS[options.granularity]
            name = f"{options.partition_by}_{options.granularity}"
            with creation.update_spec() as spec:
                spec.add_field(options.partition_by, transform, name)
        creation.commit_transaction()
    except (TableAlreadyExistsError, CommitFailedException):
        logger.info("another writer created %s first", identifier)
    return catalog.load_table(identifier)


def _create_namespace(catalog: Catalog, namespace: str) -> None:
    try:
        catalog.create_namespace_if_not_exists(namespace)
    except Exception:
        # A SQL catalog fails with its database's error when another writer was first.
        if not catalog.namespace_exists(namespace):
            raise


def _append(table: Table, batches: pa.RecordBatchReader, request: WriteRequest) -> CommitResult:
    try:
        _refuse_repeated(table, request)
        return _stream(table, batches, request, replaces=False)
    except _AlreadyWritten as done:
        return replace(unchanged(table), snapshot_id=done.snapshot_id)


class _AlreadyWritten(Exception):
    """A run or a retry of it has appended these rows; it may have been thought dead."""

    def __init__(self, snapshot_id: int) -> None:
        super().__init__(snapshot_id)
        self.snapshot_id = snapshot_id


def _refuse_repeated(table: Table, request: WriteRequest) -> None:
    write_id = request.properties.get(WRITE_ID)
    if write_id is not None and (done := committed(table, WRITE_ID, write_id)) is not None:
        raise _AlreadyWritten(done.snapshot_id)


def _overwrite(
    table: Table, batches: pa.RecordBatchReader, request: WriteRequest, options: TableOptions
) -> CommitResult:
    """Replaces all rows; where they fit in memory, only the files that differ."""
    if not options.key or isinstance(request.rows, pa.RecordBatchReader):
        keyed = pa.RecordBatchReader.from_batches(batches.schema, _with_keys(batches, options.key))
        return _stream(table, keyed, request, replaces=True)
    merge = Merge(
        rows=_aligned(table, batches),
        key=options.key,
        order_by=options.order_by,
        scope=Scope(),
    )
    return _commit(table, merge.plan, request)


def _with_keys(batches: Iterable[pa.RecordBatch], key: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for column in key:
            refuse_missing(column, batch.column(column).null_count, batch.num_rows, key)
        yield batch


def _stream(
    table: Table, batches: pa.RecordBatchReader, request: WriteRequest, *, replaces: bool
) -> CommitResult:
    added = write_stream(table, batches)

    def plan(current: Table) -> Plan:
        if not replaces:
            _refuse_repeated(current, request)
        tasks = files(current, current_snapshot_id(current)) if replaces else {}
        removed = [task.file for task in tasks.values()]
        return Plan(
            added=added,
            removed=removed,
            inserted=sum(file.record_count for file in added),
            deleted=sum(file.record_count for file in removed),
            written_once=True,
        )

    try:
        return _commit(table, plan, request)
    except (PermanentError, CommitConflict, StorageFull, _AlreadyWritten):
        discard(table.io, added)
        raise


def _merge(
    table: Table,
    batches: pa.RecordBatchReader,
    request: WriteRequest,
    deleted: pl.DataFrame | None,
    options: TableOptions,
) -> CommitResult:
    """Merges a stream of any length in bounded pieces; the last one commits the watermark.

    A run that dies between two pieces is retried from the old watermark, and merging a
    piece twice changes nothing. Each piece takes the table back to that watermark, if another run
    has moved it since: older rows may have come over its own. What is derived from the changes of
    other tables is one piece: what a dead run has left of it, later changes need not touch.
    """
    if deleted is not None and not set(options.key) <= set(deleted.columns):
        raise ConfigurationError(
            f"Rows of {'.'.join(table.name())} were to be removed by {', '.join(deleted.columns)}, "
            f"and its key is {', '.join(options.key)}: derive it by its key, or leave the metadata "
            "forge/key out."
        )
    insert_only = request.mode == "append"
    total = unchanged(table)
    is_derived = any(name.startswith(INPUT_PREFIX) for name in request.properties)
    for piece, is_last in [(list(batches), True)] if is_derived else pieces(batches):
        rows = _aligned(table, piece)
        piece.clear()
        # A key that comes in with any piece stays, so what is deleted is known only at the end.
        deleted = _without_keys(deleted, rows.select(options.key))
        merge = Merge(
            rows=rows,
            key=options.key,
            order_by=options.order_by,
            deleted_keys=deleted if is_last else None,
            insert_only=insert_only,
            on_read=options.on_read,
        )
        part = request if is_last else _at_its_begin(request, table)
        total = _sum(total, _commit(table, merge.plan, part))
        del rows, merge  # they are not in memory while the next piece is read
    return total


def _write_partitions(
    table: Table,
    batches: pa.RecordBatchReader,
    request: WriteRequest,
    scope: Scope,
    options: TableOptions,
) -> CommitResult:
    """Lets the rows take the place of the partitions that they are all of."""
    rows = _aligned(table, batches)
    outside = rows.filter(~scope.predicate(rows.schema)).height
    if outside:
        raise PermanentError(
            f"{outside} of {rows.height} rows for {'.'.join(table.name())} lie outside the "
            f"partitions that this run writes (column {options.partition_by}). "
            "Filter them in the asset, or run the partitions that they belong to."
        )
    change = (
        Merge(rows=rows, key=options.key, order_by=options.order_by, scope=scope)
        if options.key
        else Replace(rows=rows, scope=scope)
    )
    return _commit(table, change.plan, request)


def _commit(table: Table, planner: Planner, request: WriteRequest) -> CommitResult:
    """Commits rows that have the table's schema, unless another writer changes it meanwhile."""
    schema = table.schema()

    def plan(current: Table) -> Plan:
        if current.schema() != schema:
            raise _schema_changed(current)
        if request.alone:
            _refuse_overlap(current, request)
        _refuse_gap(current, request)
        return planner(current)

    # Another run may have read something older: it must see that this one was here.
    return commit(table, plan, request.properties, carry=request.carry, always=request.alone)


def _refuse_overlap(table: Table, request: WriteRequest) -> None:
    run_id = request.properties.get(RUN_ID)
    since = request.continues.snapshot_id if request.continues else None
    others = other_runs(table, since, run_id)
    if others or hides_runs(table, since, run_id):
        raise CommitConflict(
            f"{'.'.join(table.name())} was written by another run while this one read: "
            f"{', '.join(others) or 'its snapshot is kept no more'}. What was read may be older, "
            "so it was not written. Retry, and limit the asset to one run at a time."
        )


def _refuse_gap(table: Table, request: WriteRequest) -> None:
    """Rows that continue a position say nothing of what lies before it."""
    relied_on = request.continues
    if relied_on is None:
        return
    standing = state(table)
    gaps = [
        INPUT_PREFIX + name
        for name, snapshot_id in relied_on.inputs.items()
        # Which of two snapshots is the later one, their ids do not tell.
        if standing.get(INPUT_PREFIX + name, "")
        not in (str(snapshot_id), request.properties.get(INPUT_PREFIX + name))
    ]
    if relied_on.watermark and not reaches(standing.get(WATERMARK, ""), relied_on.watermark):
        gaps.append(WATERMARK)
    if gaps:
        raise CommitConflict(
            f"{'.'.join(table.name())} was taken back, or derived from something else, by another "
            f"run while this one read ({', '.join(gaps)}). What lies between was not read, so "
            "nothing was written. Retry, and limit the asset to one run at a time."
        )


def _schema_changed(table: Table) -> CommitConflict:
    return CommitConflict(
        f"Another writer changed the schema of {'.'.join(table.name())} while rows were written. "
        "Retry: the rows are then compared with the new one."
    )


def _frame(data: Frame | None) -> pl.DataFrame | None:
    return None if data is None else pl.DataFrame(pl.from_arrow(to_reader(data).read_all()))


def _aligned(table: Table, batches: Iterable[pa.RecordBatch]) -> pl.DataFrame:
    """Rows in memory with the table's columns, in its order and types."""
    schema = table_schema(table)
    collected = list(batches)
    if not collected:
        return pl.DataFrame(pl.from_arrow(schema.empty_table()))
    data = pa.Table.from_batches(collected)
    if set(schema.names) != set(data.column_names):
        raise _schema_changed(table)
    columns = [cast_column(data.column(field.name), field) for field in schema]
    return pl.DataFrame(pl.from_arrow(pa.Table.from_arrays(columns, schema=schema)))


def _without_keys(deleted: pl.DataFrame | None, keys: pl.DataFrame) -> pl.DataFrame | None:
    if deleted is None:
        return None
    return deleted.select(keys.columns).cast(keys.schema).join(keys, on=keys.columns, how="anti")


def _at_its_begin(request: WriteRequest, table: Table) -> WriteRequest:
    """The write without the position that it reaches, but with that which it began from."""
    reached = dict.fromkeys(filter(is_lasting, request.properties), "")
    begun: dict[str, str] = {}
    if request.continues is not None and request.continues.snapshot_id is not None:
        begun.update(dict.fromkeys(state(table), ""))
        begun.update(as_properties(request.continues))
        begun.pop(DATA_VERSION, None)
    return replace(request, properties={**request.properties, **reached, **begun})


def _sum(first: CommitResult, second: CommitResult) -> CommitResult:
    return replace(
        second,
        committed=first.committed or second.committed,
        inserted=first.inserted + second.inserted,
        updated=first.updated + second.updated,
        deleted=first.deleted + second.deleted,
        unchanged=first.unchanged + second.unchanged,
        bytes_written=first.bytes_written + second.bytes_written,
    )
