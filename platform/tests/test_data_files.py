"""Data files whose columns are not as the table has them now, read as pyiceberg reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType

from forge_platform.iceberg.catalog import open_catalog
from forge_platform.iceberg.maintenance.compaction import Compaction, compact
from forge_platform.iceberg.view import current_snapshot_id, files, stream_files
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table

TABLE = "space.things"
WHOLE = Compaction(small_bytes=10**9, group_bytes=10**9, min_files=1, deleted_fraction=0)
NESTED = pa.schema(
    [
        ("id", pa.int64()),
        ("inner", pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ("lines", pa.list_(pa.struct([("x", pa.int64()), ("y", pa.int64())]))),
        ("tags", pa.map_(pa.string(), pa.struct([("z", pa.int64())]))),
    ]
)
CHANGES: dict[str, Callable[[UpdateSchema], Any]] = {
    "renamed": lambda update: update.rename_column(("inner", "a"), "c"),
    "renamed in a list": lambda update: update.rename_column(("lines", "element", "x"), "w"),
    "renamed in a map": lambda update: update.rename_column(("tags", "value", "z"), "w"),
    "added": lambda update: update.add_column(("inner", "c"), StringType()),
    "dropped": lambda update: update.delete_column(("inner", "a")),
    "moved": lambda update: update.move_after(("inner", "a"), ("inner", "b")),
}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(f"sqlite:///{tmp_path}/catalog.db", f"file://{tmp_path}/tables", {})


def by_pyiceberg(table: Table) -> list[dict[str, Any]]:
    return table.refresh().scan().to_arrow().sort_by("id").to_pylist()


def by_us(table: Table) -> list[dict[str, Any]]:
    tasks = files(table.refresh(), current_snapshot_id(table)).values()
    return pa.Table.from_batches(stream_files(table, tasks)).sort_by("id").to_pylist()


def nested(catalog: Catalog) -> Table:
    for number in (1, 2):
        row = {
            "id": number,
            "inner": {"a": number, "b": "b"},
            "lines": [{"x": number, "y": -number}],
            "tags": {"t": {"z": number}},
        }
        rows = pa.Table.from_pylist([row], schema=NESTED)
        write_table(catalog, TABLE, WriteRequest(rows=rows, mode="append"), TableOptions())
    return catalog.load_table(TABLE)


@pytest.mark.parametrize("change", CHANGES)
def test_fields_inside_of_columns_are_found_by_their_ids(catalog: Catalog, change: str) -> None:
    table = nested(catalog)
    with table.update_schema(allow_incompatible_changes=True) as update:
        CHANGES[change](update)
    expected = by_pyiceberg(table)
    assert by_us(table) == expected
    compact(table, WHOLE)
    assert by_pyiceberg(table) == expected


def test_a_field_of_the_name_of_one_that_was_dropped_is_another(catalog: Catalog) -> None:
    table = nested(catalog)
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column(("inner", "a"))
    with table.update_schema() as update:
        update.add_column(("inner", "a"), LongType())
    assert [row["inner"]["a"] for row in by_us(table)] == [None, None]
    compact(table, WHOLE)
    assert [row["inner"]["a"] for row in by_pyiceberg(table)] == [None, None]


def test_a_null_inside_of_anything_stays_null(catalog: Catalog) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 1, "inner": None, "lines": None, "tags": None},
        {"id": 2, "inner": {"a": None, "b": "b"}, "lines": [], "tags": []},
        {"id": 3, "inner": {"a": 1, "b": None}, "lines": [None], "tags": [("t", None)]},
    ]
    frame = pa.Table.from_pylist(rows, schema=NESTED)
    write_table(catalog, TABLE, WriteRequest(rows=frame, mode="append"), TableOptions())
    table = catalog.load_table(TABLE)
    assert by_us(table) == rows
    with table.update_schema(allow_incompatible_changes=True) as update:
        for change in ("renamed", "renamed in a list"):
            CHANGES[change](update)
    changed = by_us(table)
    assert [row["inner"] for row in changed] == [None, {"c": None, "b": "b"}, {"c": 1, "b": None}]
    assert [row["lines"] for row in changed] == [None, [], [None]]


def test_files_of_others_without_field_ids_are_read_by_the_name_mapping(
    catalog: Catalog, tmp_path: Path
) -> None:
    catalog.create_namespace("space")
    schema = Schema(
        NestedField(1, "id", LongType(), required=False),
        NestedField(2, "value", StringType(), required=False),
    )
    table = catalog.create_table(TABLE, schema)
    path = tmp_path / "added.parquet"
    pq.write_table(pa.table({"id": [1], "value": ["kept"]}), path)
    table.add_files([str(path)])
    with table.update_schema() as update:
        update.rename_column("value", "text")
    assert by_us(table) == by_pyiceberg(table) == [{"id": 1, "text": "kept"}]


def test_a_partition_column_that_the_file_has_not_is_that_of_its_partition(
    catalog: Catalog,
) -> None:
    catalog.create_namespace("space")
    schema = Schema(
        NestedField(1, "id", LongType(), required=False),
        NestedField(2, "region", StringType(), required=False),
    )
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "region"))
    table = catalog.create_table(TABLE, schema, partition_spec=spec)
    table.append(pa.table({"id": [1], "region": ["north"]}))
    [path] = files(table, current_snapshot_id(table))
    file = path.removeprefix("file://")
    pq.write_table(pq.read_table(file).drop_columns(["region"]), file)
    assert by_us(table) == [{"id": 1, "region": "north"}]
