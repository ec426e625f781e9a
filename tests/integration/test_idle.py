"""An hourly run with nothing changed reads no data file and writes no snapshot.

Its tables' data files are away meanwhile: Arrow, Polars and DuckDB open files where Python does not
see it, and root may read what nobody may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from whole_platform import Platform, started

ASSETS = ("raw_customers", "raw_orders", "incremental_orders")


@pytest.fixture(scope="module")
def platform(
    small_variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform that has ingested what the source's tables hold."""
    with started(tmp_path_factory.mktemp("idle"), small_variables) as platform:
        ingest(platform, *ASSETS)
        yield platform


def ingest(platform: Platform, *assets: str, **options: Any) -> dg.JobExecutionResult:
    selected = [dg.AssetKey(asset) for asset in assets]
    return platform.run("ingestion", asset_selection=selected, **options)


def snapshots(platform: Platform) -> Mapping[str, int | None]:
    return {asset: platform.iceberg.view(f"ingestion.{asset}").snapshot_id for asset in ASSETS}


@contextmanager
def without_data_files(platform: Platform) -> Iterator[None]:
    warehouse = Path(platform.iceberg.warehouse_path.removeprefix("file://"))
    files = list(warehouse.rglob("*.parquet"))
    assert len(files) >= len(ASSETS)
    for file in files:
        file.rename(f"{file}.away")
    try:
        yield
    finally:
        for file in files:
            Path(f"{file}.away").rename(file)


def test_a_run_with_nothing_changed_reads_no_data_file(platform: Platform) -> None:
    before = snapshots(platform)
    with without_data_files(platform):
        result = ingest(platform, *ASSETS, raise_on_error=False)
    # A contract's check reads the keys.
    failed = {event.step_key for event in result.get_step_failure_events()}
    assert failed <= {f"{asset}_contract" for asset in ASSETS}
    assert snapshots(platform) == before
    assert [platform.metadata(asset)["rows_read"] for asset in ASSETS] == [0, 0, 0]


@pytest.mark.parametrize("asset", ASSETS)
def test_a_run_that_reads_a_data_file_is_seen(platform: Platform, asset: str) -> None:
    since = {"ops": {asset: {"config": {"since": "2024-01-01"}}}}
    with without_data_files(platform):
        result = ingest(platform, asset, run_config=since, raise_on_error=False)
    [failure] = result.get_step_failure_events()
    assert "No such file" in failure.step_failure_data.error_display_string
