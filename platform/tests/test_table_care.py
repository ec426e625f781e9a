"""Compaction, expiry and orphans on real catalogs and stores, beside writers."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from catalogs import FILES, REST, S3, SLOWER, catalog_at, local_catalog
from polars.testing import assert_frame_equal
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from forge_platform.errors import ConfigurationError
from forge_platform.iceberg.commit import commit
from forge_platform.iceberg.history import stretches
from forge_platform.iceberg.maintenance import expiry, orphans
from forge_platform.iceberg.maintenance.care import Neighbours, care
from forge_platform.iceberg.maintenance.compaction import Compaction, _Rewrite, compact, groups
from forge_platform.iceberg.maintenance.expiry import expire, trim_metadata
from forge_platform.iceberg.maintenance.orphans import _listed, _store, remove_orphans
from forge_platform.iceberg.maintenance.reachable import reachable
from forge_platform.iceberg.state import data_version, state
from forge_platform.iceberg.view import IcebergView, current_snapshot_id, files
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table
from forge_platform.maintenance import CareOptions, options_of, table_care
from forge_platform.resources.iceberg import IcebergResource
from forge_platform.tables import Changes, WriteMode

TABLE = "space.things"
DOWNSTREAM = "space.derived"
KEYED = TableOptions(key=("id",))
DAILY = TableOptions(key=("id",), partition_by="day", granularity="day")
ON_READ = TableOptions(key=("id",), on_read=True)
LOG = TableOptions()
RULE = Compaction(
    small_bytes=1 << 20, group_bytes=1 << 20, min_files=2, deleted_fraction=0.1, sort_by=("id",)
)
NOBODY = Neighbours({}, {})
LATER = dt.datetime.now(dt.UTC) + dt.timedelta(days=30)


@pytest.fixture(params=[FILES, S3, REST, SLOWER])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def catalog(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> Catalog:
    return catalog_at(place, request, tmp_path)


@pytest.fixture(params=[FILES, S3, SLOWER])
def with_history(request: pytest.FixtureRequest, tmp_path: Path) -> Catalog:
    """A catalog that shows the earlier snapshots of a table, and leaves its files to it."""
    return catalog_at(str(request.param), request, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Catalog:
    return local_catalog(tmp_path)


def things(first: int, last: int, name: str = "a") -> pl.DataFrame:
    days = [dt.date(2024, 1, 1 + number % 3) for number in range(first, last)]
    return pl.DataFrame({"id": range(first, last), "name": name, "day": days})


def add(
    catalog: Catalog, rows: pl.DataFrame, options: TableOptions = LOG, **properties: str
) -> None:
    names = {f"forge.{name.replace('_', '-')}": value for name, value in properties.items()}
    mode: WriteMode = "merge" if options.key else "append"
    write_table(catalog, TABLE, WriteRequest(rows=rows, mode=mode, properties=names), options)


def add_many(catalog: Catalog, commits: int, options: TableOptions = LOG) -> Table:
    for number in range(commits):
        add(catalog, things(number * 10, number * 10 + 10), options, watermark=str(number))
    return catalog.load_table(TABLE)


def rows(table: Table, snapshot_id: int | None = None) -> pl.DataFrame:
    table.refresh()
    return IcebergView(table, TABLE, snapshot_id or current_snapshot_id(table)).read().sort("id")


def data_files(table: Table) -> int:
    return len(files(table.refresh(), current_snapshot_id(table)))


def test_compaction_keeps_rows_version_watermark_and_changes(catalog: Catalog, place: str) -> None:
    table = add_many(catalog, 6)
    start, before, version = current_snapshot_id(table), rows(table), data_version(table)
    done = compact(table, RULE)
    assert (done.commits, done.rewritten, done.written, data_files(table)) == (1, 6, 1, 1)
    assert_frame_equal(rows(table), before)
    assert data_version(table) == version
    assert state(table)["forge.watermark"] == "5"

    if place == REST:  # Nessie shows no snapshot but the newest one
        return
    add(catalog, things(100, 103), watermark="6")
    changes = IcebergView(table.refresh(), TABLE, current_snapshot_id(table)).changes_since(start)
    assert_frame_equal(changes.rows.sort("id"), things(100, 103))
    assert changes.removed.is_empty()
    assert not changes.complete


def changes_since(table: Table, snapshot_id: int | None) -> Changes:
    return IcebergView(table.refresh(), TABLE, current_snapshot_id(table)).changes_since(
        snapshot_id
    )


def test_changes_leave_out_what_was_only_written_anew(local: Catalog) -> None:
    table = add_many(local, 4, KEYED)
    start = current_snapshot_id(table)
    compact(table, RULE)
    compacted = current_snapshot_id(table.refresh())
    assert start
    assert compacted
    assert stretches(table, start, compacted) == []
    nothing = changes_since(table, start)
    assert (nothing.rows.height, nothing.removed.height, nothing.complete) == (0, 0, False)

    for number, name in enumerate("bab"):  # there and back, with a compaction after each
        add(local, things(0, 1, name), KEYED)
        add(local, things(70 + number, 71 + number, name))
        assert compact(table, RULE).commits == 1
    add(local, things(70, 71, "c"), KEYED)
    assert len(stretches(table.refresh(), start, current_snapshot_id(table) or 0)) == 4
    found = changes_since(table, start)
    new = (things(70, 71, "c"), things(71, 72, "a"), things(72, 73, "b"))
    expected = pl.concat([things(0, 1, "b"), *new])
    assert_frame_equal(found.rows.sort("id"), expected)
    assert_frame_equal(found.removed, things(0, 1))
    # The same as a comparison of the two whole states.
    before, after = rows(table, start), rows(table)
    everything = before.columns
    assert_frame_equal(
        found.rows.sort("id"), after.join(before, on=everything, how="anti").sort("id")
    )


def test_a_commit_of_another_engine_is_always_compared(local: Catalog) -> None:
    table = add_many(local, 2)
    start = current_snapshot_id(table)
    table.overwrite(things(5, 6).to_arrow().cast(table.schema().as_arrow()))
    found = changes_since(table, start)
    assert (found.rows.height, found.removed.height) == (0, 19)


def test_nothing_to_compact_writes_no_snapshot(local: Catalog) -> None:
    table = add_many(local, 3)
    assert compact(table, RULE).commits == 1
    snapshot = current_snapshot_id(table.refresh())
    assert compact(table, RULE).commits == 0
    assert current_snapshot_id(table.refresh()) == snapshot


def test_compaction_sorts_within_partitions_and_keeps_them(local: Catalog) -> None:
    add(local, things(20, 40), DAILY)
    add(local, things(0, 20), DAILY)
    table = local.load_table(TABLE)
    before = rows(table)
    assert compact(table, RULE).written == 3
    assert_frame_equal(rows(table), before)
    for path in files(table, current_snapshot_id(table)):
        ids = pl.read_parquet(path.removeprefix("file://"))["id"]
        assert ids.is_sorted()
        assert ids.len() in {13, 14}


def test_groups_are_bounded_and_unsorted_rows_are_streamed(local: Catalog) -> None:
    table = add_many(local, 8)
    size = next(iter(files(table, current_snapshot_id(table)).values())).file.file_size_in_bytes
    rule = Compaction(
        small_bytes=1 << 20, group_bytes=size * 4 + 4, min_files=2, deleted_fraction=0.1
    )
    assert [len(group) for group in groups(table, rule)] == [4, 4]
    before = rows(table)
    done = compact(table, rule)
    assert (done.rewritten, done.written) == (8, 2)
    assert_frame_equal(rows(table), before)


def test_files_of_the_writers_full_size_are_not_small(local: Catalog) -> None:
    full = pl.DataFrame({"id": pl.repeat(1, 9_000_000, dtype=pl.Int64, eager=True)})
    for _ in range(2):
        write_table(local, TABLE, WriteRequest(rows=full, mode="append"), LOG)
    assert groups(local.load_table(TABLE), RULE) == []


def test_compaction_beside_a_writer_loses_nothing(catalog: Catalog) -> None:
    table = add_many(catalog, 6, KEYED)
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        while not stop.is_set() and len(written) < 20:
            number = len(written)
            add(catalog, things(number, number + 1, "new"), KEYED, watermark=f"w{number}")
            written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            compact(table, RULE)
    finally:
        stop.set()
        writer.join()
    compact(table, RULE)
    names = [("new" if number < len(written) else "a") for number in range(60)]
    assert rows(table)["name"].to_list() == names
    assert state(table)["forge.watermark"] == f"w{written[-1]}"
    assert_no_loss_of_files(table)


def assert_no_loss_of_files(table: Table) -> None:
    """Everything that the metadata refers to is there."""
    for path in reachable(table.refresh()):
        assert table.io.new_input(path).exists(), path


def test_a_rewrite_is_written_again_only_when_its_files_changed(
    local: Catalog, tmp_path: Path
) -> None:
    table = add_many(local, 4, KEYED)
    rewrite = _Rewrite(groups(table, RULE), RULE)
    first = rewrite.plan(table)
    add(local, things(500, 510), KEYED)
    assert rewrite.plan(table.refresh()) is first
    add(local, things(0, 1, "new"), KEYED)
    second = rewrite.plan(table.refresh())
    assert len(second.removed) == 3
    rewrite.discard(table.io)
    used = {path.removeprefix("file://") for path in reachable(table)}
    assert {str(path) for path in (tmp_path / "tables").rglob("*.parquet")} <= used


def delete_files(table: Table) -> set[str]:
    tasks = files(table.refresh(), current_snapshot_id(table)).values()
    return {file.file_path for task in tasks for file in task.delete_files}


def test_files_of_which_much_is_deleted_are_written_anew(with_history: Catalog) -> None:
    add(with_history, things(0, 1000), KEYED)
    add(with_history, things(100, 150, "b"), ON_READ)
    table = with_history.load_table(TABLE)
    few = Compaction(small_bytes=1, group_bytes=1 << 20, min_files=2, deleted_fraction=0.1)
    assert len(delete_files(table)) == 1
    assert compact(table, few).commits == 0
    assert compact(table, replace(few, most_delete_files=0)).commits == 1
    assert delete_files(table) == set()

    add(with_history, things(300, 450, "c"), ON_READ)
    before, (gone,) = rows(table), delete_files(table)
    done = compact(table, few)
    assert (done.rewritten, done.written) == (1, 1)
    assert delete_files(table) == set()
    assert_frame_equal(rows(table), before)
    assert before.height == 1000

    assert table.io.new_input(gone).exists()
    expire(table, older_than=LATER, keep=1)
    assert not table.io.new_input(gone).exists()
    assert remove_orphans(table, older_than=LATER, others=()).files == 0
    assert_no_loss_of_files(table)
    assert_frame_equal(rows(table), before)


def test_deletes_that_come_while_files_are_rewritten_are_not_lost(local: Catalog) -> None:
    add(local, things(0, 100))
    add(local, things(100, 200))
    table = local.load_table(TABLE)
    rewrite = _Rewrite(groups(table, RULE), RULE)
    rewrite.plan(table)
    add(local, things(50, 60, "new"), ON_READ)
    assert delete_files(table)
    commit(table, rewrite.plan, {})
    assert rows(table)["name"].to_list() == ["a"] * 50 + ["new"] * 10 + ["a"] * 140
    assert delete_files(table) == set()


def test_expiry_keeps_what_others_rely_on(with_history: Catalog) -> None:
    table = add_many(with_history, 8, KEYED)
    ids = [snapshot.snapshot_id for snapshot in table.metadata.snapshots]
    tagged, read_downstream = ids[1], ids[3]
    with table.manage_snapshots() as manage:
        manage.create_tag(tagged, "audit")
    old = rows(table, tagged)
    inputs = {f"forge.input.{TABLE}": str(read_downstream)}
    request = WriteRequest(rows=things(0, 1), mode="append", properties=inputs)
    write_table(with_history, DOWNSTREAM, request, LOG)

    needed = Neighbours.of(with_history).inputs[TABLE]
    done = expire(table, older_than=LATER, keep=2, needed=needed)
    assert done.snapshots == 4
    left = {snapshot.snapshot_id for snapshot in table.refresh().metadata.snapshots}
    assert left == {tagged, read_downstream, *ids[-2:]}
    assert_frame_equal(rows(table, tagged), old)
    assert rows(table).height == 80
    assert state(table)["forge.watermark"] == "7"
    assert_no_loss_of_files(table)
    view = IcebergView(table, TABLE, current_snapshot_id(table))
    assert not view.changes_since(read_downstream).complete
    assert view.changes_since(ids[2]).complete


def test_a_tag_that_is_made_while_expiry_looks_is_kept(
    local: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = add_many(local, 4)
    first = table.metadata.snapshots[0].snapshot_id
    look = expiry._last_of_history

    def tagging(looked_at: Table, keep: int) -> Iterator[int]:
        with local.load_table(TABLE).manage_snapshots() as manage:
            manage.create_tag(first, "audit")
        monkeypatch.setattr(expiry, "_last_of_history", look)
        yield from look(looked_at, keep)

    monkeypatch.setattr(expiry, "_last_of_history", tagging)
    assert expire(table, older_than=LATER, keep=1).snapshots == 2
    assert set(table.metadata.refs) == {"main", "audit"}
    assert rows(table, first).height == 10


def test_young_snapshots_stay(local: Catalog) -> None:
    table = add_many(local, 4)
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    assert expire(table, older_than=moment, keep=1).snapshots == 0


def test_expiry_keeps_the_watermark_below_another_engines_snapshots(local: Catalog) -> None:
    table = add_many(local, 3)
    for _ in range(3):
        table.append(things(900, 901).to_arrow().cast(table.schema().as_arrow()))
    assert expire(table, older_than=LATER, keep=1).snapshots == 2
    assert state(table.refresh())["forge.watermark"] == "2"


def test_expired_files_are_gone_and_only_those(local: Catalog, tmp_path: Path) -> None:
    table = add_many(local, 6)
    compact(table, RULE)
    done = expire(table, older_than=LATER, keep=1)
    assert done.snapshots == 6
    used = {path.removeprefix("file://") for path in reachable(table)}
    found = {
        str(path)
        for path in (tmp_path / "tables").rglob("*")
        if path.suffix in {".parquet", ".avro"}
    }
    assert found == {path for path in used if not path.endswith(".json")}


def test_orphans_go_when_they_are_old(with_history: Catalog) -> None:
    table = add_many(with_history, 3)
    orphan = f"{table.location()}/data/left-behind.parquet"
    with table.io.new_output(orphan).create() as file:
        file.write(b"nobody knows me")
    grace = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
    assert remove_orphans(table, older_than=grace, others=()).files == 0
    done = remove_orphans(table, older_than=LATER, others=())
    assert (done.files, done.bytes) == (1, 15)
    assert not table.io.new_input(orphan).exists()
    assert rows(table).height == 30
    assert_no_loss_of_files(table)


def test_what_is_committed_while_orphans_are_looked_for_stays(
    local: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are old enough: only listing them before the metadata are read saves them."""
    table = add_many(local, 3)

    def listed(*where: Any) -> Any:
        add(local, things(30, 40))
        return _listed(*where)

    monkeypatch.setattr(orphans, "_listed", listed)
    assert remove_orphans(table, older_than=LATER, others=()).files == 0
    assert rows(table).height == 40
    assert_no_loss_of_files(table)


