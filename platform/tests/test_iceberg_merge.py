"""Merges, appends and partition writes against a real catalog, compared row by row."""

from __future__ import annotations

import datetime as dt
import math
import random
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pyarrow as pa
import pytest
from catalogs import FILES, REST, S3, SLOWER, catalog_at, local_catalog
from polars.testing import assert_frame_equal
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.types import LongType

from forge_platform.errors import (
    CommitConflict,
    ConfigurationError,
    PermanentError,
    SchemaMismatch,
)
from forge_platform.iceberg import writer
from forge_platform.iceberg.catalog import open_catalog
from forge_platform.iceberg.commit import Plan, commit
from forge_platform.iceberg.describe import describe
from forge_platform.iceberg.maintenance.compaction import Compaction, compact
from forge_platform.iceberg.maintenance.expiry import expire
from forge_platform.iceberg.pruning import Scope
from forge_platform.iceberg.state import position, reaches, state
from forge_platform.iceberg.view import (
    IcebergView,
    current_snapshot_id,
    files,
    live_rows,
    stream_files,
)
from forge_platform.iceberg.write import TableOptions, WriteRequest, to_reader, write_table
from forge_platform.tables import Position, WriteMode

KEYED = TableOptions(key=("id",), order_by="at")
LOG = TableOptions()
DAILY = TableOptions(key=("id",), partition_by="day", granularity="day")
TABLE = "space.things"


ON_READ = ", merged on read"
PLACES = [FILES, FILES + ON_READ, S3, REST, SLOWER]
also_on_read = pytest.mark.parametrize(
    "kind", [*PLACES, S3 + ON_READ, REST + ON_READ], indirect=True
)


