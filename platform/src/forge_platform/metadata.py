"""Metadata values that more than one code location shows."""

from __future__ import annotations

import os
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import dagster as dg

from forge_platform.logs import log_rows

if TYPE_CHECKING:
    from forge_platform.tables import TableView

DOCUMENTATION = "documentation"


def documentation(page: str) -> dg.MetadataValue[Any]:
    """A link to a page of ``docs/``, where ``FORGE_DOCS_URL`` says that it is served."""
    base = os.environ.get("FORGE_DOCS_URL")
    return dg.MetadataValue.url(f"{base}/{page}") if base else dg.MetadataValue.path(f"docs/{page}")


def picture(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """A PNG image as metadata, shown by the UI where it shows Markdown."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{b64encode(png).decode()})")


def snapshots(*views: TableView) -> dict[str, int | None]:
    """The snapshots that a run reads, by table; what ``TableWrite.inputs`` takes."""
    return {view.identifier: view.snapshot_id for view in views}


def written(
    context: dg.AssetExecutionContext,
    source: TableView,
    rows_read: int,
    **details: Any,  # noqa: ANN401 - metadata of any kind
) -> dg.MaterializeResult[None]:
    """What an asset reports that wrote a table to somewhere else than Iceberg.

    Args:
        context: the asset's.
        source: the table that it wrote, whose snapshot is its data version.
        rows_read: how many rows that were.
        details: further metadata.
    """
    numbers = {name: value for name, value in details.items() if isinstance(value, int)}
    log_rows(context.log, context.asset_key.to_user_string(), rows_read=rows_read, **numbers)
    snapshot = str(source.snapshot_id)
    return dg.MaterializeResult(
        metadata={"rows_read": rows_read, "snapshot_id": snapshot, **details},
        data_version=dg.DataVersion(snapshot),
    )