@pytest.mark.parametrize("place", [REST], indirect=True)
def test_nothing_is_removed_that_a_catalogs_own_history_may_need(catalog: Catalog) -> None:
    table = add_many(catalog, 6, KEYED)
    before = stored(table)
    done = care(table, TABLE, CareOptions(keep_days=0), neighbours=NOBODY, now=LATER)
    assert (done["gc_enabled"], done["files_written"]) == (0, 1)
    assert before < stored(table)
    assert rows(table).height == 60


def test_nothing_is_removed_where_the_table_forbids_it(local: Catalog) -> None:
    table = add_many(local, 6, KEYED)
    with table.transaction() as transaction:
        transaction.set_properties({"gc.enabled": "false"})
    before = stored(table)
    care(table, TABLE, CareOptions(keep_days=0), neighbours=NOBODY, now=LATER)
    assert before < stored(table)
    assert len(table.refresh().metadata.snapshots) == 7


def stored(table: Table) -> set[str]:
    """The data files and manifests in the table's store."""
    store, base = _store(table)
    return {info.path for info in _listed(store, base) if not info.path.endswith(".json")}


def test_orphans_are_left_where_another_table_lives(local: Catalog) -> None:
    table = add_many(local, 1)
    with pytest.raises(ConfigurationError, match="also holds the table"):
        remove_orphans(table, older_than=LATER, others=[f"{table.location()}/inner"])
    remove_orphans(table, older_than=LATER, others=[f"{table.location()}_care"])


