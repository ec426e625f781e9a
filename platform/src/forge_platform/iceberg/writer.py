"""Streams Arrow batches into Parquet data files, in memory bounded by one row group."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.typedef import Record

from forge_platform.errors import ConfigurationError, PermanentError, StorageFull
from forge_platform.iceberg.encodings import choose_encodings
from forge_platform.iceberg.failures import FULL
from forge_platform.iceberg.schema import cast_column

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.table import Table

TARGET_FILE_BYTES = 128 * 1024 * 1024
ROW_GROUP_ROWS = 128 * 1024
ROW_GROUP_BYTES = 16 * 1024 * 1024
"""Of either, what is reached first ends a row group: rows may be wide."""
PIECE_ROWS = 1_000_000
PIECE_BYTES = 128 * 1024 * 1024
"""The same for what is in memory at once where rows are not taken as they come."""
_SAMPLED_ROWS = 16  # Polars counts texts once that several rows share

logger = logging.getLogger(__name__)


def write_stream(table: Table, batches: Iterable[pa.RecordBatch]) -> list[DataFile]:
    """Writes batches into as many data files as the target size asks for.

    Args:
        table: where the files go; rows are cast to its current schema.
        batches: Arrow batches whose columns the table has, in any order.

    Returns:
        The files, not yet part of the table. None are left behind on failure.

    Raises:
        StorageFull: no room is left; what was written has been removed.
    """
    written: list[DataFile] = []
    with removed_on_failure(table.io, written):
        if table.spec().fields:
            for piece, _ in pieces(batches):
                written.extend(_write_piece(table, piece))
            return written
        source = _row_groups(table, batches)
        while first := list(islice(source, 1)):
            written.append(_write_file(table, _until_full(first, source)))
    return written


def _write_piece(table: Table, batches: list[pa.RecordBatch]) -> list[DataFile]:
    if not batches:
        return []
    data = pa.Table.from_batches(batches)
    batches.clear()
    return write_frame(table, pl.DataFrame(pl.from_arrow(data)))


def write_frame(table: Table, frame: pl.DataFrame) -> list[DataFile]:
    """Writes a frame, one file or more for each of the table's partitions.

    Raises:
        StorageFull: no room is left; what was written has been removed.
    """
    if not table.spec().fields:
        return write_stream(table, _batches(frame))
    written: list[DataFile] = []
    with removed_on_failure(table.io, written):
        for key, rows in _partitions(table, frame):
            groups = _row_groups(table, _batches(rows))
            written.append(_write_file(table, groups, key))
    return written


def pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[list[pa.RecordBatch], bool]]:
    """Groups of batches of a bounded size, and whether it is the last; at least one, maybe empty.

    A group is the caller's to clear, so that it is not in memory while the next one is read.
    """
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if group and (rows > PIECE_ROWS or size > PIECE_BYTES):
            yield group, False
            group, rows, size = [], batch.num_rows, batch.nbytes
        group.append(batch)
        del batch
    yield group, True


def _batches(frame: pl.DataFrame) -> Iterator[pa.RecordBatch]:
    """Converted to Arrow, which copies texts, as much at a time as a row group holds."""
    sample = frame.gather_every(max(1, frame.height // _SAMPLED_ROWS)).to_arrow()
    width = sample.nbytes // max(1, sample.num_rows)
    rows = min(ROW_GROUP_ROWS, max(1, ROW_GROUP_BYTES // max(1, width)))
    for part in frame.iter_slices(rows):
        yield from part.to_arrow().to_batches()


def discard(io: FileIO, files: Iterable[DataFile]) -> None:
    """Removes files that no snapshot refers to; what cannot be removed is left and logged."""
    for file in files:
        try:
            io.delete(file.file_path)
        except Exception:  # noqa: BLE001 - any store's error: an orphan is harmless, the cause is not
            logger.warning("could not remove %s, which no snapshot uses", file.file_path)


@contextmanager
def removed_on_failure(io: FileIO, written: list[DataFile]) -> Iterator[None]:
    """Removes the files that the block has written when it fails."""
    try:
        yield
    except BaseException:
        discard(io, written)
        raise


@contextmanager
def storage_errors(location: str) -> Iterator[None]:
    """Turns a full disk into a StorageFull that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StorageFull(
            f"No room is left at {location}: nothing was committed and the table is as it was. "
            "Free space or enlarge the volume; the run can then be retried."
        ) from error


