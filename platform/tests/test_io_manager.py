"""The IO manager through real materialisations: types in and out, modes, partitions, metadata."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest
from catalogs import FILES, REST, S3, SLOWER, iceberg_at
from dagster._core.test_utils import create_run_for_test
from polars.testing import assert_frame_equal

from forge_platform import (
    IcebergIOManager,
    IcebergResource,
    RunMode,
    RunModeConfig,
    TableView,
    TableWrite,
    Work,
    io_manager,
    keys_of,
    plan_work,
    table_options,
)
from forge_platform.iceberg.view import IcebergView

ROWS = pl.DataFrame({"id": [1, 2, 3], "name": ["a", None, "c"]})


@pytest.fixture(params=[FILES, REST, SLOWER])
def iceberg(request: pytest.FixtureRequest, tmp_path: Path) -> IcebergResource:
    return iceberg_at(request.param, request, tmp_path)


@pytest.fixture(params=[FILES, S3, SLOWER])
def with_history(request: pytest.FixtureRequest, tmp_path: Path) -> IcebergResource:
    """Where the earlier snapshots of a table are shown."""
    return iceberg_at(request.param, request, tmp_path)


def resources(iceberg: IcebergResource, write_mode: str | None = None) -> dict[str, Any]:
    manager = IcebergIOManager(iceberg=iceberg, namespace="space", write_mode=write_mode)
    return {"iceberg": iceberg, "io_manager": manager}


def run(
    assets: list[Any], with_resources: dict[str, Any], **options: Any
) -> dg.ExecuteInProcessResult:
    return dg.materialize(assets, resources=with_resources, **options)


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


@pytest.mark.parametrize(
    "frame",
    [lambda: ROWS, ROWS.lazy, ROWS.to_arrow, lambda: ROWS.to_arrow().to_reader()],
    ids=["DataFrame", "LazyFrame", "Table", "RecordBatchReader"],
)
def test_every_frame_type_is_written(iceberg: IcebergResource, frame: Callable[[], Any]) -> None:
    @dg.asset(metadata=table_options(mode="merge", key=("id",)))
    def things() -> Any:
        return frame()

    run([things], resources(iceberg))
    assert_frame_equal(iceberg.view("space.things").read(), ROWS, check_row_order=False)


def test_every_frame_type_is_read(iceberg: IcebergResource) -> None:
    seen: dict[str, Any] = {}

    @dg.asset
    def things() -> pl.DataFrame:
        return ROWS

    @dg.asset
    def readers(things: pl.DataFrame) -> None:
        seen["frame"] = things

    @dg.asset
    def lazy(things: pl.LazyFrame) -> None:
        seen["lazy"] = things.collect()

    @dg.asset
    def arrow(things: pa.Table) -> None:
        seen["arrow"] = pl.from_arrow(things)

    @dg.asset
    def stream(things: pa.RecordBatchReader) -> None:
        seen["stream"] = pl.from_arrow(things.read_all())

    @dg.asset
    def view(things: TableView) -> None:
        seen["view"] = things.read(["id", "name"])

    run([things, readers, lazy, arrow, stream, view], resources(iceberg))
    assert len(seen) == 5
    for frame in seen.values():
        assert_frame_equal(frame, ROWS, check_row_order=False)


def test_runs_that_overlap_say_so(with_history: IcebergResource) -> None:
    """A run of the same asset commits while this one is between reading and writing."""
    others: list[str] = []
    marks = (f"2024-05-0{day}" for day in count(1))
    merged = table_options(mode="merge", key=("id",))

    def write(iceberg: IcebergResource) -> TableWrite:
        position = iceberg.position("space.things")
        return TableWrite(rows=ROWS, watermark=next(marks), continues=position)

    @dg.asset(name="things", metadata=merged)
    def alone(iceberg: IcebergResource) -> TableWrite:
        return write(iceberg)

    @dg.asset(name="things", metadata=merged)
    def overlapped(iceberg: IcebergResource) -> TableWrite:
        mine = write(iceberg)
        others.extend(run([alone], resources(with_history)).run_id for _ in range(2))
        return mine

    assert "overlapping_runs" not in metadata(run([alone], resources(with_history)), "things")
    found = metadata(run([overlapped], resources(with_history)), "things")
    assert found["overlapping_runs"] == ", ".join(reversed(others))
    assert "overlapping_runs" not in metadata(run([alone], resources(with_history)), "things")


def test_metadata_describes_the_table_and_the_write(iceberg: IcebergResource) -> None:
    @dg.asset(metadata=table_options(mode="merge", key=("id",)))
    def things() -> TableWrite:
        return TableWrite(rows=ROWS, rows_read=10, rows_rejected=7, metadata={"extra": 1})

    found = metadata(run([things], resources(iceberg)), "things")
    assert found["rows_read"] == 10
    assert found["rows_rejected"] == 7
    assert (found["rows_inserted"], found["rows_updated"]) == (3, 0)
    assert found["dagster/row_count"] == 3
    assert [(c.name, c.type) for c in found["dagster/column_schema"].columns] == [
        ("id", "long"),
        ("name", "string"),
    ]
    assert found["null_counts"] == {"id": 0, "name": 1}
    assert "| 1 | a |" in found["sample"]
    assert found["snapshot_id"] == str(iceberg.view("space.things").snapshot_id)
    assert found["table_files"] == 1
    assert found["bytes"] == found["table_bytes"] > 0
    assert found["extra"] == 1


def test_watermark_inputs_and_run_are_properties_of_the_snapshot(iceberg: IcebergResource) -> None:
    @dg.asset(metadata=table_options(mode="merge", key=("id",)))
    def things() -> TableWrite:
        return TableWrite(rows=ROWS, watermark="2024-05-01", inputs={"other.table": 42})

    result = run([things], resources(iceberg))
    table = iceberg.find("space.things")
    assert table is not None
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    properties = snapshot.summary.additional_properties
    assert properties["forge.run-id"] == result.run_id
    assert iceberg.watermark("space.things") == "2024-05-01"
    assert iceberg.inputs("space.things") == {"other.table": 42}


def test_a_run_that_read_less_takes_away_what_another_has_read(iceberg: IcebergResource) -> None:
    """It comes later and replaces what was made of an upstream table that was empty for it."""
    catalog = iceberg.catalog()
    catalog.create_namespace("space")
    catalog.create_table("space.base", schema=ROWS.to_arrow().schema)
    full = RunModeConfig(mode=RunMode.FULL)
    works: list[Work] = []

    @dg.asset(metadata=table_options(mode="overwrite", key=("id",)))
    def derived() -> TableWrite:
        return works[-1].write(ROWS)

    older = plan_work(iceberg, "space.derived", [iceberg.view("space.base")], full, keys_of("id"))
    catalog.load_table("space.base").append(ROWS.to_arrow())
    newer = plan_work(iceberg, "space.derived", [iceberg.view("space.base")], full, keys_of("id"))
    for work, known in ((newer, newer.inputs), (older, {})):
        works.append(work)
        run([derived], resources(iceberg))
        assert iceberg.inputs("space.derived") == known


def test_a_run_that_changes_nothing_keeps_the_data_version(iceberg: IcebergResource) -> None:
    @dg.asset(metadata=table_options(mode="merge", key=("id",)))
    def things(context: dg.AssetExecutionContext) -> TableWrite:
        return TableWrite(rows=ROWS, watermark=context.run.tags["mark"])

    versions = []
    with dg.DagsterInstance.ephemeral() as instance:
        for mark in ("1", "1", "2"):
            run([things], resources(iceberg), instance=instance, tags={"mark": mark})
            event = instance.get_latest_materialization_event(dg.AssetKey("things"))
            assert event is not None
            assert event.asset_materialization is not None
            versions.append((event.asset_materialization.tags or {})["dagster/data_version"])
    assert len(set(versions)) == 1
    assert iceberg.watermark("space.things") == "2"


def test_overwrite_of_an_environment_keeps_no_watermark(iceberg: IcebergResource) -> None:
    @dg.asset(metadata=table_options(mode="append", key=("id",)))
    def things() -> TableWrite:
        return TableWrite(rows=ROWS, watermark="2024-05-01")

    for _ in range(2):
        run([things], resources(iceberg, write_mode="overwrite"))
    assert iceberg.watermark("space.things") is None
    assert iceberg.view("space.things").read().height == 3


@pytest.mark.parametrize("environment", [None, "overwrite"])
def test_a_part_of_the_rows_never_replaces_the_table(
    iceberg: IcebergResource, environment: str | None
) -> None:
    write = TableWrite(rows=ROWS)

    @dg.asset(metadata=table_options(mode="merge", key=("id",)))
    def things() -> TableWrite:
        return write

    @dg.asset
    def replaced() -> TableWrite:
        return write

    run([things, replaced], resources(iceberg, environment))
    write = TableWrite(rows=ROWS.head(1), is_part=True)
    run([things], resources(iceberg, environment))
    with pytest.raises(dg.Failure, match="only a part"):
        run([replaced], resources(iceberg, environment))
    for table in ("space.things", "space.replaced"):
        assert iceberg.view(table).read().height == 3


def test_what_is_extracted_is_not_appended_without_a_key(iceberg: IcebergResource) -> None:
    """Every run reads again what changed shortly before the watermark."""

    @dg.asset(metadata=table_options(mode="append"))
    def things() -> TableWrite:
        return TableWrite(rows=ROWS, watermark="2024-05-01", window="{}")

    with pytest.raises(dg.Failure, match="give the asset a key"):
        run([things], resources(iceberg))
    assert iceberg.find("space.things") is None


def test_partitions_map_to_iceberg_partitions(iceberg: IcebergResource) -> None:
    days = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-10")
    counts = {"2024-01-01": 2, "2024-01-02": 3}
    seen: dict[str, int] = {}

    @dg.asset(partitions_def=days, metadata=table_options(mode="append", partition_by="day"))
    def daily(context: dg.AssetExecutionContext) -> pl.DataFrame:
        key = context.partition_key
        return pl.DataFrame(
            {"day": [dt.date.fromisoformat(key)] * counts[key], "n": range(counts[key])}
        )

    @dg.asset(partitions_def=days)
    def reader(context: dg.AssetExecutionContext, daily: pl.DataFrame) -> None:
        seen[context.partition_key] = daily.height

    for key in ("2024-01-01", "2024-01-02"):
        run([daily, reader], resources(iceberg), partition_key=key)
    counts["2024-01-01"] = 1
    run([daily, reader], resources(iceberg), partition_key="2024-01-01")
    assert seen == {"2024-01-01": 1, "2024-01-02": 3}
    assert iceberg.view("space.daily").read().height == 4
    table = iceberg.find("space.daily")
    assert table is not None
    assert [str(field.transform) for field in table.spec().fields] == ["day"]


@pytest.mark.parametrize(
    "weeks",
    [
        dg.WeeklyPartitionsDefinition("2024-01-01", day_offset=1),
        dg.TimeWindowPartitionsDefinition("2024-01-01", "%Y-%m-%d", cron_schedule="0 0 * * 1"),
    ],
    ids=["weekly", "cron"],
)
def test_a_partition_of_any_length_has_a_file_a_day(
    tmp_path: Path, request: pytest.FixtureRequest, weeks: dg.TimeWindowPartitionsDefinition
) -> None:
    iceberg = iceberg_at(FILES, request, tmp_path)
    begin = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)

    @dg.asset(partitions_def=weeks, metadata=table_options(mode="append", partition_by="at"))
    def events() -> pl.DataFrame:
        times = [begin + dt.timedelta(hours=hour) for hour in range(48)]
        return pl.DataFrame({"at": times}, schema={"at": pl.Datetime("us", "UTC")})

    run([events], resources(iceberg), partition_key=weeks.get_first_partition_key())
    assert len(iceberg.view("space.events").tasks()) == 2


def test_partitions_are_values_of_a_column_of_any_type(iceberg: IcebergResource) -> None:
    shards = dg.StaticPartitionsDefinition(["1", "2", "north"])
    seen: list[int] = []

    @dg.asset(partitions_def=shards, metadata=table_options(mode="append", partition_by="shard"))
    def things(context: dg.AssetExecutionContext) -> pl.DataFrame:
        shard = int(context.partition_key) if context.partition_key.isdecimal() else 3
        return pl.DataFrame({"shard": [shard] * 2, "n": [1, 2]})

    @dg.asset(partitions_def=shards)
    def reader(things: pl.DataFrame) -> None:
        seen.extend(things["shard"])

    for key in ("1", "2", "1"):
        run([things, reader], resources(iceberg), partition_key=key)
    assert iceberg.view("space.things").read().height == 4
    assert seen == [1, 1, 2, 2, 1, 1]
    with pytest.raises(dg.Failure, match=r"values of the column shard \(Int64\): north\. Rename"):
        run([things], resources(iceberg), partition_key="north")


def test_a_failure_names_what_is_wrong_and_is_not_retried(iceberg: IcebergResource) -> None:
    attempts = []

    @dg.asset(
        metadata=table_options(mode="merge"), retry_policy=dg.RetryPolicy(max_retries=2, delay=0)
    )
    def things() -> pl.DataFrame:
        attempts.append(1)
        return ROWS

    result = run([things], resources(iceberg), raise_on_error=False)
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    assert "forge/key" in str(failure.step_failure_data.user_failure_data)
    assert len(attempts) == 1


def test_derived_table_follows_only_the_changes(
    with_history: IcebergResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[str] = []
    read_all = IcebergView.read

    def noted(view: IcebergView, columns: Sequence[str] | None = None) -> pl.DataFrame:
        whole.append(view.identifier)
        return read_all(view, columns)

    monkeypatch.setattr(IcebergView, "read", noted)
    source = {"rows": ROWS}
    read: list[list[int]] = []

    @dg.asset(metadata=table_options(mode="merge", key=("id",)))
    def base() -> TableWrite:
        return TableWrite(
            rows=source["rows"], deleted_keys=pl.DataFrame({"id": [3]}, schema={"id": pl.Int64})
        )

    @dg.asset(metadata=table_options(mode="overwrite", key=("id",)))
    def derived(config: RunModeConfig, iceberg: IcebergResource, base: TableView) -> TableWrite:
        work = plan_work(iceberg, "space.derived", [base], config, keys_of("id"))
        rows = work.rows(base)
        read.append(sorted(rows["id"]))
        return work.write(rows.filter(pl.col("name").is_not_null()))

    everything = resources(with_history)
    run([base, derived], everything)
    assert whole == ["space.base"]  # once, and not to see that all of it is new
    source["rows"] = pl.DataFrame({"id": [1, 4], "name": [None, "d"]})
    run([base, derived], everything)
    run([base, derived], everything)
    full = dg.RunConfig({"derived": {"config": {"mode": "FULL"}}})
    run([base, derived], everything, run_config=full)
    assert read == [[1, 2, 3], [1, 4], [], [1, 2, 4]]
    assert sorted(with_history.view("space.derived").read()["id"]) == [4]


def interrupted(rows: pa.Table, act: Callable[[], None]) -> Iterator[pa.RecordBatch]:
    """Rows by twos, and something that happens between."""
    for number, batch in enumerate(rows.to_batches(max_chunksize=2)):
        if number == 2:
            act()
        yield batch


def test_a_derivation_that_a_newer_one_overtakes_is_done_again(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Nothing of it is written."""
    here = iceberg_at(FILES, request, tmp_path)
    everything = resources(here)
    value = 0

    @dg.asset(metadata=table_options(mode="merge", key=("id",)))
    def base() -> pl.DataFrame:
        return pl.DataFrame({"id": range(6), "value": [value] * 6})

    def derive(iceberg: IcebergResource, base: TableView) -> TableWrite:
        work = plan_work(iceberg, "space.derived", [base], RunModeConfig(), keys_of("id"))
        return work.write(work.rows(base).sort("id"))

    @dg.asset(metadata=table_options(mode="merge", key=("id",)))
    def derived(iceberg: IcebergResource, base: TableView) -> TableWrite:
        return derive(iceberg, base)

    def newer() -> None:
        nonlocal value
        value = 2
        assert run([base, derived], everything).success

    @dg.asset(name="derived", metadata=table_options(mode="merge", key=("id",)))
    def overtaken(iceberg: IcebergResource, base: TableView) -> TableWrite:
        mine = derive(iceberg, base)
        assert isinstance(mine.rows, pl.DataFrame)
        rows = mine.rows.to_arrow()
        return replace(
            mine, rows=pa.RecordBatchReader.from_batches(rows.schema, interrupted(rows, newer))
        )

    run([base, derived], everything)
    value = 1
    assert not run([base, overtaken], everything, raise_on_error=False).success
    assert here.view("space.derived").read()["value"].to_list() == [2] * 6
    assert run([base, derived], everything, selection=[derived]).success
    assert here.view("space.derived").read()["value"].to_list() == [2] * 6