def test_old_metadata_files_go_with_the_commits(with_history: Catalog) -> None:
    table = add_many(with_history, 2)
    trim_metadata(table, 3)
    first = table.metadata_location
    add_many(with_history, 6)
    assert len(table.refresh().metadata.metadata_log) == 3
    assert not table.io.new_input(first).exists()
    assert_no_loss_of_files(table)


def test_care_of_an_asset_is_in_its_metadata(tmp_path: Path) -> None:
    iceberg = IcebergResource(
        catalog_uri=f"sqlite:///{tmp_path}/catalog.db", warehouse_path=f"file://{tmp_path}/tables"
    )
    table = add_many(iceberg.catalog(), 6, KEYED)
    age(tmp_path, days=10)
    options = CareOptions(keep_days=0, keep_snapshots=1)

    @dg.asset(metadata={"forge/write_mode": "merge", "forge/key": "id", **options.metadata()})
    def things() -> None: ...

    found = table_care("space", [things])
    result = dg.materialize(found.assets, resources={"iceberg": iceberg})
    (event,) = result.asset_materializations_for_node("things_care")
    numbers: dict[str, Any] = {name: value.value for name, value in event.metadata.items()}
    assert (numbers["files_before"], numbers["files_after"]) == (6, 1)
    assert (numbers["snapshots_before"], numbers["snapshots_after"]) == (6, 1)
    assert numbers["snapshots_expired"] == 6
    assert numbers["orphans_removed"] == 0
    assert numbers["compaction_seconds"] >= 0
    assert rows(table).height == 60
    assert_no_loss_of_files(table)