def _row_groups(table: Table, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Collects small batches into row groups, cast to the table's schema with field ids."""
    schema = schema_to_pyarrow(table.schema(), include_field_ids=True)
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        pending.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield _taken(pending, schema)
            rows = size = 0
    if rows:
        yield _taken(pending, schema)


def _taken(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """One row group of all batches; the list lets go of them."""
    data = pa.Table.from_batches(batches)
    batches.clear()
    columns = [
        cast_column(data.column(field.name), field)
        if field.name in data.column_names
        else pa.nulls(data.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _until_full(first: list[pa.Table], rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Row groups for one file; the stream goes on in the next one.

    Args:
        first: one row group. It is taken out: a generator would hold on to it else.
        rest: those that follow.
    """
    size = 0
    while first:
        size += first[0].nbytes
        yield first.pop()
        if size < TARGET_FILE_BYTES:
            first.extend(islice(rest, 1))


def _write_file(
    table: Table, groups: Iterator[pa.Table], partition: PartitionKey | None = None
) -> DataFile:
    path = table.location_provider().new_data_location(f"{uuid.uuid4()}.parquet", partition)
    output = table.io.new_output(path)
    try:
        with storage_errors(table.location()), output.create() as sink:
            metadata = _write_parquet(cast(IO[Any], sink), groups)
    except BaseException:
        remove_partial(table.io, path)
        raise
    ids = parquet_path_to_id_mapping(table.schema())
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=metadata,
        stats_columns=compute_statistics_plan(table.schema(), table.metadata.properties),
        parquet_column_mapping=ids,
    )
    for column in _partly_bounded(metadata):
        statistics.column_aggregates.pop(ids[column], None)
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition.partition if partition else Record(),
        file_size_in_bytes=len(output),
        sort_order_id=None,
        spec_id=table.metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def _partly_bounded(metadata: pq.FileMetaData) -> set[str]:
    """Columns with a row group whose bounds Parquet leaves out, as it does for texts over 4 KiB.

    pyiceberg would take the bounds of the other row groups for those of the file.
    """
    chunks = (
        metadata.row_group(number).column(column)
        for number in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    )
    return {
        chunk.path_in_schema
        for chunk in chunks
        if chunk.statistics is not None
        and not chunk.statistics.has_min_max
        and chunk.statistics.num_values
    }


def _write_parquet(sink: IO[Any], groups: Iterator[pa.Table]) -> pq.FileMetaData:
    first = next(groups)
    encodings = choose_encodings(first)
    with pq.ParquetWriter(
        sink,
        first.schema,
        compression="zstd",
        store_decimal_as_integer=True,
        use_dictionary=cast(bool, list(encodings.dictionary)),  # the stubs know no list
        column_encoding=dict.fromkeys(encodings.delta, "DELTA_BINARY_PACKED"),
    ) as writer:
        writer.write_table(first, row_group_size=ROW_GROUP_ROWS)
        del first  # each row group goes before the next one is collected
        for group in groups:
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
            del group
    return writer.writer.metadata


def remove_partial(io: FileIO, path: str) -> None:
    """Removes a file that was not written to its end."""
    try:
        io.delete(path)
    except Exception:  # noqa: BLE001 - it may not exist; the failure that led here is raised
        logger.debug("nothing to remove at %s", path)


def _partitions(table: Table, frame: pl.DataFrame) -> Iterator[tuple[PartitionKey, pl.DataFrame]]:
    spec, schema = table.spec(), table.schema()
    columns = [
        _partition_value(str(field.transform), schema.find_field(field.source_id).name)
        for field in spec.fields
    ]
    _refuse_nan(frame, [schema.find_field(field.source_id).name for field in spec.fields])
    names = [f"_partition_{field.name}" for field in spec.fields]
    frame = frame.with_columns(
        column.alias(name) for column, name in zip(columns, names, strict=True)
    )
    for values, rows in frame.partition_by(names, as_dict=True, include_key=False).items():
        fields = [
            PartitionFieldValue(field=field, value=value)
            for field, value in zip(spec.fields, values, strict=True)
        ]
        yield PartitionKey(field_values=fields, partition_spec=spec, schema=schema), rows


def _refuse_nan(frame: pl.DataFrame, columns: Iterable[str]) -> None:
    """Raises a PermanentError for NaN, for which Iceberg has no partition."""
    for name in columns:
        column = frame.get_column(name)
        if column.dtype.is_float() and column.is_nan().any():
            raise PermanentError(
                f"There are rows with NaN in {name}, by which the table is partitioned. "
                "Reject them, or make it NULL, in the asset before they are written."
            )


def _partition_value(transform: str, name: str) -> pl.Expr:
    """A transform of the Iceberg specification: hours, days, months since 1970, or the value."""
    column = pl.col(name)
    match transform:
        case "hour":
            return column.dt.epoch("s") // 3600
        case "day":
            return column.dt.date().to_physical()
        case "month":
            return (column.dt.year() - 1970) * 12 + column.dt.month().cast(pl.Int32) - 1
        case "identity":
            return column
    raise ConfigurationError(
        f"Tables partitioned by {transform} cannot be written: use hour, day, month or identity."
    )