@pytest.fixture(params=PLACES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(kind: str) -> str:
    return kind.removesuffix(ON_READ)


@pytest.fixture
def keyed(kind: str) -> TableOptions:
    return replace(KEYED, on_read=kind.endswith(ON_READ))


@pytest.fixture
def catalog(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> Catalog:
    return catalog_at(place, request, tmp_path)


def at(minute: int) -> dt.datetime:
    return dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=minute)


def things(*rows: tuple[int | None, int, str]) -> pl.DataFrame:
    frame = pl.DataFrame(
        rows, schema={"id": pl.Int64, "minute": pl.Int64, "name": pl.String}, orient="row"
    )
    return frame.select(
        "id",
        (pl.lit(at(0)) + pl.duration(minutes="minute")).cast(pl.Datetime("us", "UTC")).alias("at"),
        "name",
    )


def rows(catalog: Catalog, snapshot_id: int | None = None) -> pl.DataFrame:
    table = catalog.load_table(TABLE)
    view = IcebergView(table, TABLE, snapshot_id or current_snapshot_id(table))
    found = view.read().sort("id")
    streamed = pl.DataFrame(pl.from_arrow(view.batches().read_all()))
    assert_frame_equal(streamed.sort("id"), found)
    return found


@also_on_read
def test_merge_updates_inserts_and_leaves_the_rest(catalog: Catalog, keyed: TableOptions) -> None:
    first = things((1, 0, "a"), (2, 0, "b"), (3, 0, "c"))
    write_table(catalog, TABLE, WriteRequest(rows=first, mode="merge"), keyed)
    second = things((2, 5, "B"), (3, 0, "c"), (4, 5, "d"))
    result = write_table(catalog, TABLE, WriteRequest(rows=second, mode="merge"), keyed)
    assert (result.inserted, result.updated, result.unchanged) == (1, 1, 1)
    expected = things((1, 0, "a"), (2, 5, "B"), (3, 0, "c"), (4, 5, "d"))
    assert_frame_equal(rows(catalog), expected)


def test_nothing_changed_writes_no_snapshot(catalog: Catalog, keyed: TableOptions) -> None:
    request = WriteRequest(
        rows=things((1, 0, "a")), mode="merge", properties={"forge.watermark": "1"}
    )
    first = write_table(catalog, TABLE, request, keyed)
    again = write_table(catalog, TABLE, request, keyed)
    assert first.committed
    assert not again.committed
    assert again.snapshot_id == first.snapshot_id


def test_an_older_version_does_not_replace_a_newer_one(
    catalog: Catalog, keyed: TableOptions
) -> None:
    newer = WriteRequest(rows=things((1, 9, "new")), mode="merge")
    older = WriteRequest(rows=things((1, 3, "old")), mode="merge")
    write_table(catalog, TABLE, newer, keyed)
    result = write_table(catalog, TABLE, older, keyed)
    assert result.unchanged == 1
    assert_frame_equal(rows(catalog), things((1, 9, "new")))


def test_newest_of_several_versions_in_one_batch_wins(
    catalog: Catalog, keyed: TableOptions
) -> None:
    batch = things((1, 5, "middle"), (1, 9, "newest"), (1, 1, "oldest"))
    write_table(catalog, TABLE, WriteRequest(rows=batch, mode="merge"), keyed)
    assert_frame_equal(rows(catalog), things((1, 9, "newest")))


@also_on_read
def test_deleted_keys_go_in_the_same_commit(catalog: Catalog, keyed: TableOptions) -> None:
    first = things((1, 0, "a"), (2, 0, "b"), (3, 0, "c"))
    write_table(catalog, TABLE, WriteRequest(rows=first, mode="merge"), keyed)
    request = WriteRequest(
        rows=things((3, 1, "C")), mode="merge", deleted_keys=pl.DataFrame({"id": [1, 3, 99]})
    )
    result = write_table(catalog, TABLE, request, keyed)
    assert (result.deleted, result.updated) == (1, 1)
    assert_frame_equal(rows(catalog), things((2, 0, "b"), (3, 1, "C")))


def test_append_with_a_key_inserts_every_version_once(catalog: Catalog) -> None:
    options = TableOptions(key=("id", "at"))
    log = things((1, 0, "a"), (1, 5, "b"))
    write_table(catalog, TABLE, WriteRequest(rows=log, mode="append"), options)
    again = things((1, 5, "b"), (1, 7, "c"), (2, 5, "d"))
    result = write_table(catalog, TABLE, WriteRequest(rows=again, mode="append"), options)
    assert (result.inserted, result.updated, result.unchanged) == (2, 0, 1)
    assert rows(catalog).height == 4


def test_append_of_a_retried_run_is_not_doubled(catalog: Catalog) -> None:
    request = WriteRequest(
        rows=things((1, 0, "a")),
        mode="append",
        properties={"forge.write-id": "run/asset", "forge.run-id": "run"},
    )
    write_table(catalog, TABLE, request, TableOptions())
    again = write_table(catalog, TABLE, request, TableOptions())
    assert not again.committed
    assert rows(catalog).height == 1


@also_on_read
def test_overwrite_of_a_keyed_frame_writes_only_the_difference(
    catalog: Catalog, keyed: TableOptions
) -> None:
    first = things((1, 0, "a"), (2, 0, "b"))
    write_table(catalog, TABLE, WriteRequest(rows=first, mode="overwrite"), keyed)
    second = things((2, 0, "b"), (3, 0, "c"))
    result = write_table(catalog, TABLE, WriteRequest(rows=second, mode="overwrite"), keyed)
    assert (result.inserted, result.deleted, result.unchanged) == (1, 1, 1)
    assert_frame_equal(rows(catalog), second)


def test_overwrite_with_a_stream_replaces_everything(catalog: Catalog, keyed: TableOptions) -> None:
    first = WriteRequest(rows=things((1, 0, "a"), (2, 0, "b")), mode="overwrite")
    write_table(catalog, TABLE, first, keyed)
    stream = things((7, 0, "x")).to_arrow().to_reader()
    result = write_table(catalog, TABLE, WriteRequest(rows=stream, mode="overwrite"), keyed)
    assert (result.inserted, result.deleted) == (1, 2)
    assert_frame_equal(rows(catalog), things((7, 0, "x")))


def test_null_in_a_key_is_refused(catalog: Catalog, keyed: TableOptions) -> None:
    request = WriteRequest(rows=things((None, 0, "a"), (1, 0, "b")), mode="merge")
    with pytest.raises(PermanentError, match="1 of 2 rows have no id"):
        write_table(catalog, TABLE, request, keyed)


def test_merge_without_a_key_is_refused(catalog: Catalog) -> None:
    request = WriteRequest(rows=things((1, 0, "a")), mode="merge")
    with pytest.raises(ConfigurationError, match="forge/key"):
        write_table(catalog, TABLE, request, TableOptions())


def test_a_new_column_is_added_and_old_rows_have_null(
    catalog: Catalog, keyed: TableOptions
) -> None:
    write_table(catalog, TABLE, WriteRequest(rows=things((1, 0, "a")), mode="merge"), keyed)
    wider = things((2, 0, "b")).with_columns(extra=pl.lit(7, pl.Int64))
    write_table(catalog, TABLE, WriteRequest(rows=wider, mode="merge"), keyed)
    assert rows(catalog)["extra"].to_list() == [None, 7]


def test_a_pinned_view_has_the_columns_of_its_snapshot(
    catalog: Catalog, keyed: TableOptions, place: str
) -> None:
    if place == REST:  # Nessie shows no snapshot but the newest one
        return
    write_table(catalog, TABLE, WriteRequest(rows=things((1, 0, "a")), mode="merge"), keyed)
    before = current_snapshot_id(catalog.load_table(TABLE))
    wider = things((2, 0, "b")).with_columns(extra=pl.lit(7, pl.Int64))
    write_table(catalog, TABLE, WriteRequest(rows=wider, mode="merge"), keyed)
    view = IcebergView(catalog.load_table(TABLE), TABLE, before)
    columns = ["id", "at", "name"]
    assert list(view.column_types()) == columns
    assert view.scan().collect_schema().names() == view.batches().schema.names == columns
    assert view.changes_since(None).rows.columns == columns
    assert view.read().rows() == view.changes_since(None).rows.rows()


@pytest.mark.parametrize("mode", ["merge", "overwrite"])
def test_a_column_without_values_is_seen_at_once(
    catalog: Catalog, keyed: TableOptions, place: str, mode: WriteMode
) -> None:
    write_table(catalog, TABLE, WriteRequest(rows=things((1, 0, "a")), mode=mode), keyed)
    wider = things((1, 0, "a")).with_columns(extra=pl.lit(None, pl.Int64))
    for committed in (True, False):
        done = write_table(catalog, TABLE, WriteRequest(rows=wider, mode=mode), keyed)
        # Nessie says of its newest snapshot that it has the newest schema.
        assert done.committed == (committed and place != REST)
        assert rows(catalog).columns == ["id", "at", "name", "extra"]


@pytest.mark.parametrize("mode", ["merge", "overwrite", "streamed overwrite", "append"])
def test_a_column_that_another_writer_adds_meanwhile_is_not_lost(
    catalog: Catalog, keyed: TableOptions, mode: str
) -> None:
    write_table(catalog, TABLE, WriteRequest(rows=things((1, 0, "a")), mode="merge"), keyed)

    def add_column(table: Table) -> None:
        with catalog.load_table(TABLE).update_schema() as update:
            update.add_column("extra", LongType())
        refresh(table)

    refresh = Table.refresh

    def write() -> None:
        new: pl.DataFrame | pa.RecordBatchReader = things((2, 0, "b"))
        if mode == "streamed overwrite":
            new = to_reader(new)
        kinds: Mapping[str, WriteMode] = {"merge": "merge", "append": "append"}
        kind = kinds.get(mode, "overwrite")
        options = TableOptions() if mode == "append" else keyed
        write_table(catalog, TABLE, WriteRequest(rows=new, mode=kind), options)

    with (
        patch.object(Table, "refresh", add_column),
        pytest.raises(CommitConflict, match="changed the schema of"),
    ):
        write()
    assert rows(catalog)["id"].to_list() == [1]
    with pytest.raises(SchemaMismatch, match="extra is missing"):
        write()


@pytest.mark.parametrize(
    ("narrow", "wide", "values"),
    [
        (pl.Int32(), pl.Int64(), (7, 2**40)),
        (pl.Float32(), pl.Float64(), (0.5, 0.1)),
        (pl.Decimal(5, 2), pl.Decimal(12, 2), (Decimal("1.50"), Decimal("1234567890.12"))),
    ],
)
def test_a_type_is_widened_and_old_rows_stay(
    catalog: Catalog,
    keyed: TableOptions,
    narrow: pl.DataType,
    wide: pl.DataType,
    values: tuple[object, object],
) -> None:
    def row(key: int, minute: int, value: object, dtype: pl.DataType) -> pl.DataFrame:
        return things((key, minute, "a")).with_columns(size=pl.lit(value, dtype))

    for rows_ in (row(1, 0, values[0], narrow), row(2, 0, values[0], narrow)):
        write_table(catalog, TABLE, WriteRequest(rows=rows_, mode="merge"), keyed)
    fixed = replace(keyed, fixed_schema=True)
    request = WriteRequest(rows=row(2, 1, values[1], wide), mode="merge")
    with pytest.raises(SchemaMismatch, match="size is"):
        write_table(catalog, TABLE, request, fixed)
    write_table(catalog, TABLE, request, keyed)
    narrower = WriteRequest(rows=row(3, 0, values[0], narrow), mode="merge")
    write_table(catalog, TABLE, narrower, keyed)
    assert rows(catalog)["size"].to_list() == [values[0], values[1], values[0]]


def test_a_fixed_schema_takes_no_new_column(catalog: Catalog, keyed: TableOptions) -> None:
    write_table(catalog, TABLE, WriteRequest(rows=things((1, 0, "a")), mode="merge"), keyed)
    wider = things((1, 0, "a")).with_columns(extra=pl.lit(7))
    with pytest.raises(SchemaMismatch, match="extra is new"):
        write_table(
            catalog,
            TABLE,
            WriteRequest(rows=wider, mode="merge"),
            replace(keyed, fixed_schema=True),
        )


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (things((1, 0, "a")).drop("name"), "name is missing"),
        (things((1, 0, "a")).with_columns(name=pl.lit(1)), "name is int32, the table has string"),
        (things((1, 0, "a")).with_columns(nothing=None), "no type for these columns: nothing"),
    ],
)
def test_other_schema_changes_are_refused_with_both_schemas(
    catalog: Catalog, keyed: TableOptions, changed: pl.DataFrame, problem: str
) -> None:
    write_table(catalog, TABLE, WriteRequest(rows=things((1, 0, "a")), mode="merge"), keyed)
    with pytest.raises(SchemaMismatch, match=problem):
        write_table(catalog, TABLE, WriteRequest(rows=changed, mode="merge"), keyed)
    assert_frame_equal(rows(catalog), things((1, 0, "a")))


