"""Reads one data file of a table by row groups, in the table's current schema.

pyiceberg's own reader turns a NULL into an empty list where the elements are structs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import _read_all_delete_files, schema_to_pyarrow

if TYPE_CHECKING:
    from pyiceberg.table import FileScanTask, Table

Positions: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

_FIELD_ID = b"PARQUET:field_id"


@dataclass(frozen=True)
class DataFileReader:
    """The rows of one data file; a row's position is its number in the file, from 0."""

    table: Table
    task: FileScanTask

    @cached_property
    def deleted(self) -> Positions:
        """The positions of the rows that are deleted, in order."""
        found = _read_all_delete_files(self.table.io, [self.task])
        chunks = [chunk.to_numpy() for chunk in found.get(self.task.file.file_path, [])]
        return np.unique(np.concatenate(chunks)) if chunks else np.empty(0, np.int64)

    def live(self, columns: Sequence[str], position: str) -> pl.DataFrame:
        """Some columns of the rows that are not deleted, and their positions."""
        parts = [pl.DataFrame(pl.from_arrow(group)) for _, group in self.groups(columns)]
        rows = pl.concat(parts).with_row_index(position)
        if not len(self.deleted):
            return rows
        gone = pl.DataFrame({position: self.deleted}, schema={position: rows.schema[position]})
        return rows.join(gone, on=position, how="anti")

    def rows(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows that are not deleted, by row group."""
        for position, group in self.groups(columns):
            gone = self.deleted[inside(self.deleted, position, group.num_rows)] - position
            yield group.take(np.delete(np.arange(group.num_rows), gone)) if len(gone) else group

    def groups(
        self, columns: Sequence[str], touching: pl.Series | None = None
    ) -> Iterator[tuple[int, pa.Table]]:
        """Row groups, deleted rows included, each with the position of its first row.

        Args:
            columns: names in the table's schema.
            touching: positions; row groups without any of them are left out.
        """
        wanted = schema_to_pyarrow(self.table.schema().select(*columns), include_field_ids=True)
        with self._opened() as file:
            names = _names(file.schema_arrow, wanted)
            position = 0
            for number in range(file.num_row_groups):
                rows = file.metadata.row_group(number).num_rows
                if touching is None or touching.is_between(position, position + rows - 1).any():
                    present = [name for name in names if name is not None]
                    group = file.read_row_group(number, columns=present)
                    yield position, _in_schema(group, names, wanted, rows)
                position += rows

    def rows_that(self, other: FileScanTask, columns: Sequence[str]) -> pl.DataFrame:
        """The rows that are deleted in another snapshot of the same file, and here are not."""
        gone = np.setdiff1d(DataFileReader(self.table, other).deleted, self.deleted)
        parts = [
            pl.DataFrame(pl.from_arrow(group))[
                pl.Series(gone[inside(gone, first, group.num_rows)] - first)
            ]
            for first, group in self.groups(columns, touching=pl.Series(gone))
        ]
        return pl.concat(parts)

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        source = self.table.io.new_input(self.task.file.file_path)
        with (
            source.open() as stream,
            pq.ParquetFile(stream, pre_buffer=True) as file,  # type: ignore[arg-type]
        ):
            yield file


def inside(
    positions: np.ndarray[Any, np.dtype[Any]], first: int, rows: int
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which positions are those of so many rows from the first on."""
    return (positions >= first) & (positions < first + rows)


def _names(found: pa.Schema, wanted: pa.Schema) -> list[str | None]:
    """What the file calls each wanted column, by field id; None where it has none of it."""
    by_id = {(field.metadata or {}).get(_FIELD_ID): field.name for field in found}
    if set(by_id) == {None}:
        return [field.name if field.name in found.names else None for field in wanted]
    return [by_id.get((field.metadata or {})[_FIELD_ID]) for field in wanted]


def _in_schema(
    group: pa.Table, names: Sequence[str | None], wanted: pa.Schema, rows: int
) -> pa.Table:
    columns = [
        pa.nulls(rows, field.type) if name is None else group.column(name).cast(field.type)
        for name, field in zip(names, wanted, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=wanted)
