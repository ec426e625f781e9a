"""Reads one data file of a table by row groups, in the schema of a snapshot.

pyiceberg's own reader turns a NULL into an empty list where the elements are structs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import _read_all_delete_files, schema_to_pyarrow

from forge_platform.iceberg.projection import field_id, projected

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.table import FileScanTask, Table

Positions: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


@dataclass(frozen=True)
class DataFileReader:
    """The rows of one data file; a row's position is its number in the file, from 0.

    Attributes:
        as_of: the schema to read in; the table's current one when it is None.
    """

    table: Table
    task: FileScanTask
    as_of: Schema | None = None

    @property
    def schema(self) -> Schema:
        """The schema that the rows are read in."""
        return self.as_of or self.table.schema()

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
            columns: names in the schema.
            touching: positions; row groups without any of them are left out.
        """
        wanted = schema_to_pyarrow(self.schema.select(*columns), include_field_ids=True)
        with self._opened() as file:
            names = _names(file.schema_arrow, wanted, self._name_mapping)
            position = 0
            for number in range(file.num_row_groups):
                rows = file.metadata.row_group(number).num_rows
                if touching is None or touching.is_between(position, position + rows - 1).any():
                    present = [name for name in names if name is not None]
                    group = file.read_row_group(number, columns=present)
                    yield position, self._in_schema(group, names, wanted, rows)
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
        empty = schema_to_pyarrow(self.schema.select(*columns)).empty_table()
        return pl.concat([pl.DataFrame(pl.from_arrow(empty)), *parts])

    @property
    def _name_mapping(self) -> Mapping[str, int]:
        """Field ids of the columns of files that were written without."""
        mapping = self.table.name_mapping()
        if mapping is None:
            return {field.name: field.field_id for field in self.table.schema().fields}
        return {
            name: field.field_id
            for field in mapping.root
            for name in field.names
            if field.field_id is not None
        }

    def _in_schema(
        self, group: pa.Table, names: Sequence[str | None], wanted: pa.Schema, rows: int
    ) -> pa.Table:
        columns = [
            self._absent(field, rows) if name is None else projected(group, name, field)
            for name, field in zip(names, wanted, strict=True)
        ]
        return pa.Table.from_arrays(columns, schema=wanted)

    def _absent(self, field: pa.Field[Any], rows: int) -> pa.Array[Any]:
        """A column that the file has not: NULL, or the value of the partition that it is in."""
        spec = self.table.specs()[self.task.file.spec_id]
        for number, part in enumerate(spec.fields):
            if part.source_id == field_id(field) and str(part.transform) == "identity":
                values: Any = [self.task.file.partition[number]] * rows
                filled: pa.Array[Any] = pa.array(values, field.type)
                return filled
        nothing: pa.Array[Any] = pa.nulls(rows, field.type)
        return nothing

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


def _names(found: pa.Schema, wanted: pa.Schema, mapping: Mapping[str, int]) -> list[str | None]:
    """What the file calls each wanted column, by field id; None where it has none of it."""
    by_id = {field_id(field): field.name for field in found}
    if set(by_id) <= {None}:
        by_id = {mapping.get(name): name for name in found.names}
    return [by_id.get(field_id(field)) for field in wanted]
