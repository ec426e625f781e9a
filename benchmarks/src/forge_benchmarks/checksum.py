"""What proves that two tables hold the same rows, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import Table


def facts(table: Table, columns: Mapping[str, str]) -> Mapping[str, Any]:
    """The number of rows, and the sum of their hashes: in any order, and in any layout.

    Args:
        table: as pyiceberg has it.
        columns: name to the type that the values are compared in; others are left out.
    """
    import duckdb

    scanned: pa.RecordBatchReader = table.scan(
        selected_fields=tuple(columns)
    ).to_arrow_batch_reader()
    row = ", ".join(_text(name, kind) for name, kind in columns.items())
    # MD5 is the same in every version of everything.
    query = f"SELECT count(*), sum(md5_number_lower(concat_ws('|', {row}))) FROM scanned"  # noqa: S608
    with duckdb.connect() as connection:
        connection.register("scanned", scanned)
        found = connection.execute(query).fetchone()
    count, total = found or (0, 0)
    return {"rows": count, "digest": f"{int(total or 0) % 2**64:016x}"}


def newest(folder: Path) -> Table:
    """The table whose newest metadata lie in a folder, without a catalog."""
    from pyiceberg.table import StaticTable

    files = folder.glob("*.metadata.json")
    return StaticTable.from_metadata(str(max(files, key=lambda file: file.stat().st_mtime)))


def _text(name: str, kind: str) -> str:
    value = f"epoch_us({name})" if kind == "timestamptz" else f"CAST({name} AS {kind})"
    return f"coalesce(CAST({value} AS text), 'NULL')"
