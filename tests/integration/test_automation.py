"""Schedules, sensors and automation conditions, evaluated on a real instance."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    StepMaterializationData,
)
from dagster._core.test_utils import create_run_for_test
from whole_platform import Platform

import customers.definitions
import ingestion.definitions
import orders.automation
import orders.definitions
from forge_platform.contracts import CLEAN_CUSTOMERS, CONTRACTS, RAW_CUSTOMERS, RAW_ORDERS

CUSTOMERS = customers.definitions.defs
ORDERS = orders.definitions.defs
LOCATIONS = (ingestion.definitions.defs, CUSTOMERS, ORDERS)

# As the daemon sees it: the assets and checks of all code locations in one graph.
WORKSPACE = dg.Definitions(
    assets=[
        asset
        for location in LOCATIONS
        for asset in location.assets or ()
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable
    ],
    asset_checks=[check for location in LOCATIONS for check in location.asset_checks or ()],
    resources={key: made for each in LOCATIONS for key, made in (each.resources or {}).items()},
)

ALL_OF_CUSTOMERS = {
    "clean_customers",
    "rejected_customers",
    "customer_metrics",
    "customer_clv",
    "customer_metrics_serving",
    "customer_metrics_export",
}
CONTRACTED = {contract.asset for contract in CONTRACTS}
ENRICHED = {"enriched_orders", "sales_daily_summary"}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """On which no contract has been found broken."""
    with dg.instance_for_test() as made:
        check_contracts(made, *CONTRACTED)
        yield made


class Daemon:
    """Evaluates a location's automation conditions as the daemon does, tick by tick."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._definitions = definitions
        self._instance = instance
        self._cursor: Any = None  # Dagster does not export its type

    def tick(self) -> set[str]:
        """Asset keys that it requests."""
        result = dg.evaluate_automation_conditions(
            defs=self._definitions, instance=self._instance, cursor=self._cursor
        )
        self._cursor = result.cursor
        return {
            evaluation.key.to_user_string()
            for evaluation in result.results
            if not evaluation.true_subset.is_empty and isinstance(evaluation.key, dg.AssetKey)
        }


def materialise(instance: dg.DagsterInstance, *assets: str, version: str = "1") -> None:
    for asset in assets:
        tags = {"dagster/data_version": version}
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, tags=tags))
    check_contracts(instance, *assets)


def begin_run(instance: dg.DagsterInstance, *assets: str) -> str:
    """A run that is to make these assets; returns its id."""
    keys = frozenset(map(dg.AssetKey, assets))
    run = create_run_for_test(instance, asset_selection=keys, status=dg.DagsterRunStatus.STARTED)
    for key in keys:
        planned = AssetMaterializationPlannedData(key)
        event = DagsterEvent.build_asset_materialization_planned_event(
            run.job_name, key.to_python_identifier(), planned
        )
        instance.report_dagster_event(event, run.run_id)
    return str(run.run_id)


