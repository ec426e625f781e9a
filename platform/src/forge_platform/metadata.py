"""Metadata values that more than one code location shows."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from forge_platform.tables import TableView


def picture(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """A PNG image as metadata, shown by the UI where it shows Markdown."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{b64encode(png).decode()})")


def snapshots(*views: TableView) -> dict[str, int]:
    """The snapshots that a run reads, by table; what ``TableWrite.inputs`` takes."""
    return {view.identifier: view.snapshot_id for view in views if view.snapshot_id is not None}
