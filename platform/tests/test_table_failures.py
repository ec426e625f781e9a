"""What goes wrong with a table's files and rows is a failure of the platform, wherever it does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest
from catalogs import local_catalog

from forge_platform import (
    AuthenticationFailed,
    ForgeError,
    IcebergResource,
    PermanentError,
    SchemaMismatch,
    SourceUnavailable,
    TableView,
    build_definitions,
    table_options,
)
from forge_platform.iceberg.failures import translated, translating
from forge_platform.iceberg.write import TableOptions, WriteRequest, write_table
from forge_platform.testing import S3Server


def reading_location() -> dg.Definitions:
    """A location with the ways to read a table lazily; each is retried."""
    again = dg.RetryPolicy(max_retries=2)

    @dg.asset(metadata=table_options(mode="overwrite"))
    def base() -> pl.DataFrame:
        return pl.DataFrame({"a": [1]})

    @dg.asset(retry_policy=again)
    def function(base: TableView) -> None:
        base.scan().collect()

    @dg.multi_asset(outs={"generator": dg.AssetOut()}, retry_policy=again)
    def generator(base: TableView) -> Iterator[dg.Output[None]]:
        base.scan().collect()
        yield dg.Output(None, "generator")

    @dg.asset(retry_policy=again)
    async def coroutine(base: TableView) -> None:
        base.scan().collect()

    @dg.multi_asset(specs=[dg.AssetSpec("waiting_generator", deps=[base])], retry_policy=again)
    async def waiting_generator(base: TableView) -> AsyncIterator[Any]:
        base.scan().collect()
        yield dg.MaterializeResult[None](asset_key="waiting_generator")

    @dg.asset_check(asset=base, retry_policy=again)
    def check(base: TableView) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=base.read().height == 1)

    readers = [function, generator, coroutine, waiting_generator]
    return build_definitions("space", assets=[base, *readers], checks=[check])


def test_a_generator_that_is_closed_closes_what_it_opened() -> None:
    order: list[str] = []

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            order.append("closed")

    async def use() -> None:
        events = translating(generator)()
        await anext(events)
        await events.aclose()
        order.append("after")

    asyncio.run(use())
    assert order == ["closed", "after"]


def test_a_lost_file_is_named_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICEBERG_CATALOG_URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("ICEBERG_WAREHOUSE", f"file://{tmp_path}/tables")
    job = reading_location().resolve_implicit_global_asset_job_def()
    assert job.execute_in_process().success
    for file in tmp_path.rglob("*.parquet"):
        file.unlink()
    readers = ["function", "generator", "coroutine", "waiting_generator", "base_check"]
    result = job.execute_in_process(op_selection=readers, raise_on_error=False)
    failures = {
        event.step_key: str(event.step_failure_data.user_failure_data)
        for event in result.filter_events(lambda event: event.is_step_failure)
    }
    assert set(failures) == set(readers)
    told = f"A file of a table at file://{tmp_path}/tables"
    assert all(told in failure and "is gone" in failure for failure in failures.values())
    assert not result.filter_events(lambda event: event.is_step_up_for_retry)


S3_FILE = "(path: s3://bucket/tables/space/base/data/0.parquet)"
REFUSED = PermissionError(f"object-store error: Server returned 403 Forbidden {S3_FILE}")
AWAY = ConnectionRefusedError(f"object-store error: error sending request {S3_FILE}")


@pytest.mark.parametrize(
    ("raised", "kind"), [(REFUSED, AuthenticationFailed), (AWAY, SourceUnavailable)]
)
def test_what_polars_says_of_a_store(raised: OSError, kind: type[ForgeError]) -> None:
    def fail() -> None:
        raise raised

    with pytest.raises(kind, match=r"base/data/0\.parquet"):
        translating(fail)()
    with pytest.raises(kind, match="at s3://bucket/tables "), translated("", "s3://bucket/tables"):
        fail()


def test_a_store_that_is_away_is_named_wherever_a_table_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        warehouse = f"{server.create_bucket('left')}/tables"
        iceberg = IcebergResource(
            catalog_uri=f"sqlite:///{tmp_path}/catalog.db", warehouse_path=warehouse
        )
        options, before = TableOptions(key=("id",)), None
        for number in range(2):
            before = iceberg.position("space.t").snapshot_id
            request = WriteRequest(rows=pl.DataFrame({"id": [number]}), mode="merge")
            write_table(iceberg.catalog(), "space.t", request, options)
        view = iceberg.view("space.t")
        stream = view.batches()
    readers: list[Callable[[], object]] = [
        view.read,
        lambda: view.head(1),
        view.tasks,
        lambda: view.changes_since(before),
        stream.read_all,
    ]
    for read in readers:
        with pytest.raises(SourceUnavailable, match=f"{warehouse}/space/t"):
            read()


def test_other_failures_of_an_asset_are_its_own() -> None:
    def fail() -> None:
        raise OSError("object-store error: error sending request (path: s3://bucket/notes.parquet)")

    with pytest.raises(OSError, match=r"notes\.parquet"):
        translating(fail)()


@pytest.mark.parametrize("key", [(), ("id",)])
def test_a_time_that_would_lose_digits_is_refused(tmp_path: Path, key: tuple[str, ...]) -> None:
    catalog = local_catalog(tmp_path)
    rows = pa.table({"id": [1, 2], "at": pa.array([1000, 1001], pa.timestamp("ns"))})
    request = WriteRequest(rows=rows, mode="merge" if key else "append")
    with pytest.raises(SchemaMismatch, match=r"the column at .*1001"):
        write_table(catalog, "space.t", request, TableOptions(key=key))
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_partition_that_is_no_number_is_refused(tmp_path: Path) -> None:
    catalog = local_catalog(tmp_path)
    options = TableOptions(key=("id",), partition_by="share")
    for share, refused in ((0.5, False), (float("nan"), True), (1.5, False)):
        rows = pl.DataFrame({"id": [1, 2], "share": [share, 2.5]})
        request = WriteRequest(rows=rows, mode="merge")
        if refused:
            with pytest.raises(PermanentError, match="NaN in share"):
                write_table(catalog, "space.t", request, options)
        else:
            write_table(catalog, "space.t", request, options)