def test_what_any_of_several_tables_lacks_is_derived_for_all(
    with_history: IcebergResource,
) -> None:
    """Of a run that died between its two tables the first one knows more than the second."""
    iceberg, tables = with_history, ["space.refused", "space.taken"]
    value = 0

    @dg.asset(metadata=table_options(mode="merge", key=("id",)))
    def base() -> pl.DataFrame:
        return pl.DataFrame({"id": [1, value + 2], "value": [value, 0]})

    def plan() -> Work:
        view = iceberg.view("space.base")
        return plan_work(iceberg, tables, [view], RunModeConfig(), keys_of("id"))

    def writing(work: Work, table: str) -> dg.AssetsDefinition:
        @dg.asset(name=table.partition(".")[2], metadata=table_options(mode="merge", key=("id",)))
        def write() -> TableWrite:
            return work.write(work.rows(iceberg.view("space.base")), table)

        return write

    for value, written in enumerate((tables, tables[:1], tables)):
        run([base], resources(iceberg))
        work = plan()
        expected = {0: None, 1: [1, 3], 2: [1, 3, 4]}[value]
        assert (None if work.keys is None else sorted(work.keys["id"])) == expected
        run([writing(work, table) for table in written], resources(iceberg))
    assert plan().keys is not None
    assert all(iceberg.view(table).read().height == 4 for table in tables)


