"""How an asset tells which source table it is made from, for who looks at it from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from forge_platform.extraction import SourceTable

SOURCE = "forge/source"
WATERMARK_OF = "forge/watermark_of"
"""Asset metadata: the date or time stamp of the source that the watermark is a value of."""


def source_metadata(source: SourceTable) -> dict[str, Any]:
    """Asset metadata: the source table's name, and what is needed to compare it."""
    return {
        "source_table": source.name,
        WATERMARK_OF: source.watermark_column,
        SOURCE: {
            "schema": source.schema,
            "table": source.table,
            "columns": dict(source.columns),
            "watermark_column": source.watermark_column,
            "key": list(source.key),
            "versions": source.versions,
        },
    }


def source_of(metadata: Mapping[str, Any]) -> SourceTable | None:
    """The source table that an asset's metadata tells, if it tells one."""
    told = metadata.get(SOURCE)
    fields: Any = told.value if isinstance(told, dg.JsonMetadataValue) else told
    return SourceTable(**{**fields, "key": tuple(fields["key"])}) if fields else None
