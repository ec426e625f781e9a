"""Derives a table from the changes of its upstream tables instead of from all their rows.

The upstream snapshots that a table was last made from are properties of its own snapshot, so
they are right whatever happened to the run that wrote it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from forge_platform.tables import Changes, Position, TableView, TableWrite

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
        continues: derived table (``namespace.asset``) to its position when this was planned.
    """

    keys: "pl.DataFrame | None"
    inputs: Mapping[str, int | None]
    continues: Mapping[str, Position] = field(default_factory=dict)

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

    def write(
        self,
        rows: "pl.DataFrame",
        table: str | None = None,
        **details: Any,  # noqa: ANN401
    ) -> TableWrite:
        """The derived rows in place of everything that the table has for these keys.

        Args:
            rows: the derived rows.
            table: which of the tables, where the work was planned for several.
            details: further fields of :class:`TableWrite`.

        Raises:
            ValueError: the work was planned for several tables, and none of them is named.
        """
        position = self._position(table)
        write = partial(TableWrite, rows=rows, inputs=self.inputs, **details)
        if self.keys is None:
            whole = Position(snapshot_id=position.snapshot_id) if position else None
            return write(mode="overwrite", continues=whole)
        return write(mode="merge", is_part=True, deleted_keys=self.keys, continues=position)

    def _position(self, table: str | None) -> Position | None:
        if table is None and len(self.continues) > 1:
            raise ValueError(f"Say which table the rows are for: {', '.join(self.continues)}.")
        return next(iter(self.continues.values()), None) if table is None else self.continues[table]


def plan_work(
    iceberg: "IcebergResource",
    table: str | Sequence[str],
    upstream: Sequence[TableView],
    config: RunModeConfig,
    keys: "Callable[[Sequence[Changes]], pl.DataFrame]",
) -> Work:
    """Finds which keys of a table, or of all that one asset derives, have to be derived again.

    Args:
        iceberg: the catalog.
        table: the derived table, ``namespace.asset``. Of several, which are written one after the
            other, a run may have written some: what any of them lacks is derived for all.
        upstream: the tables that it is derived from, pinned.
        config: incremental or full.
        keys: makes the affected keys of the upstream changes, given in the same order.

    Returns:
        All keys when the run is full, or when an upstream table was never read or its last
        read snapshot is gone.
    """
    inputs = {view.identifier: view.snapshot_id for view in upstream}
    tables = [table] if isinstance(table, str) else table
    positions = {name: iceberg.position(name) for name in tables}
    seen = [position.inputs for position in positions.values()]
    known = all(view.has_snapshot(ids.get(view.identifier)) for ids in seen for view in upstream)
    if config.mode is RunMode.FULL or not known:
        return Work(None, inputs, positions)
    columns = keys.columns if isinstance(keys, _KeysOf) else None
    distinct = [ids for number, ids in enumerate(seen) if ids not in seen[:number]]
    found = [
        keys([view.changes_since(ids[view.identifier], columns) for view in upstream])
        for ids in distinct
    ]
    return Work(_union(found), inputs, positions)


def _union(frames: "Sequence[pl.DataFrame]") -> "pl.DataFrame":
    import polars as pl

    return frames[0] if len(frames) == 1 else pl.concat(frames).unique()


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
