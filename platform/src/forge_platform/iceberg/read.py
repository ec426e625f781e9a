"""Gives a pinned table to an asset in the type that its parameter is annotated with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from forge_platform.errors import ConfigurationError
from forge_platform.tables import TableView

if TYPE_CHECKING:
    from forge_platform.iceberg.pruning import Scope
    from forge_platform.iceberg.view import IcebergView


def load(view: IcebergView, kind: object, scope: Scope | None) -> object:
    """Reads the view, or a part of it, as the wanted type.

    Args:
        view: the table at a snapshot.
        kind: ``TableView``, a Polars DataFrame or LazyFrame, an Arrow Table or
            RecordBatchReader; no annotation is a DataFrame.
        scope: the partitions that are wanted; None is all rows.

    Raises:
        ConfigurationError: the annotation is none of these types.
    """
    if kind is TableView:
        return view
    if scope is None and kind is pa.RecordBatchReader:
        return view.batches()
    rows = view.scan()
    if scope is not None:
        rows = rows.filter(scope.predicate(rows.collect_schema()))
    if kind is pl.LazyFrame:
        return rows
    frame = rows.collect()
    if kind in (pl.DataFrame, Any, None):
        return frame
    if kind is pa.Table:
        return frame.to_arrow()
    if kind is pa.RecordBatchReader:
        return frame.to_arrow().to_reader()
    raise ConfigurationError(
        f"The table {view.identifier} cannot be read as {kind}: annotate the parameter with "
        "TableView, pl.DataFrame, pl.LazyFrame, pa.Table or pa.RecordBatchReader."
    )