def age(folder: Path, *, days: int) -> None:
    """Makes every file look older than it is."""
    for path in folder.rglob("*"):
        moment = path.stat().st_mtime - days * 86_400
        os.utime(path, (moment, moment))


def test_a_second_care_has_nothing_to_do(local: Catalog) -> None:
    table = add_many(local, 6, KEYED)
    options = CareOptions(keep_days=0, keep_snapshots=1)
    neighbours = Neighbours.of(local)
    care(table, TABLE, options, neighbours=neighbours, now=LATER)
    snapshot = current_snapshot_id(table.refresh())
    again = care(table, TABLE, options, neighbours=neighbours, now=LATER)
    assert current_snapshot_id(table.refresh()) == snapshot
    changed = ("files_rewritten", "snapshots_expired", "expired_files_removed", "orphans_removed")
    assert [again[name] for name in changed] == [0, 0, 0, 0]


def test_a_table_that_cannot_be_read_stops_only_what_it_may_need(
    local: Catalog, tmp_path: Path
) -> None:
    table = add_many(local, 6, KEYED)
    write_table(local, "space.broken", WriteRequest(rows=things(0, 1), mode="append"), LOG)
    for file in (tmp_path / "tables" / "space" / "broken" / "metadata").iterdir():
        file.unlink()
    options = CareOptions(keep_days=0, keep_snapshots=1)
    done = care(table, TABLE, options, neighbours=Neighbours.of(local), now=LATER)
    assert done["unreadable_tables"] == 1
    assert done["files_rewritten"] == 6
    assert done["snapshots_expired"] == 0
    local.drop_table("space.broken")
    done = care(table, TABLE, options, neighbours=Neighbours.of(local), now=LATER)
    assert done["snapshots_expired"] > 0


def test_thresholds_are_the_assets_own() -> None:
    assert options_of(CareOptions(keep_days=2).metadata()).keep_days == 2
    assert options_of({}) == CareOptions()
    with pytest.raises(ConfigurationError, match="orphan_days is 0"):
        CareOptions(orphan_days=0)
