"""Reads Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from forge_platform.file_formats.chunks import (
    CHUNK_ROWS,
    LINE,
    Chunk,
    UnusableFile,
    refuse_missing,
)

_CHUNK_BYTES = 8 * 1024 * 1024
_BUFFER_BYTES = 1024 * 1024  # else a column of a whole row group is in memory


def read_parquet(file: BinaryIO, wanted: Sequence[str]) -> Iterator[Chunk]:
    """Reads the wanted columns of a Parquet file; LINE is the number of the row.

    Raises:
        UnusableFile: cut off or damaged (maybe after some chunks), or a wanted column is
            missing or of a type that no table has.
    """
    if file.seek(0, os.SEEK_END) == 0:
        raise UnusableFile("the file is empty")
    with _parquet_errors():
        parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        schema = parquet.schema_arrow
    refuse_missing(wanted, schema.names)
    strange = [name for name in wanted if not _is_plain(schema.field(name).type)]
    if strange:
        types = ", ".join(f"{name} ({schema.field(name).type})" for name in strange)
        raise UnusableFile(f"columns have types that cannot be used: {types}")
    empty = pa.schema([schema.field(name) for name in wanted]).empty_table()
    yield _parquet_chunk(schema.names, empty, 1)
    first = 1
    with _parquet_errors():
        for batch in parquet.iter_batches(
            _chunk_rows(parquet.metadata, wanted), columns=list(wanted)
        ):
            batch.validate(full=True)
            yield _parquet_chunk(schema.names, batch, first)
            first += batch.num_rows


def _chunk_rows(metadata: pq.FileMetaData, wanted: Sequence[str]) -> int:
    """As many rows as have a bounded size, by the widest row group."""
    widest = max(
        (_bytes(group, wanted) // max(1, group.num_rows) for group in _row_groups(metadata)),
        default=0,
    )
    return min(CHUNK_ROWS, max(1, _CHUNK_BYTES // max(1, widest)))


def _row_groups(metadata: pq.FileMetaData) -> Iterator[pq.RowGroupMetaData]:
    return map(metadata.row_group, range(metadata.num_row_groups))


def _bytes(group: pq.RowGroupMetaData, wanted: Sequence[str]) -> int:
    columns = map(group.column, range(group.num_columns))
    return sum(of.total_uncompressed_size for of in columns if of.path_in_schema in wanted)


def _parquet_chunk(columns: Sequence[str], rows: pa.RecordBatch | pa.Table, first: int) -> Chunk:
    found = pl.DataFrame(pl.from_arrow(rows))
    numbers = pl.int_range(first, first + found.height, dtype=pl.Int64)
    cells = found.with_columns(pl.col(pl.Categorical).cast(pl.String), numbers.alias(LINE))
    return Chunk(columns=columns, cells=cells)


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    checks = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal128,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_date,
        pa.types.is_timestamp,
        pa.types.is_null,
    )
    return any(check(kind) for check in checks)


@contextmanager
def _parquet_errors() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's failure, not the file's
        reason = str(error).partition("\n")[0]
        raise UnusableFile(
            f"not a readable Parquet file, maybe cut off or damaged: {reason}"
        ) from error
