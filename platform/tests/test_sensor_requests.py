"""A sensor's news do not pile up runs: one that waits in the queue reads them anyway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg
import pytest

from forge_platform.sensors.requests import RunTarget

ASSETS = ("a", "b")


@dg.asset
def a() -> None: ...


@dg.asset
def b() -> None: ...


@dg.asset
def c() -> None: ...


defs = dg.Definitions(assets=[a, b, c], jobs=[dg.define_asset_job("load", "*")])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def put_run(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, selection: Sequence[str] | None
) -> None:
    keys = frozenset(map(dg.AssetKey, selection)) if selection else None
    job = defs.resolve_job_def("load")
    run = instance.create_run_for_job(job, status=status, asset_selection=keys)
    assert run.status is status


def look(instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    return RunTarget("load", ASSETS).request(
        dg.build_sensor_context(instance=instance, cursor="before"),
        run_key="news",
        cursor="after",
        tags={"x": "y"},
    )


def test_news_request_a_run_of_the_assets(instance: dg.DagsterInstance) -> None:
    result = look(instance)
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or ()
    assert request.run_key == "news"
    assert request.asset_selection == [dg.AssetKey("a"), dg.AssetKey("b")]
    assert request.tags["x"] == "y"
    assert result.cursor == "after"


@pytest.mark.parametrize("selection", [None, ["a", "b"], ["a", "b", "c"]])
def test_a_waiting_run_reads_the_news(
    instance: dg.DagsterInstance, selection: Sequence[str] | None
) -> None:
    put_run(instance, dg.DagsterRunStatus.NOT_STARTED, selection)
    result = look(instance)
    assert isinstance(result, dg.SensorResult)
    assert not result.run_requests
    assert result.cursor == "after"


def test_a_run_under_way_keeps_the_cursor(instance: dg.DagsterInstance) -> None:
    put_run(instance, dg.DagsterRunStatus.STARTED, None)
    assert isinstance(look(instance), dg.SkipReason)


@pytest.mark.parametrize(
    ("status", "selection"),
    [
        (dg.DagsterRunStatus.NOT_STARTED, ["a"]),
        (dg.DagsterRunStatus.STARTED, ["c"]),
        (dg.DagsterRunStatus.SUCCESS, None),
        (dg.DagsterRunStatus.FAILURE, None),
    ],
)
def test_other_runs_do_not_count(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, selection: Sequence[str] | None
) -> None:
    put_run(instance, status, selection)
    result = look(instance)
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests
