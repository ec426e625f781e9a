"""Several processes write one table at once: every commit is kept, none is lost or doubled."""

import datetime as dt
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from itertools import count, groupby
from multiprocessing import get_context
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from forge_platform import IcebergIOManager, IcebergResource, table_options
from forge_platform.iceberg.catalog import open_catalog
from forge_platform.iceberg.history import ancestors, properties_of
from forge_platform.iceberg.maintenance.compaction import Compaction, compact
from forge_platform.iceberg.maintenance.orphans import remove_orphans
from forge_platform.iceberg.pruning import Scope
from forge_platform.iceberg.state import RUN_ID, WATERMARK, state
from forge_platform.iceberg.view import IcebergView, current_snapshot_id
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table

TABLE = "space.things"
KEYED = TableOptions(key=("id",), order_by="version")
DAILY = TableOptions(key=("id",), order_by="version", partition_by="day", granularity="day")
FIRST_DAY = dt.date(2024, 1, 1)
WRITERS = 4
DAYS = min(400, int(os.environ.get("FORGE_KILLS", "200")))
ORPHAN_AGE = dt.timedelta(seconds=30)  # longer than a commit takes
COMPACTION = Compaction(small_bytes=10**7, group_bytes=10**8, min_files=2, deleted_fraction=0)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture(params=[False, True], ids=["copy on write", "merge on read"])
def on_read(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def things(ids: list[int], version: int, day: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {"id": ids, "version": version, "day": FIRST_DAY + dt.timedelta(days=day)},
        schema={"id": pl.Int64, "version": pl.Int64, "day": pl.Date},
    )


def write(folder: str, request: WriteRequest, options: TableOptions) -> None:
    catalog = open_catalog(f"sqlite:///{folder}/catalog.db", f"file://{folder}/tables", {})
    write_table(catalog, TABLE, request, options)


def rows(folder: str) -> pl.DataFrame:
    catalog = open_catalog(f"sqlite:///{folder}/catalog.db", f"file://{folder}/tables", {})
    table = catalog.load_table(TABLE)
    return IcebergView(table, TABLE, current_snapshot_id(table)).read().sort("id")


def merge_overlapping(folder: str, writer: int, *, on_read: bool) -> None:
    """Rows that all writers have, in versions that grow with the writer, and rows of its own."""
    for step in range(5):
        version = step * WRITERS + writer
        own = range(1000 * (writer + 1), 1000 * (writer + 1) + step + 1)
        merged = pl.concat([things(list(range(200)), version), things(list(own), version)])
        options = replace(KEYED, on_read=on_read)
        properties = {WATERMARK: str(version)}
        write(folder, WriteRequest(rows=merged, mode="merge", properties=properties), options)


def compact_again_and_again(folder: str, times: int) -> None:
    catalog = open_catalog(f"sqlite:///{folder}/catalog.db", f"file://{folder}/tables", {})
    for _ in range(times):
        compact(catalog.load_table(TABLE), COMPACTION)


def remove_orphans_again_and_again(folder: str, times: int) -> None:
    catalog = open_catalog(f"sqlite:///{folder}/catalog.db", f"file://{folder}/tables", {})
    for _ in range(times):
        time.sleep(1)
        moment = dt.datetime.now(dt.UTC) - ORPHAN_AGE
        remove_orphans(catalog.load_table(TABLE), older_than=moment, others=())


def left_by_a_dead_writer(folder: str) -> Path:
    """A data file that was never committed, older than an hour."""
    file = Path(folder, "tables/space/things/data/left-behind.parquet")
    file.write_bytes(b"nobody knows me")
    os.utime(file, (time.time() - 3600,) * 2)
    return file


def processes() -> ProcessPoolExecutor:
    context = get_context("forkserver")
    context.set_forkserver_preload(["polars", "forge_platform.iceberg.write"])
    return ProcessPoolExecutor(WRITERS + 2, mp_context=context)


def test_overlapping_merges_of_several_processes(folder: str, *, on_read: bool) -> None:
    write(folder, WriteRequest(rows=things(list(range(200)), -1), mode="merge"), KEYED)
    orphan = left_by_a_dead_writer(folder)
    with processes() as pool:
        writers = [
            pool.submit(merge_overlapping, folder, n, on_read=on_read) for n in range(WRITERS)
        ]
        writers.append(pool.submit(compact_again_and_again, folder, 5))
        writers.append(pool.submit(remove_orphans_again_and_again, folder, 10))
        for writer in writers:
            writer.result()
    assert not orphan.exists()
    shared = things(list(range(200)), 4 * WRITERS + WRITERS - 1)
    own = [
        things(list(range(1000 * n, 1000 * n + 5)), 0).select("id") for n in range(1, WRITERS + 1)
    ]
    found = rows(folder)
    assert_frame_equal(found.head(200), shared)
    assert_frame_equal(found.tail(-200).select("id"), pl.concat(own))
    catalog = open_catalog(f"sqlite:///{folder}/catalog.db", f"file://{folder}/tables", {})
    assert state(catalog.load_table(TABLE))[WATERMARK] in {
        str(4 * WRITERS + n) for n in range(WRITERS)
    }


def run_partitions(folder: str, days: range, version: int, *, on_read: bool) -> None:
    options = replace(DAILY, on_read=on_read)
    for day in days:
        start = dt.datetime.combine(FIRST_DAY, dt.time(), dt.UTC) + dt.timedelta(days=day)
        scope = Scope("day", (start, start + dt.timedelta(days=1)))
        request = WriteRequest(
            rows=things(ids_of_run(day, version), version, day),
            mode="append",
            scope=scope,
            properties={RUN_ID: f"run {version} {day}"},
        )
        write(folder, request, options)


def merge_days(folder: str, days: range, version: int, *, on_read: bool) -> None:
    options = replace(DAILY, on_read=on_read)
    for day in days:
        rows = things(ids_of_merge(day), version, day)
        properties = {RUN_ID: f"merge {version} {day}"}
        write(folder, WriteRequest(rows=rows, mode="merge", properties=properties), options)


def ids_of_run(day: int, version: int) -> list[int]:
    return list(range(day * 10, day * 10 + 10 - version))  # a later run has fewer rows


def ids_of_merge(day: int) -> list[int]:
    """A row that all runs of the day have, one that the later ones lack, and one of its own."""
    return [day * 10, day * 10 + 8, day * 10 + 100_000]


def one_after_another(writes: list[str]) -> pl.DataFrame:
    """The rows that writes leave when each begins after the one before it."""
    versions: dict[int, dict[int, int]] = {}
    for kind, version, day in (name.split() for name in writes):
        found = versions.setdefault(int(day), {})
        if kind == "run":
            found.clear()
        ids = ids_of_run if kind == "run" else lambda day, _: ids_of_merge(day)
        for id_ in ids(int(day), int(version)):
            found[id_] = max(int(version), found.get(id_, 0))
    left = [
        things([id_], version, day)
        for day, rows in versions.items()
        for id_, version in rows.items()
    ]
    return pl.concat(left).sort("id")


def committed_writes(folder: str) -> list[str]:
    """The writes in the order in which the table has them."""
    catalog = open_catalog(f"sqlite:///{folder}/catalog.db", f"file://{folder}/tables", {})
    table = catalog.load_table(TABLE)
    snapshots = ancestors(table, current_snapshot_id(table))
    names = [properties_of(snapshot).get(RUN_ID) for snapshot in snapshots]
    return [name for name in reversed(names) if name is not None]


def run_and_merge_at_once(folder: str, *, on_read: bool) -> list[str]:
    """The writes of six days that had one run before, in the order of their commits."""
    run_partitions(folder, range(6), 0, on_read=on_read)
    with processes() as pool:
        runs = [
            pool.submit(run_partitions, folder, range(6), 1, on_read=on_read),
            pool.submit(merge_days, folder, range(6), 3, on_read=on_read),
            pool.submit(merge_days, folder, range(5, -1, -1), 4, on_read=on_read),
            pool.submit(run_partitions, folder, range(5, -1, -1), 2, on_read=on_read),
            pool.submit(compact_again_and_again, folder, 3),
        ]
        for running in runs:
            running.result()
    return committed_writes(folder)


def test_partitions_run_again_and_merges_into_them_at_once(
    tmp_path: Path, *, on_read: bool
) -> None:
    """They come to what they would have, each after the other, in the order of their commits.

    On a busy machine some may be over before others have begun: then a new table is tried.
    """
    for attempt in count():
        folder = tmp_path / str(attempt)
        folder.mkdir()
        writes = run_and_merge_at_once(str(folder), on_read=on_read)
        assert_frame_equal(rows(str(folder)), one_after_another(writes))
        kinds = [name.partition(" ")[0] for name in writes[6:]]
        assert kinds.count("run") == 12
        if "run merge run" in " ".join(kind for kind, _ in groupby(kinds)):
            break


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition(FIRST_DAY.isoformat()),
    metadata=table_options(mode="append", key=("id",), order_by="version", partition_by="day"),
)
def daily_things(context: dg.AssetExecutionContext) -> pl.DataFrame:
    return of_day(context.partition_key)


def of_day(key: str) -> pl.DataFrame:
    day = (dt.date.fromisoformat(key) - FIRST_DAY).days
    return things([day * 10, day * 10 + 1], 0, day)


@pytest.mark.timeout(120 + 2 * DAYS)
def test_a_backfill_in_parallel(folder: str) -> None:
    """Each day is a run of Dagster; two at a time."""
    iceberg = IcebergResource(
        catalog_uri=f"sqlite:///{folder}/catalog.db", warehouse_path=f"file://{folder}/tables"
    )
    manager = IcebergIOManager(iceberg=iceberg, namespace="space")
    keys = [(FIRST_DAY + dt.timedelta(days=day)).isoformat() for day in range(DAYS)]

    def run_day(key: str) -> None:
        dg.materialize([daily_things], resources={"io_manager": manager}, partition_key=key)

    run_day(keys[0])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run_day, keys[1:]))
    read = iceberg.view("space.daily_things").read().sort("id")
    assert_frame_equal(read, pl.concat(map(of_day, keys)))