def test_all_steps_of_a_run_read_a_table_without_a_snapshot_as_that(
    iceberg: IcebergResource,
) -> None:
    catalog = iceberg.catalog()
    catalog.create_namespace("space")
    catalog.create_table("space.base", schema=ROWS.to_arrow().schema)
    seen: list[int] = []

    @dg.asset
    def first(base: TableView) -> None:
        seen.append(base.read().height)
        catalog.load_table("space.base").append(ROWS.to_arrow())

    @dg.asset(deps=["first"])
    def second(base: TableView) -> None:
        seen.append(base.read().height)

    assert run([dg.AssetSpec("base"), first, second], resources(iceberg)).success
    assert seen == [0, 0]
    assert run([dg.AssetSpec("base"), second], resources(iceberg)).success
    assert seen == [0, 0, ROWS.height]


def test_a_run_can_be_repeated_on_the_snapshots_that_it_read(with_history: IcebergResource) -> None:
    rows = ROWS
    seen: list[int] = []

    @dg.asset(metadata=table_options(mode="overwrite", key=("id",)))
    def base() -> pl.DataFrame:
        return rows

    @dg.asset
    def reader(base: TableView) -> None:
        seen.append(base.read().height)

    everything = resources(with_history)
    first = run([base, reader], everything)
    loaded = metadata(first, "base")["snapshot_id"]
    rows = ROWS.head(1)
    run([base, reader], everything)
    tags = {"forge/snapshot/space.base": loaded}
    run([base, reader], everything, selection=[reader], tags=tags)
    assert seen == [3, 1, 3]
    for wrong, message in (("12345", "no snapshot 12345"), ("yesterday", "use the snapshot_id")):
        tags = {"forge/snapshot/space.base": wrong}
        with pytest.raises(dg.Failure, match=message):
            run([base, reader], everything, selection=[reader], tags=tags)