def days(*values: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(
        {"id": [i for i, _ in values], "day": [dt.date(2024, 1, d) for _, d in values]},
        schema={"id": pl.Int64, "day": pl.Date},
    )


def day_scope(first: int, beyond: int) -> Scope:
    start, end = (dt.datetime(2024, 1, day, tzinfo=dt.UTC) for day in (first, beyond))
    return Scope("day", (start, end))


@pytest.mark.parametrize("options", [DAILY, TableOptions(partition_by="day", granularity="day")])
def test_a_partition_run_again_replaces_itself(catalog: Catalog, options: TableOptions) -> None:
    first = WriteRequest(rows=days((1, 1), (2, 1), (3, 2)), mode="append", scope=day_scope(1, 3))
    write_table(catalog, TABLE, first, options)
    again = WriteRequest(rows=days((2, 1), (4, 1)), mode="append", scope=day_scope(1, 2))
    write_table(catalog, TABLE, again, options)
    assert_frame_equal(rows(catalog), days((2, 1), (3, 2), (4, 1)))
    spec = catalog.load_table(TABLE).spec()
    assert [str(field.transform) for field in spec.fields] == ["day"]


def test_rows_outside_the_partition_are_refused(catalog: Catalog) -> None:
    request = WriteRequest(rows=days((1, 1), (2, 5)), mode="append", scope=day_scope(1, 2))
    with pytest.raises(PermanentError, match="1 of 2 rows"):
        write_table(catalog, TABLE, request, DAILY)


def test_an_empty_partition_is_no_error(catalog: Catalog) -> None:
    request = WriteRequest(rows=days(), mode="append", scope=day_scope(1, 2))
    write_table(catalog, TABLE, request, DAILY)
    assert rows(catalog).is_empty()


def test_watermark_is_carried_by_later_commits(catalog: Catalog, keyed: TableOptions) -> None:
    marked = {"forge.watermark": "2024-01-01", "forge.run-id": "1"}
    for row, properties in ((1, marked), (2, {"forge.run-id": "2"})):
        request = WriteRequest(rows=things((row, 0, "a")), mode="merge", properties=properties)
        write_table(catalog, TABLE, request, keyed)
    assert state(catalog.load_table(TABLE))["forge.watermark"] == "2024-01-01"


@also_on_read
def test_changes_between_snapshots_are_exactly_what_was_merged(
    catalog: Catalog, place: str, keyed: TableOptions
) -> None:
    first = things((1, 0, "a"), (2, 0, "b"), (3, 0, "c"))
    before = write_table(catalog, TABLE, WriteRequest(rows=first, mode="merge"), keyed)
    request = WriteRequest(
        rows=things((2, 1, "B"), (9, 1, "z")), mode="merge", deleted_keys=pl.DataFrame({"id": [3]})
    )
    after = write_table(catalog, TABLE, request, keyed)
    view = IcebergView(catalog.load_table(TABLE), TABLE, after.snapshot_id)
    if place == REST:  # Nessie shows no snapshot but the newest one
        assert view.changes_since(before.snapshot_id).complete
        return
    changes = view.changes_since(before.snapshot_id)
    assert not changes.complete
    assert_frame_equal(changes.rows.sort("id"), things((2, 1, "B"), (9, 1, "z")))
    assert_frame_equal(changes.removed.sort("id"), things((2, 0, "b"), (3, 0, "c")))
    keys = view.changes_since(before.snapshot_id, ["id"])
    assert_frame_equal(keys.rows.sort("id"), changes.rows.sort("id").select("id"))
    assert_frame_equal(keys.removed.sort("id"), changes.removed.sort("id").select("id"))
    assert view.changes_since(None).complete
    assert view.changes_since(12345).complete


def test_writers_at_once_are_serialised_and_nothing_is_lost(
    catalog: Catalog, keyed: TableOptions
) -> None:
    write_table(catalog, TABLE, WriteRequest(rows=things((0, 0, "a")), mode="merge"), keyed)
    failures: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            for step in range(2):
                own = (worker * 100 + step, 0, f"{worker}")
                shared = (0, worker * 4 + step, f"{worker}/{step}")
                request = WriteRequest(rows=things(own, shared), mode="merge")
                write_table(catalog, TABLE, request, keyed)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = rows(catalog)
    assert found.height == 1 + 4 * 2
    assert found.row(0) == (0, at(17), "4/1")


@also_on_read
def test_a_merge_in_several_pieces_keeps_what_each_brought(
    catalog: Catalog, keyed: TableOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PIECE_ROWS", 2)
    first = things(*((key, 0, "old") for key in range(8)))
    write_table(catalog, TABLE, WriteRequest(rows=first, mode="merge"), keyed)
    changed = things(*((key, 1, "new") for key in range(6)))
    batches = [batch for row in changed.iter_slices(1) for batch in row.to_arrow().to_batches()]
    stream = pa.RecordBatchReader.from_batches(changed.to_arrow().schema, batches)
    keys = pl.DataFrame({"id": [0, 1, 2, 3, 4, 5, 6]})
    request = WriteRequest(rows=stream, mode="merge", deleted_keys=keys)
    result = write_table(catalog, TABLE, request, keyed)
    assert (result.updated, result.deleted, result.inserted) == (6, 1, 0)
    expected = pl.concat([changed, things((7, 0, "old"))])
    assert_frame_equal(rows(catalog), expected)


def test_a_run_that_dies_between_two_pieces_is_done_again_from_where_it_began(
    catalog: Catalog, keyed: TableOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another run has been further meanwhile: its newer row lies under an older one."""
    monkeypatch.setattr(writer, "PIECE_ROWS", 2)
    latest = replace(keyed, order_by=None)

    def merge(frame: pl.DataFrame, watermark: str) -> None:
        properties = {"forge.watermark": watermark, "forge.window": f"as of {watermark}"}
        request = WriteRequest(rows=frame, mode="merge", properties=properties)
        write_table(catalog, TABLE, request, latest)

    merge(things((1, 0, "first"), (2, 0, "first")), "2024-05-01")
    begun = position(catalog.load_table(TABLE))

    def dying() -> Iterator[pa.RecordBatch]:
        yield from things((1, 1, "old"), (2, 1, "old")).to_arrow().to_batches()
        merge(things((1, 2, "new")), "2024-05-03")
        yield from things((3, 1, "old"), (4, 1, "old")).to_arrow().to_batches()
        raise KeyboardInterrupt

    stream = pa.RecordBatchReader.from_batches(things().to_arrow().schema, dying())
    properties = {"forge.watermark": "2024-05-02", "forge.window": "as of 2024-05-02"}
    request = WriteRequest(rows=stream, mode="merge", properties=properties, continues=begun)
    with pytest.raises(KeyboardInterrupt):
        write_table(catalog, TABLE, request, latest)
    assert rows(catalog)["name"].to_list() == ["old", "old"]
    found = state(catalog.load_table(TABLE))
    assert found["forge.watermark"] == "2024-05-01"
    assert found["forge.window"] == "as of 2024-05-01"


def test_a_run_does_not_claim_what_another_has_taken_back(
    catalog: Catalog, keyed: TableOptions
) -> None:
    """Three overlap: the oldest commits its older row after the newest one has begun."""
    latest = replace(keyed, order_by=None)

    def merge(frame: pl.DataFrame, day: int, continues: Position) -> None:
        properties = {"forge.watermark": f"2024-05-0{day}"}
        request = WriteRequest(rows=frame, mode="merge", properties=properties, continues=continues)
        write_table(catalog, TABLE, request, latest)

    def now() -> Position:
        return position(catalog.load_table(TABLE))

    merge(things((1, 0, "first")), 1, Position())
    oldest = now()
    merge(things((1, 2, "new")), 3, oldest)
    newest = now()
    merge(things((1, 1, "old")), 2, oldest)
    with pytest.raises(CommitConflict, match="taken back"):
        merge(things((2, 3, "other")), 4, newest)
    assert now().watermark == "2024-05-02"
    merge(things((1, 2, "new"), (2, 3, "other")), 4, now())
    commit(catalog.load_table(TABLE), lambda _: Plan(), {"forge.watermark": ""})
    with pytest.raises(CommitConflict, match="taken back"):
        merge(things((3, 4, "more")), 5, newest)
    assert rows(catalog)["name"].to_list() == ["new", "other"]


def test_a_run_does_not_claim_what_another_has_derived_meanwhile(
    catalog: Catalog, keyed: TableOptions
) -> None:
    latest = replace(keyed, order_by=None)

    def derive(name: str, upstream: int, continues: Position) -> None:
        request = WriteRequest(
            rows=things((1, 0, name)),
            mode="merge",
            properties={"forge.input.other.table": str(upstream)},
            continues=continues,
        )
        write_table(catalog, TABLE, request, latest)

    derive("first", 7, Position())
    begun = position(catalog.load_table(TABLE))
    derive("new", 9, begun)
    derive("new", 9, begun)  # the same once more
    with pytest.raises(CommitConflict, match="derived from something else"):
        derive("old", 8, begun)
    derive("all", 8, Position(snapshot_id=begun.snapshot_id))
    assert rows(catalog)["name"].to_list() == ["all"]


def test_what_is_derived_is_one_commit(
    catalog: Catalog, keyed: TableOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run that died has left of it, the changes of the next one need not touch."""
    monkeypatch.setattr(writer, "PIECE_ROWS", 1)
    write_table(catalog, TABLE, WriteRequest(rows=things((1, 0, "old")), mode="merge"), keyed)

    def dying() -> Iterator[pa.RecordBatch]:
        for key in range(4):
            yield from things((key, 1, "new")).to_arrow().to_batches()
        raise KeyboardInterrupt

    stream = pa.RecordBatchReader.from_batches(things().to_arrow().schema, dying())
    properties = {"forge.input.other.table": "9"}
    request = WriteRequest(rows=stream, mode="merge", properties=properties)
    with pytest.raises(KeyboardInterrupt):
        write_table(catalog, TABLE, request, keyed)
    assert rows(catalog)["name"].to_list() == ["old"]


def test_a_full_run_that_dies_does_not_bring_back_what_was_taken_away(
    catalog: Catalog, keyed: TableOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PIECE_ROWS", 1)
    properties = {"forge.watermark": "2024-05-03"}
    first = WriteRequest(rows=things((1, 0, "old")), mode="merge", properties=properties)
    write_table(catalog, TABLE, first, keyed)
    table = catalog.load_table(TABLE)
    begun = Position(snapshot_id=current_snapshot_id(table))
    commit(table, lambda _: Plan(), {"forge.watermark": ""})

    def dying() -> Iterator[pa.RecordBatch]:
        for key in range(4):
            yield from things((key, 1, "new")).to_arrow().to_batches()
        raise KeyboardInterrupt

    stream = pa.RecordBatchReader.from_batches(things().to_arrow().schema, dying())
    request = WriteRequest(rows=stream, mode="merge", properties=properties, continues=begun)
    with pytest.raises(KeyboardInterrupt):
        write_table(catalog, TABLE, request, keyed)
    assert rows(catalog).height > 1
    assert position(catalog.load_table(TABLE)).watermark is None


@pytest.mark.parametrize(
    ("watermark", "other", "expected"),
    [
        ("2024-05-02", "2024-05-01T23:00:00+00:00", True),
        ("2024-05-01", "2024-05-01T23:00:00+00:00", False),
        ("2024-05-01T12:00:00", "2024-05-01T13:00:00+02:00", True),
        ("1714052391200", "1714052312345", False),  # they pass for time stamps, in no order
        ("b", "b", True),
        ("", "2024-05-01", False),
    ],
)
def test_which_watermark_is_the_later_one(watermark: str, other: str, expected: bool) -> None:
    assert reaches(watermark, other) is expected


def test_a_table_without_rows_has_one_data_version(catalog: Catalog, keyed: TableOptions) -> None:
    versions: set[str] = set()
    for run_id in "abc":
        properties = {"forge.run-id": run_id}
        request = WriteRequest(rows=things(), mode="merge", properties=properties, alone=True)
        if versions:
            request = replace(request, continues=position(catalog.load_table(TABLE)))
        versions.add(write_table(catalog, TABLE, request, keyed).data_version)
    assert len(versions) == 1


def test_keys_that_are_removed_have_the_tables_key(catalog: Catalog, keyed: TableOptions) -> None:
    request = WriteRequest(
        rows=things(), mode="merge", deleted_keys=pl.DataFrame({"customer_id": [7]})
    )
    with pytest.raises(ConfigurationError, match="by customer_id, and its key is id"):
        write_table(catalog, TABLE, request, keyed)


@pytest.mark.parametrize("watermark", ["", "1"])
def test_a_run_that_began_before_the_table_takes_a_watermark_away_with_its_first_piece(
    catalog: Catalog, keyed: TableOptions, monkeypatch: pytest.MonkeyPatch, watermark: str
) -> None:
    """It dies between two pieces, and its older row lies over one of the run that was further."""
    monkeypatch.setattr(writer, "PIECE_ROWS", 1)
    latest = replace(keyed, order_by=None)

    def dying() -> Iterator[pa.RecordBatch]:
        properties = {"forge.watermark": "2"}
        request = WriteRequest(rows=things((1, 2, "new")), mode="merge", properties=properties)
        write_table(catalog, TABLE, request, latest)
        yield from things((1, 1, "old")).to_arrow().to_batches()
        yield from things((2, 1, "old")).to_arrow().to_batches()
        raise KeyboardInterrupt

    stream = pa.RecordBatchReader.from_batches(things().to_arrow().schema, dying())
    request = WriteRequest(rows=stream, mode="merge", properties={"forge.watermark": watermark})
    with pytest.raises(KeyboardInterrupt):
        write_table(catalog, TABLE, request, latest)
    assert rows(catalog)["name"].to_list() == ["old"]
    assert "forge.watermark" not in state(catalog.load_table(TABLE))


def test_another_run_is_noticed_though_its_snapshot_is_kept_no_more(
    catalog: Catalog, keyed: TableOptions
) -> None:
    """As on Nessie, which shows the newest snapshot only: that of a compaction."""

    def load(name: str, run: str, since: int | None) -> None:
        request = WriteRequest(
            rows=things((1, 0, name)),
            mode="merge",
            properties={"forge.run-id": run},
            continues=Position(snapshot_id=since),
            alone=True,
        )
        write_table(catalog, TABLE, request, replace(keyed, order_by=None))

    load("first", "a", None)
    table = catalog.load_table(TABLE)
    begun = current_snapshot_id(table)
    load("new", "b", begun)
    commit(table, lambda _: Plan(), {}, always=True)
    expire(table, older_than=dt.datetime.max.replace(tzinfo=dt.UTC), keep=1)
    with pytest.raises(CommitConflict, match="written by another run"):
        load("old", "c", begun)
    assert rows(catalog)["name"].to_list() == ["new"]
    load("newest", "c", current_snapshot_id(catalog.load_table(TABLE)))
    assert rows(catalog)["name"].to_list() == ["newest"]


def test_an_append_whose_retry_was_faster_is_not_done_twice(catalog: Catalog) -> None:
    frame = things((1, 0, "a"))
    properties = {"forge.write-id": "this run"}
    write_table(catalog, TABLE, WriteRequest(rows=things((0, 0, "z")), mode="append"), LOG)

    def slow() -> Iterator[pa.RecordBatch]:
        request = WriteRequest(rows=frame, mode="append", properties=properties)
        write_table(catalog, TABLE, request, LOG)
        yield from frame.to_arrow().to_batches()

    stream = pa.RecordBatchReader.from_batches(frame.to_arrow().schema, slow())
    request = WriteRequest(rows=stream, mode="append", properties=properties)
    result = write_table(catalog, TABLE, request, LOG)
    assert not result.committed
    assert result.snapshot_id == current_snapshot_id(catalog.load_table(TABLE))
    assert rows(catalog)["id"].to_list() == [0, 1]


def test_texts_beyond_what_statistics_hold_are_found(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet has no bounds for a row group with such a text, and the file's must not look so."""
    monkeypatch.setattr(writer, "ROW_GROUP_ROWS", 2)
    by_name = TableOptions(key=("name",))
    names = ["a", "b", "m", "z" * 5000, "c", "d"]
    first = pl.DataFrame({"name": names, "number": range(6)})
    write_table(catalog, TABLE, WriteRequest(rows=first, mode="merge"), by_name)
    second = pl.DataFrame({"name": names[2:4], "number": [20, 30]})
    result = write_table(catalog, TABLE, WriteRequest(rows=second, mode="merge"), by_name)
    assert (result.inserted, result.updated) == (0, 2)
    view = IcebergView(table := catalog.load_table(TABLE), TABLE, current_snapshot_id(table))
    assert view.scan().filter(pl.col("name") == "m").collect()["number"].to_list() == [20]


def test_wide_rows_end_row_groups_and_pieces_sooner(
    catalog: Catalog, keyed: TableOptions, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PIECE_BYTES", 4_000)
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", 1_000)
    wide = things(*((number, 0, "x" * 900) for number in range(8)))
    batches = [batch for row in wide.iter_slices(1) for batch in row.to_arrow().to_batches()]
    stream = pa.RecordBatchReader.from_batches(wide.to_arrow().schema, batches)
    write_table(catalog, TABLE, WriteRequest(rows=stream, mode="merge"), keyed)
    table = catalog.load_table(TABLE)
    assert len(table.metadata.snapshots) == (1 if place == REST else 2)  # Nessie shows one
    tasks = files(table, current_snapshot_id(table)).values()
    assert all(len(task.file.split_offsets or ()) > 1 for task in tasks)
    assert_frame_equal(rows(catalog), wide)


def test_a_stream_into_partitions_is_written_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = local_catalog(tmp_path)
    monkeypatch.setattr(writer, "PIECE_ROWS", 2)
    days = [things((number, number % 2 * 1440, "a")) for number in range(6)]
    written: list[int] = []

    def reading() -> Iterator[pa.RecordBatch]:
        for day in days:
            yield from day.to_arrow().to_batches()
            written.append(len(list(tmp_path.rglob("*.parquet"))))

    stream = pa.RecordBatchReader.from_batches(days[0].to_arrow().schema, reading())
    by_day = TableOptions(partition_by="at", granularity="day")
    write_table(catalog, TABLE, WriteRequest(rows=stream, mode="append"), by_day)
    assert written == [0, 0, 2, 2, 4, 4]
    assert len(catalog.load_table(TABLE).metadata.snapshots) == 1
    assert_frame_equal(rows(catalog), pl.concat(days))


@pytest.mark.parametrize("kind", [FILES], indirect=True)
@pytest.mark.parametrize(
    "keys",
    [
        pl.Series([1, 2], dtype=pl.Int32),
        pl.Series([1.5, 2.5]),
        pl.Series(["a", "b"]),
        pl.Series([b"a", b"b"]),
        pl.Series([True, False]),
        pl.Series([Decimal("1.10"), Decimal("2.20")], dtype=pl.Decimal(12, 2)),
        pl.Series([dt.date(2024, 1, 1), dt.date(2024, 1, 2)]),
        pl.Series([dt.time(1, 2), dt.time(3, 4)]),
        pl.Series([at(0), at(1)], dtype=pl.Datetime("us", "UTC")),
    ],
    ids=lambda keys: str(keys.dtype),
)
def test_merging_the_same_again_changes_nothing_whatever_the_key(
    catalog: Catalog, keys: pl.Series
) -> None:
    request = WriteRequest(rows=pl.DataFrame({"id": keys, "x": [1, 2]}), mode="merge")
    write_table(catalog, TABLE, request, TableOptions(key=("id",)))
    again = write_table(catalog, TABLE, request, TableOptions(key=("id",)))
    assert (again.inserted, again.unchanged, again.committed) == (0, 2, False)


def test_a_change_of_the_sign_of_zero_is_a_change(catalog: Catalog) -> None:
    options = TableOptions(key=("id",))
    nan, old, new = float("nan"), 0.0, -0.0
    for value, changed in ((old, 0), (new, 1), (new, 0)):
        frame = pl.DataFrame({"id": [1, 2], "x": [value, nan]})
        done = write_table(catalog, TABLE, WriteRequest(rows=frame, mode="merge"), options)
        assert done.updated == changed
    (sign, _) = (math.copysign(1, x) for x in rows(catalog).sort("id")["x"])
    assert sign == -1


def test_rows_without_a_partition_value_stay_when_another_is_replaced(catalog: Catalog) -> None:
    options = TableOptions(partition_by="region")
    regions = pl.DataFrame({"region": ["a", None, "b"]})
    write_table(catalog, TABLE, WriteRequest(rows=regions, mode="append"), options)
    scope = Scope("region", values=("a",))
    request = WriteRequest(rows=regions.head(1), mode="append", scope=scope)
    write_table(catalog, TABLE, request, options)
    found = IcebergView(catalog.load_table(TABLE), TABLE, _snapshot(catalog)).read()
    assert sorted(found["region"].fill_null("-")) == ["-", "a", "b"]
    request = WriteRequest(rows=regions.head(2), mode="append", scope=scope)
    with pytest.raises(PermanentError, match="1 of 2 rows"):
        write_table(catalog, TABLE, request, options)


def test_null_counts_of_an_added_column_count_the_older_rows(
    catalog: Catalog, keyed: TableOptions
) -> None:
    first = WriteRequest(rows=things((1, 0, "a"), (2, 0, "b")), mode="merge")
    write_table(catalog, TABLE, first, keyed)
    wider = things((3, 0, "c")).with_columns(extra=pl.lit(7, pl.Int64))
    write_table(catalog, TABLE, WriteRequest(rows=wider, mode="merge"), keyed)
    view = IcebergView(catalog.load_table(TABLE), TABLE, _snapshot(catalog))
    assert describe(view, with_sample=True)["null_counts"].value["extra"] == 2


def test_a_table_that_several_writers_create_at_once_has_all_rows(
    catalog: Catalog, place: str, keyed: TableOptions
) -> None:
    if place == REST:
        pytest.xfail("Nessie 0.99 takes two first snapshots, though the second asserts none")

    def create(worker: int) -> None:
        request = WriteRequest(rows=things((worker, 0, "a")), mode="merge")
        write_table(catalog, TABLE, request, keyed)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(4)))
    assert rows(catalog)["id"].to_list() == [0, 1, 2, 3]


def _snapshot(catalog: Catalog) -> int | None:
    return current_snapshot_id(catalog.load_table(TABLE))


@also_on_read
def test_random_merges_agree_with_a_dictionary(catalog: Catalog, keyed: TableOptions) -> None:
    generator = random.Random(7)
    model: dict[int, tuple[int, str]] = {}
    with_deletes = 0
    for step in range(7):
        batch = [
            (generator.randrange(200), step, generator.choice("abc"))
            for _ in range(generator.randrange(40))
        ]
        deleted = [generator.randrange(200) for _ in range(5)]
        request = WriteRequest(
            rows=things(*batch), mode="merge", deleted_keys=pl.DataFrame({"id": deleted})
        )
        write_table(catalog, TABLE, request, keyed)
        for key in deleted:
            model.pop(key, None)
        model.update({key: (minute, name) for key, minute, name in batch})
        tasks = files(catalog.load_table(TABLE), _snapshot(catalog)).values()
        with_deletes += any(task.delete_files for task in tasks)
    expected = things(*((key, *value) for key, value in sorted(model.items())))
    assert_frame_equal(rows(catalog), expected)
    assert (with_deletes > 0) == keyed.on_read


def test_decimals_and_nested_values_come_back(catalog: Catalog) -> None:
    data = pa.table(
        {
            "id": pa.array([1], pa.int16()),
            "price": pa.array([Decimal("1.10")], pa.decimal128(12, 2)),
            "tags": pa.array([["a", "b"]], pa.large_list(pa.large_string())),
        }
    )
    request = WriteRequest(rows=data, mode="append")
    write_table(catalog, TABLE, request, TableOptions())
    assert rows(catalog).to_dicts() == [{"id": 1, "price": Decimal("1.10"), "tags": ["a", "b"]}]


AWKWARD = pl.Schema(
    {
        "tenant": pl.String(),
        "number": pl.Int64(),
        "text": pl.String(),
        "lines": pl.List(pl.Struct({"sku": pl.String, "price": pl.Decimal(12, 2)})),
        "address": pl.Struct({"city": pl.String, "codes": pl.List(pl.Int32)}),
    }
)


def awkward(generator: random.Random, tenant: str, number: int) -> dict[str, object]:
    """Nested values with NULLs at every depth, and now and then a text of a megabyte."""
    lines = [
        generator.choice([None, {"sku": f"s{n}", "price": generator.choice([None, Decimal(n)])}])
        for n in range(generator.randrange(3))
    ]
    address = {"city": generator.choice(["Köln", None]), "codes": [None, number % 7]}
    size = generator.choice([0, 1, 10, 1_000_000] if generator.random() < 0.02 else [0, 1, 10])
    return {
        "tenant": tenant,
        "number": number,
        "text": generator.choice([None, "x" * size]),
        "lines": generator.choice([None, lines]),
        "address": generator.choice([None, address]),
    }


def test_nested_rows_with_a_skewed_composite_key_agree_with_a_dictionary(
    catalog: Catalog, keyed: TableOptions
) -> None:
    """One tenant has nine rows of ten; most keys of a batch are new, some come twice."""
    generator = random.Random(11)
    options = replace(keyed, key=("tenant", "number"), order_by=None)
    model: dict[tuple[str, int], dict[str, object]] = {}
    for _ in range(4):
        batch = []
        for _ in range(500):
            tenant = "large" if generator.random() < 0.9 else f"small{generator.randrange(50)}"
            number = generator.randrange(10**9 if generator.random() < 0.5 else 300)
            batch.append(awkward(generator, tenant, number))
        request = WriteRequest(rows=pl.DataFrame(batch, schema=AWKWARD), mode="merge")
        result = write_table(catalog, TABLE, request, options)
        new = {(str(row["tenant"]), int(str(row["number"]))): row for row in batch}
        assert result.inserted == len(new.keys() - model.keys())
        assert not write_table(catalog, TABLE, request, options).committed
        model |= new
    expected = pl.DataFrame(list(model.values()), schema=AWKWARD).sort("tenant", "number")
    view = IcebergView(catalog.load_table(TABLE), TABLE, _snapshot(catalog))
    assert_frame_equal(view.read().sort("tenant", "number"), expected)
    streamed = pl.DataFrame(pl.from_arrow(view.batches().read_all()))
    assert_frame_equal(streamed.sort("tenant", "number"), expected)
    whole = Compaction(small_bytes=10**9, group_bytes=10**9, min_files=1, deleted_fraction=0)
    compact(view.table, whole)
    view = IcebergView(catalog.load_table(TABLE), TABLE, _snapshot(catalog))
    assert len(view.tasks()) == 1
    assert_frame_equal(view.read().sort("tenant", "number"), expected)


def test_merge_on_read_leaves_the_files_that_hold_old_rows(tmp_path: Path) -> None:
    catalog = open_catalog(f"sqlite:///{tmp_path}/catalog.db", f"file://{tmp_path}/tables", {})
    options = replace(KEYED, on_read=True)
    first = things(*((key, 0, "old") for key in range(1000)))
    write_table(catalog, TABLE, WriteRequest(rows=first, mode="merge"), options)
    before = set(files(catalog.load_table(TABLE), _snapshot(catalog)))
    second = WriteRequest(rows=things((5, 1, "new"), (2000, 1, "new")), mode="merge")
    write_table(catalog, TABLE, second, options)
    third = WriteRequest(
        rows=things((6, 2, "new")), mode="merge", deleted_keys=pl.DataFrame({"id": [7]})
    )
    write_table(catalog, TABLE, third, options)
    table = catalog.load_table(TABLE)
    tasks = files(table, _snapshot(catalog))
    assert before < set(tasks)
    [old] = [tasks[path] for path in before]
    assert live_rows(old) == 1000 - 3
    view = IcebergView(table, TABLE, _snapshot(catalog))
    assert describe(view, with_sample=True)["dagster/row_count"].value == 1000
    assert view.head(10).height == 10
    # The rows that are left fit no longer into half of the file: it is written anew.
    last = WriteRequest(rows=things(*((key, 3, "newest") for key in range(600))), mode="merge")
    write_table(catalog, TABLE, last, options)
    table = catalog.load_table(TABLE)
    assert before.isdisjoint(files(table, _snapshot(catalog)))
    summary = table.current_snapshot().summary  # type: ignore[union-attr]
    assert summary is not None
    assert summary["total-position-deletes"] == "0"
    assert summary["total-delete-files"] == "0"
    expected = {key: "newest" if key < 600 else "old" for key in range(1000)}
    assert dict(rows(catalog).select("id", "name").rows()) == {**expected, 2000: "new"}


@also_on_read
def test_a_commit_that_landed_and_is_said_to_have_failed_is_kept(
    catalog: Catalog, keyed: TableOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that got no answer asks again, and is told that somebody else was first."""
    write_table(catalog, TABLE, WriteRequest(rows=things((1, 0, "a")), mode="merge"), keyed)
    accept = type(catalog).commit_table
    lost = ["answer"]

    def commit_table(catalog: Catalog, *change: Any) -> Any:
        answer = accept(catalog, *change)
        if lost:
            raise CommitFailedException(lost.pop())
        return answer

    monkeypatch.setattr(type(catalog), "commit_table", commit_table)
    second = WriteRequest(rows=things((1, 1, "b"), (2, 1, "c")), mode="merge")
    result = write_table(catalog, TABLE, second, keyed)
    assert not lost
    assert (result.inserted, result.updated) == (1, 1)
    assert_frame_equal(rows(catalog), things((1, 1, "b"), (2, 1, "c")))


def test_changes_of_a_table_without_a_key_count_equal_rows(catalog: Catalog) -> None:
    def numbers(*values: int) -> WriteRequest:
        return WriteRequest(rows=pl.DataFrame({"n": values}), mode="overwrite")

    for before, after, came, went in (
        ((5,), (5, 5), [5], []),
        ((5, 5), (5,), [], [5]),
        ((5, 5), (5, 7), [7], [5]),
        ((1, 1, 2), (2, 2), [2], [1, 1]),
    ):
        write_table(catalog, TABLE, numbers(*before), TableOptions())
        since = _snapshot(catalog)
        write_table(catalog, TABLE, numbers(*after), TableOptions())
        view = IcebergView(catalog.load_table(TABLE), TABLE, _snapshot(catalog))
        changes = view.changes_since(since)
        if changes.complete:  # Nessie shows no earlier snapshot
            continue
        assert (changes.rows["n"].to_list(), changes.removed["n"].to_list()) == (came, went)


def test_a_row_without_an_order_is_older_than_one_that_has_it(
    catalog: Catalog, keyed: TableOptions
) -> None:
    write_table(catalog, TABLE, WriteRequest(rows=things((1, 0, "known")), mode="merge"), keyed)
    late = things((1, 0, "late")).with_columns(at=pl.lit(None, pl.Datetime("us", "UTC")))
    write_table(catalog, TABLE, WriteRequest(rows=late, mode="merge"), keyed)
    assert rows(catalog)["name"].to_list() == ["known"]


def test_what_replaces_everything_does_so_whatever_its_order(
    catalog: Catalog, keyed: TableOptions
) -> None:
    write_table(catalog, TABLE, WriteRequest(rows=things((1, 9, "wrong")), mode="merge"), keyed)
    right = things((1, 0, "right"))
    write_table(catalog, TABLE, WriteRequest(rows=right, mode="overwrite"), keyed)
    assert_frame_equal(rows(catalog), right)


def test_null_in_a_key_is_refused_in_a_stream_that_replaces_everything(
    catalog: Catalog, keyed: TableOptions
) -> None:
    stream = things((1, 0, "a"), (None, 0, "b")).to_arrow().to_reader()
    with pytest.raises(PermanentError, match="1 of 2 rows have no id"):
        write_table(catalog, TABLE, WriteRequest(rows=stream, mode="overwrite"), keyed)
    assert _snapshot(catalog) is None


def test_keys_in_another_unit_of_time_delete_their_rows(catalog: Catalog) -> None:
    frame = pl.DataFrame({"at": [at(0), at(1)]}, schema={"at": pl.Datetime("us", "UTC")})
    write_table(catalog, TABLE, WriteRequest(rows=frame, mode="append"), TableOptions())
    keys = frame.head(1).cast(pl.Datetime("ms", "UTC"))
    request = WriteRequest(rows=frame.clear(), mode="merge", deleted_keys=keys)
    write_table(catalog, TABLE, request, TableOptions())
    found = IcebergView(catalog.load_table(TABLE), TABLE, _snapshot(catalog)).read()
    assert found["at"].to_list() == [at(1)]


def test_maps_uuids_and_nan_keys_come_back_once(catalog: Catalog) -> None:
    data = pa.table(
        {
            "id": pa.array([float("nan"), 1.0]),
            "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
            "uuid": pa.array([b"0" * 16, None], pa.uuid()),
        }
    )
    for _ in range(2):
        write_table(
            catalog, TABLE, WriteRequest(rows=data, mode="merge"), TableOptions(key=("id",))
        )
    table = catalog.load_table(TABLE)
    found = pa.Table.from_batches(stream_files(table, files(table, _snapshot(catalog)).values()))
    assert found.num_rows == 2
    assert sorted(map(str, found["map"].to_pylist())) == ["None", "[('a', 1)]"]
