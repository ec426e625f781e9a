"""Writes files of position deletes: rows that are gone without their data file being touched."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.conversions import to_bytes
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.types import LongType, StringType

from forge_platform.iceberg.writer import remove_partial, storage_errors

if TYPE_CHECKING:
    import polars as pl
    from pyiceberg.table import Table

_PATH_ID = 2147483546  # reserved by the Iceberg specification
_POSITION_ID = 2147483545
_COLUMNS: Sequence[tuple[str, pa.DataType, int]] = (
    ("file_path", pa.string(), _PATH_ID),
    ("pos", pa.int64(), _POSITION_ID),
)
_SCHEMA = pa.schema(
    pa.field(name, kind, nullable=False, metadata={"PARQUET:field_id": str(field_id)})
    for name, kind, field_id in _COLUMNS
)


def write_position_deletes(table: Table, file: DataFile, positions: pl.Series) -> DataFile:
    """Writes the file that deletes some rows of one data file.

    Args:
        table: the table.
        file: the data file.
        positions: numbers of its rows, from 0; not empty.

    Raises:
        StorageFull: no room is left; what was written has been removed.
    """
    ordered = positions.cast(int).sort()
    paths = pa.array([file.file_path] * len(ordered), pa.string())
    rows = pa.Table.from_arrays([paths, ordered.to_arrow()], schema=_SCHEMA)
    path = table.location_provider().new_data_location(f"{uuid.uuid4()}-deletes.parquet")
    output = table.io.new_output(path)
    try:
        with storage_errors(table.location()), output.create() as sink:
            pq.write_table(rows, cast(IO[Any], sink), compression="zstd")
    except BaseException:
        remove_partial(table.io, path)
        raise
    low, high = (to_bytes(LongType(), value) for value in (ordered[0], ordered[-1]))
    name = to_bytes(StringType(), file.file_path)
    deletes = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=file.partition,
        record_count=len(ordered),
        file_size_in_bytes=len(output),
        column_sizes={},
        value_counts={_PATH_ID: len(ordered), _POSITION_ID: len(ordered)},
        null_value_counts={_PATH_ID: 0, _POSITION_ID: 0},
        nan_value_counts={},
        # The whole path, so that readers see which file it is about without opening it.
        lower_bounds={_PATH_ID: name, _POSITION_ID: low},
        upper_bounds={_PATH_ID: name, _POSITION_ID: high},
        split_offsets=None,
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
    )
    deletes.spec_id = file.spec_id
    return deletes