def base_of(rows: pl.DataFrame) -> dg.AssetsDefinition:
    """An asset whose table has these rows and no others."""

    @dg.asset(metadata=table_options(mode="overwrite", key=("id",)))
    def base() -> pl.DataFrame:
        return rows

    return base


def test_all_steps_of_a_run_read_a_table_at_one_snapshot(iceberg: IcebergResource) -> None:
    seen: list[tuple[int, str]] = []

    base, other_base = base_of(ROWS), base_of(ROWS.head(1))

    def look(context: dg.AssetExecutionContext, base: TableView) -> None:
        seen.append((base.read().height, context.asset_key.to_user_string()))
        run([other_base], resources(iceberg))

    @dg.asset
    def first(context: dg.AssetExecutionContext, base: TableView) -> None:
        look(context, base)

    @dg.asset(deps=[first])
    def second(context: dg.AssetExecutionContext, base: TableView) -> None:
        look(context, base)

    everything = resources(iceberg)
    run([base, first, second], everything)
    assert seen == [(3, "first"), (3, "second")]
    run([base, first, second], everything, selection=[first, second])
    assert [rows for rows, _ in seen[2:]] == [1, 1]


def test_a_step_knows_what_came_after_the_snapshot_that_it_reads(
    with_history: IcebergResource,
) -> None:
    """Else a table that another run has derived meanwhile would be derived as a whole."""
    seen: list[tuple[int, bool]] = []

    base, other_base = base_of(ROWS), base_of(ROWS.head(1))

    @dg.asset(deps=["base"])
    def meanwhile() -> None:
        run([other_base], resources(with_history))

    @dg.asset(deps=[meanwhile])
    def derived(base: TableView) -> None:
        newest = with_history.view("space.base").snapshot_id
        seen.append((base.read().height, base.has_snapshot(newest)))

    run([base, meanwhile, derived], resources(with_history))
    assert seen == [(3, True)]


