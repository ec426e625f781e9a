"""What an asset hands to the IO manager and gets from it, without importing a data library.

Code locations annotate with these types: definitions then load without Polars, PyArrow or
pyiceberg, which every run pod and code server would otherwise pay for at start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    Frame: TypeAlias = pl.DataFrame | pl.LazyFrame | pa.Table | pa.RecordBatchReader
else:
    Frame = Any

WriteMode: TypeAlias = Literal["append", "overwrite", "merge"]


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a table follows what it is made from.

    Attributes:
        watermark: position in the source up to which the table is complete.
        window: what the source held from shortly before the watermark on, when it was read.
        inputs: upstream table (``namespace.asset``) to the snapshot id that it was last made from.
        snapshot_id: the table's snapshot that says so; None before the table's first one.
    """

    watermark: str | None = None
    window: str | None = None
    inputs: Mapping[str, int] = field(default_factory=dict)
    snapshot_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class TableWrite:
    """Rows for a table, and what must be committed together with them.

    Attributes:
        rows: the new rows, in any of the four frame types; a reader is streamed. None leaves
            the table as it is.
        mode: how to write them; None is the asset's own mode.
        is_part: whether these are only some of the rows that the table is made of: they never
            replace it, also where an environment's mode is overwrite.
        deleted_keys: frame of key columns whose rows are removed in the same commit (merge).
        watermark: position in the source up to which these rows are complete; None leaves that
            which the table has, and an empty one takes it away.
        window: what the source holds from shortly before the watermark on.
        inputs: upstream table (``namespace.asset``) to the snapshot id that was read; None where
            it had none, which takes away what another run has read.
        continues: the table's position that these rows continue. Runs that committed after its
            snapshot overlap with this one, and are told of. Its watermark and inputs are what the
            rows rely on: if a run that began earlier has taken the table back behind them,
            nothing is written, and the run is retried. What is derived as a whole relies on the
            snapshot alone.
        alone: whether nothing is written when such a run there is: for rows that must not come
            over newer ones, where the table cannot tell which are. A snapshot is written also
            where nothing changes, for other such runs to see.
        rows_read: how many rows were read to make these, for logs and metadata.
        rows_rejected: how many were refused, for logs and metadata.
        metadata: further materialisation metadata.
    """

    rows: Frame | None
    mode: WriteMode | None = None
    is_part: bool = False
    deleted_keys: Frame | None = None
    watermark: str | None = None
    window: str | None = None
    inputs: Mapping[str, int | None] = field(default_factory=dict)
    continues: Position | None = None
    alone: bool = False
    rows_read: int | None = None
    rows_rejected: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What differs between two snapshots of a table.

    Attributes:
        rows: inserted rows and the new version of updated ones.
        removed: rows that are no longer there in that form: deleted ones and old versions.
        snapshot_id: the newer snapshot; None for a table without one.
        complete: True when there was no older snapshot to compare with, so ``rows`` is the
            whole table and whatever was derived before must be replaced.
    """

    rows: pl.DataFrame
    removed: pl.DataFrame
    snapshot_id: int | None
    complete: bool


class TableView(ABC):
    """A table pinned at one snapshot: all reads of one run see the same rows.

    Attributes:
        identifier: ``namespace.asset``, without an environment's prefix.
        snapshot_id: the snapshot; None before the table's first one.
    """

    identifier: str
    snapshot_id: int | None

    @abstractmethod
    def column_types(self) -> Mapping[str, str]:
        """Column name to Iceberg type, as Iceberg prints it."""

    @abstractmethod
    def scan(self) -> pl.LazyFrame:
        """The rows, lazily; filters and projections are pushed into the files."""

    @abstractmethod
    def read(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows, or some of their columns, in memory."""

    @abstractmethod
    def has_snapshot(self, snapshot_id: int | None) -> bool:
        """Whether it is known what changed after a snapshot: it is not None, nor was expired."""

    @abstractmethod
    def changes_since(
        self, snapshot_id: int | None, columns: Sequence[str] | None = None
    ) -> Changes:
        """What changed after a snapshot; everything when it is None or was expired.

        Args:
            snapshot_id: the earlier snapshot.
            columns: those that are wanted. A row that differs in another one has changed, too.
        """