def end_run(
    instance: dg.DagsterInstance,
    run_id: str,
    version: str = "1",
    *,
    only: set[str] | None = None,
    failed: bool = False,
) -> None:
    """The run has made its assets, or only some of them, and found contracts kept."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    ordered = WORKSPACE.resolve_asset_graph().toposorted_asset_keys
    for key in sorted(run.asset_selection or (), key=ordered.index):
        if only is not None and key.to_user_string() not in only:
            continue
        made = dg.AssetMaterialization(key, tags={"dagster/data_version": version})
        event = DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name=run.job_name,
            event_specific_data=StepMaterializationData(made),
        )
        instance.report_dagster_event(event, run_id)
        if key.to_user_string() in CONTRACTED:
            check_in_run(instance, run_id, key.to_user_string())
    kind = dg.DagsterEventType.PIPELINE_FAILURE if failed else dg.DagsterEventType.PIPELINE_SUCCESS
    ended = DagsterEvent(kind.value, run.job_name)
    instance.report_dagster_event(ended, run_id)


def check_in_run(instance: dg.DagsterInstance, run_id: str, asset: str) -> None:
    """The run has found that the asset keeps its contract."""
    found = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset), check_name="contract", passed=True
    )
    event = DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_CHECK_EVALUATION.value,
        job_name="any",
        event_specific_data=found,
    )
    instance.report_dagster_event(event, run_id)


def run_assets(instance: dg.DagsterInstance, *assets: str, version: str = "1") -> None:
    """A run from its begin to its end."""
    end_run(instance, begin_run(instance, *assets), version)


def check_contracts(instance: dg.DagsterInstance, *assets: str, passed: bool = True) -> None:
    for asset in CONTRACTED & set(assets):
        check = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(asset), check_name="contract", passed=passed
        )
        instance.report_runless_asset_event(check)


def ingested(instance: dg.DagsterInstance, version: str = "1") -> None:
    assets = [contract.asset for contract in CONTRACTS if contract.location == "ingestion"]
    materialise(instance, *assets, version=version)


def daemon_that_requested_orders(instance: dg.DagsterInstance) -> Daemon:
    """All that orders are enriched with has come in, and they have been requested."""
    daemon = Daemon(ORDERS, instance)
    ingested(instance)
    materialise(instance, CLEAN_CUSTOMERS.asset)
    assert daemon.tick() == ENRICHED
    return daemon


def test_customers_follow_when_everything_has_come_in(instance: dg.DagsterInstance) -> None:
    daemon = Daemon(CUSTOMERS, instance)
    assert daemon.tick() == set()
    materialise(instance, RAW_CUSTOMERS.asset)
    assert daemon.tick() == set()
    ingested(instance)
    assert daemon.tick() == ALL_OF_CUSTOMERS
    assert daemon.tick() == set()


def test_a_daemon_that_starts_late_still_requests(instance: dg.DagsterInstance) -> None:
    ingested(instance)
    assert Daemon(CUSTOMERS, instance).tick() == ALL_OF_CUSTOMERS


def test_only_changed_data_is_followed(instance: dg.DagsterInstance) -> None:
    daemon = Daemon(CUSTOMERS, instance)
    ingested(instance)
    daemon.tick()
    run_assets(instance, *ALL_OF_CUSTOMERS)
    assert daemon.tick() == set()
    ingested(instance, version="1")
    assert daemon.tick() == set()
    materialise(instance, RAW_ORDERS.asset, version="2")
    requested = daemon.tick()
    assert {"customer_metrics", "customer_clv"} <= requested
    assert not {"clean_customers", "rejected_customers"} & requested
    assert daemon.tick() == set()


def test_what_changes_while_an_asset_is_made_is_followed(instance: dg.DagsterInstance) -> None:
    daemon = daemon_that_requested_orders(instance)
    run = begin_run(instance, *ENRICHED)
    assert daemon.tick() == set()
    materialise(instance, CLEAN_CUSTOMERS.asset, version="2")
    assert daemon.tick() == set()
    end_run(instance, run)
    assert daemon.tick() >= ENRICHED
    run_assets(instance, *ENRICHED, version="2")
    assert not daemon.tick() & ENRICHED


def test_what_a_failed_run_has_left_stale_is_requested_once(instance: dg.DagsterInstance) -> None:
    """The run has made what is upstream, and was to make the asset too."""
    daemon = Daemon(CUSTOMERS, instance)
    ingested(instance)
    assert daemon.tick() == ALL_OF_CUSTOMERS
    run_assets(instance, *ALL_OF_CUSTOMERS)
    assert daemon.tick() == set()
    run = begin_run(instance, *ALL_OF_CUSTOMERS)
    end_run(instance, run, version="2", only={CLEAN_CUSTOMERS.asset}, failed=True)
    requested = daemon.tick()
    assert "customer_metrics" in requested
    assert CLEAN_CUSTOMERS.asset not in requested
    begun = begin_run(instance, *requested)
    end_run(instance, begun, version="2", only=set(), failed=True)
    assert daemon.tick() == set()


def test_what_changes_is_followed_also_where_it_is_noticed_late(
    instance: dg.DagsterInstance,
) -> None:
    """A run begins, upstream changes, and the run ends, all between two ticks."""
    daemon = daemon_that_requested_orders(instance)
    run = begin_run(instance, *ENRICHED)
    materialise(instance, CLEAN_CUSTOMERS.asset, version="2")
    end_run(instance, run)
    assert daemon.tick() >= ENRICHED
    run_assets(instance, *ENRICHED, version="2")
    assert not daemon.tick() & ENRICHED


def test_a_broken_contract_stops_what_follows(instance: dg.DagsterInstance) -> None:
    daemon = Daemon(WORKSPACE, instance)
    ingested(instance)
    materialise(instance, *ALL_OF_CUSTOMERS)
    check_contracts(instance, *CONTRACTED, passed=False)
    assert daemon.tick() == set()
    check_contracts(instance, *CONTRACTED)
    assert "enriched_orders" in daemon.tick()


def test_missing_days_are_requested_once_and_all_together(instance: dg.DagsterInstance) -> None:
    daemon = daemon_that_requested_orders(instance)
    run_assets(instance, *ENRICHED)
    assert daemon.tick() == {"daily_order_summary"}
    assert daemon.tick() == set()


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def tick(
    definitions: dg.Definitions, schedule: str, when: str, instance: dg.DagsterInstance
) -> dg.RunRequest:
    context = dg.build_schedule_context(
        instance,
        scheduled_execution_time=moment(when),
        repository_def=definitions.get_repository_def(),
    )
    found = definitions.get_schedule_def(schedule)
    (request,) = found.evaluate_tick(context).run_requests or ()
    return request


@pytest.mark.parametrize(
    ("hour", "mode"), [(0, "FULL"), (4, "FULL"), (8, "INCREMENTAL"), (20, "INCREMENTAL")]
)
def test_adaptive_schedule_is_full_at_night(
    instance: dg.DagsterInstance, hour: int, mode: str
) -> None:
    request = tick(CUSTOMERS, "adaptive_schedule", f"2026-03-01T{hour:02}:00+00:00", instance)
    modes = {
        op: request.run_config["ops"][op]["config"]["mode"] for op in request.run_config["ops"]
    }
    assert modes == {"clean_customers": mode, "customer_metrics": mode}


def test_daily_schedule_requests_the_day_before_in_new_york(instance: dg.DagsterInstance) -> None:
    request = tick(ORDERS, "daily_schedule", "2026-03-08T06:00-04:00", instance)
    assert request.partition_key == "2026-03-07"


@pytest.mark.parametrize(
    ("definitions", "schedule"),
    [(ingestion.definitions.defs, "hourly_schedule"), (CUSTOMERS, "daily_customer_schedule")],
)
def test_plain_schedules_request_their_job(
    instance: dg.DagsterInstance, definitions: dg.Definitions, schedule: str
) -> None:
    request = tick(definitions, schedule, "2026-03-01T02:00+00:00", instance)
    assert request.run_config == {}


def sensor_tick(platform: Platform, name: str, cursor: str | None) -> Any:
    definitions = ORDERS if name == "restated_days_sensor" else ingestion.definitions.defs
    sensor = definitions.get_sensor_def(name)
    resources = {
        key: definitions.resources[key]
        for key in sensor.required_resource_keys
        if definitions.resources
    }
    with dg.build_resources(resources, instance=platform.instance) as made:
        built = {key: getattr(made, key) for key in resources}
        context = dg.build_sensor_context(platform.instance, cursor=cursor, resources=built)
        return sensor.evaluate_tick(context)


def test_new_data_is_requested_once(platform: Platform) -> None:
    first = sensor_tick(platform, "new_data_sensor", None)
    (request,) = first.run_requests
    assert {key.to_user_string() for key in request.asset_selection or ()} == {
        "raw_customers",
        "raw_orders",
        "incremental_orders",
    }
    again = sensor_tick(platform, "new_data_sensor", first.cursor)
    assert not again.run_requests
    platform.execute("UPDATE public.customers SET updated_at = now() WHERE customer_id = 7")
    changed = sensor_tick(platform, "new_data_sensor", again.cursor)
    assert len(changed.run_requests or ()) == 1


def test_new_files_are_requested_once(platform: Platform) -> None:
    first = sensor_tick(platform, "new_file_sensor", None)
    assert len(first.run_requests or ()) == 1
    assert not sensor_tick(platform, "new_file_sensor", first.cursor).run_requests
    assert "watches s3://" in str(sensor_tick(platform, "s3_file_sensor", None).skip_message)


def test_days_whose_orders_changed_are_requested_again(platform: Platform) -> None:
    assert sensor_tick(platform, "restated_days_sensor", None).skip_message
    for location in ("ingestion", "customers", "orders"):
        partition = "2024-01-02" if location == "orders" else None
        assert platform.run(location, partition_key=partition).success
    settled = sensor_tick(platform, "restated_days_sensor", None)
    assert settled.skip_message == "No order has changed."
    assert settled.cursor
    platform.execute(
        "UPDATE public.orders SET total_amount = total_amount + 1, updated_at = now() "
        "WHERE order_date IN ('2024-02-01', '2024-02-02', '2024-03-05')"
    )
    assert platform.run("ingestion").success
    assert platform.run("orders", asset_selection=[dg.AssetKey("enriched_orders")]).success
    # Another day is made from the new orders; the changed ones must be found all the same.
    assert platform.run("orders", partition_key="2024-01-03").success
    found = sensor_tick(platform, "restated_days_sensor", settled.cursor)
    ranges = [
        (
            request.tags["dagster/asset_partition_range_start"],
            request.tags["dagster/asset_partition_range_end"],
        )
        for request in found.run_requests or ()
    ]
    assert ranges == [("2024-02-01", "2024-02-02"), ("2024-03-05", "2024-03-05")]
    assert not sensor_tick(platform, "restated_days_sensor", found.cursor).run_requests


def test_ranges_of_days_are_consecutive() -> None:
    days = [dt.date(2024, 1, day) for day in (1, 2, 5, 7, 8, 9)]
    ranges = [(first.day, last.day) for first, last in orders.automation._ranges(days)]
    assert ranges == [(1, 2), (5, 5), (7, 9)]
    assert list(orders.automation._ranges([])) == []
