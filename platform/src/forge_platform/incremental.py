"""Derives a table from the changes of its upstream tables instead of from all their rows.

The upstream snapshots that a table was last made from are properties of its own snapshot, so
they are right whatever happened to the run that wrote it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from forge_platform.tables import Changes, TableView, TableWrite

if TYPE_CHECKING:
    import polars as pl

    from forge_platform.resources.iceberg import IcebergResource


class RunMode(Enum):
    """Whether a run derives what changed or everything."""

    INCREMENTAL = "incremental"
    FULL = "full"


class RunModeConfig(dg.Config):
    """Run configuration of an asset that can be derived incrementally."""

    mode: RunMode = Field(
        default=RunMode.INCREMENTAL,
        description="incremental: only what changed upstream; full: everything from the start.",
    )


@dataclass(frozen=True)
class Work:
    """The keys that a run derives again, and how their rows are read and written.

    Attributes:
        keys: one row per key, in the key's columns; None is all there are.
        inputs: the upstream snapshots that this run reads.
        continues: the table's own snapshot that the work was planned for, if it has one.
    """

    keys: "pl.DataFrame | None"
    inputs: Mapping[str, int | None]
    continues: int | None = None

    def rows(self, view: TableView) -> "pl.DataFrame":
        """The upstream rows that belong to the keys."""
        import polars as pl

        if self.keys is None:
            return view.read()
        rows = view.scan()
        if self.keys.is_empty():
            return rows.clear().collect()
        for key in self.keys:
            # Files whose statistics rule this range out are not read.
            column = pl.col(key.name)
            within = column.is_between(pl.lit(key.min()), pl.lit(key.max()))
            rows = rows.filter(within | column.is_null() if key.null_count() else within)
        keys = self.keys.lazy()
        return rows.join(keys, on=self.keys.columns, how="semi", nulls_equal=True).collect()

    def write(self, rows: "pl.DataFrame", **details: Any) -> TableWrite:  # noqa: ANN401
        """The derived rows in place of everything that the table has for these keys.

        Args:
            rows: the derived rows.
            details: further fields of :class:`TableWrite`; ``continues`` for rows of another
                table than the one that the work was planned for.
        """
        fields = {"inputs": self.inputs, "continues": self.continues, **details}
        if self.keys is None:
            return TableWrite(rows=rows, mode="overwrite", **fields)
        return TableWrite(rows=rows, mode="merge", is_part=True, deleted_keys=self.keys, **fields)


def plan_work(
    iceberg: "IcebergResource",
    table: str,
    upstream: Sequence[TableView],
    config: RunModeConfig,
    keys: "Callable[[Sequence[Changes]], pl.DataFrame]",
) -> Work:
    """Finds which keys of a table have to be derived again.

    Args:
        iceberg: the catalog.
        table: the derived table, ``namespace.asset``.
        upstream: the tables that it is derived from, pinned.
        config: incremental or full.
        keys: makes the affected keys of the upstream changes, given in the same order.

    Returns:
        All keys when the run is full, or when an upstream table was never read or its last
        read snapshot is gone.
    """
    inputs = {view.identifier: view.snapshot_id for view in upstream}
    position = iceberg.position(table)
    if config.mode is RunMode.FULL:
        return Work(None, inputs, position.snapshot_id)
    seen = position.inputs
    if not all(view.has_snapshot(seen.get(view.identifier)) for view in upstream):
        return Work(None, inputs, position.snapshot_id)
    columns = keys.columns if isinstance(keys, _KeysOf) else None
    changes = [view.changes_since(seen[view.identifier], columns) for view in upstream]
    return Work(keys(changes), inputs, position.snapshot_id)


def keys_of(column: str) -> "Callable[[Sequence[Changes]], pl.DataFrame]":
    """Takes the affected keys from one column that all upstream tables have."""
    return _KeysOf((column,))


@dataclass(frozen=True)
class _KeysOf:
    """Needs no more of the changes than these columns."""

    columns: tuple[str, ...]

    def __call__(self, changes: Sequence[Changes]) -> "pl.DataFrame":
        import polars as pl

        frames = [frame.select(self.columns) for c in changes for frame in (c.rows, c.removed)]
        return pl.concat(frames).unique()