def test_a_retry_is_the_attempt_that_it_repeats_and_a_run_again_is_none() -> None:
    with dg.DagsterInstance.ephemeral() as instance:

        def launch(parent: dg.DagsterRun | None, **tags: str) -> dg.DagsterRun:
            ids = {"parent_run_id": parent.run_id, "root_run_id": parent.run_id} if parent else {}
            made: dg.DagsterRun = create_run_for_test(instance, tags=tags, **ids)
            return made

        retry = {"dagster/retry_number": "1"}
        first = launch(None)
        again = launch(first)
        third = launch(launch(again, **retry), **retry)
        assert io_manager._first_attempt(first, instance) == first.run_id
        assert io_manager._first_attempt(again, instance) == again.run_id
        assert io_manager._first_attempt(third, instance) == again.run_id


def test_a_table_that_does_not_exist_yet_says_what_to_run(iceberg: IcebergResource) -> None:
    with pytest.raises(dg.Failure, match="materialise the asset things first"):
        iceberg.view("space.things")


def test_text_keys_and_null_are_derived_again(iceberg: IcebergResource) -> None:
    """One key is the name of a column, one is none, one is NULL."""
    regions = pl.DataFrame({"region": ["region", "x", None], "value": [1, 2, 3]})
    rounds = iter([regions, regions.with_columns(pl.col("value") * 10)])

    @dg.asset(metadata=table_options(mode="overwrite"))
    def facts() -> pl.DataFrame:
        return next(rounds)

    @dg.asset(metadata=table_options(mode="merge"))
    def totals(facts: TableView, iceberg: IcebergResource) -> TableWrite:
        work = plan_work(iceberg, "space.totals", [facts], RunModeConfig(), keys_of("region"))
        return work.write(work.rows(facts).group_by("region").agg(pl.col("value").sum()))

    for factor in (1, 10):
        assert run([facts, totals], resources(iceberg)).success
        found = iceberg.view("space.totals").read().sort("value")
        assert found.rows() == [("region", factor), ("x", 2 * factor), (None, 3 * factor)]


def test_days_of_a_time_zone_are_those_of_its_calendar(iceberg: IcebergResource) -> None:
    """A date has no zone: the partition of a day in New York has the rows of that date."""
    days = dg.DailyPartitionsDefinition("2024-01-01", timezone="America/New_York")
    read: list[dt.date] = []

    @dg.asset(partitions_def=days, metadata=table_options(mode="append", partition_by="day"))
    def visits(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return pl.DataFrame({"day": [dt.date.fromisoformat(context.partition_key)]})

    @dg.asset(partitions_def=days, metadata=table_options(mode="append", partition_by="day"))
    def readers(visits: pl.DataFrame) -> None:
        read.extend(visits["day"])

    for key in ("2024-01-01", "2024-01-02"):
        assert run([visits, readers], resources(iceberg), partition_key=key).success
    assert read == [dt.date(2024, 1, 1), dt.date(2024, 1, 2)]
