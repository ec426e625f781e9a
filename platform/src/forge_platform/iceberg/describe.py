"""What a table looks like, for the materialisation's page in the UI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from forge_platform.iceberg.view import live_rows

if TYPE_CHECKING:
    from forge_platform.iceberg.view import IcebergView

SAMPLE_ROWS = 5
CELL_CHARACTERS = 60


def describe(view: IcebergView, *, with_sample: bool) -> Mapping[str, dg.MetadataValue[Any]]:
    """Metadata of a table at a snapshot, read from Iceberg's own statistics.

    Only the sample reads rows.
    """
    sample = {"sample": _sample(view)} if with_sample else {}
    table = view.table
    tasks = view.tasks()
    columns = [
        dg.TableColumn(field.name, str(field.field_type), description=field.doc)
        for field in table.schema().fields
    ]
    nulls: Counter[int] = Counter()
    for task in tasks:
        # A file that is older than a column has no statistic of it, and only NULLs in it.
        unknown = dict.fromkeys(table.schema().field_ids, task.file.record_count)
        nulls.update({**unknown, **(task.file.null_value_counts or {})})
    return {
        "dagster/row_count": dg.MetadataValue.int(sum(map(live_rows, tasks))),
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns)),
        "dagster/table_name": dg.MetadataValue.text(".".join(table.name())),
        "null_counts": dg.MetadataValue.json(
            {field.name: nulls[field.field_id] for field in table.schema().fields}
        ),
        **sample,
        "snapshot_id": dg.MetadataValue.text(str(view.snapshot_id)),
        "table_bytes": dg.MetadataValue.int(sum(task.file.file_size_in_bytes for task in tasks)),
        "table_files": dg.MetadataValue.int(len(tasks)),
    }


def _sample(view: IcebergView) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.md(markdown(view.head(SAMPLE_ROWS)))


def markdown(frame: pl.DataFrame) -> str:
    """A frame as a Markdown table; long cells are cut."""
    lines = [frame.columns, ["---"] * frame.width, *map(list, frame.iter_rows())]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    text = "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= CELL_CHARACTERS else f"{text[: CELL_CHARACTERS - 1]}…"
