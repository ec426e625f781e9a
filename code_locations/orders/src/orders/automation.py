"""When the orders' assets run beside their own automation conditions."""

import datetime as dt
from collections.abc import Iterator, Sequence
from itertools import groupby

import dagster as dg

from forge_platform import IcebergResource, current_environment, location_tags
from orders.assets import daily_partitions

ENRICHED = "orders.enriched_orders"
DAILY = "orders.daily_order_summary"

transformation_job = dg.define_asset_job(
    "transformation_job",
    selection=dg.AssetSelection.groups("orders"),
    tags=location_tags("orders"),
    description="All order assets, and one day of the daily summary.",
)


@dg.schedule(
    job=transformation_job,
    cron_schedule="0 6 * * *",
    execution_timezone="America/New_York",
    default_status=current_environment().schedule_status,
    description="Daily at 6 AM New York time: yesterday's summary, and everything it needs.",
)
def daily_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Requests the day before the one that the tick was planned for."""
    day = context.scheduled_execution_time.date() - dt.timedelta(days=1)
    return dg.RunRequest(partition_key=day.isoformat(), run_key=day.isoformat())


@dg.sensor(
    target=dg.AssetSelection.assets("daily_order_summary"),
    minimum_interval_seconds=60,
    default_status=current_environment().sensor_status,
    description="Makes the daily summaries again whose orders changed after they were made.",
)
def restated_days_sensor(
    context: dg.SensorEvaluationContext, iceberg: IcebergResource
) -> dg.SensorResult | dg.SkipReason:
    """Compares the snapshot of the orders with the one that the summaries have seen.

    Days are requested once: a run that fails for good is repeated by hand, as any other.
    """
    from orders import transforms

    seen = int(context.cursor) if context.cursor else iceberg.inputs(DAILY).get(ENRICHED)
    if seen is None:
        return dg.SkipReason("The daily summary was never made; its own automation makes it.")
    view = iceberg.view(ENRICHED)
    if view.snapshot_id == seen:
        # Kept also now: what the summary has seen moves on with any day that is made.
        return dg.SensorResult(skip_reason="No order has changed.", cursor=str(seen))
    changes = view.changes_since(seen, transforms.SUMMARISED)
    existing = set(daily_partitions.get_partition_keys())
    days = transforms.restated_days(changes.rows, changes.removed)
    requests = [
        _request(first, last, f"{view.snapshot_id}/{first}")
        for first, last in _ranges([day for day in days if day.isoformat() in existing])
    ]
    return dg.SensorResult(run_requests=requests, cursor=str(view.snapshot_id))


def _request(first: dt.date, last: dt.date, run_key: str) -> dg.RunRequest:
    """One run for all days of a range."""
    tags = {
        **location_tags("orders"),
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }
    return dg.RunRequest(run_key=run_key, tags=tags)


def _ranges(days: Sequence[dt.date]) -> Iterator[tuple[dt.date, dt.date]]:
    """First and last day of every run of consecutive days; the days are sorted."""
    numbered = enumerate(days)
    for _, consecutive in groupby(numbered, key=lambda item: item[1].toordinal() - item[0]):
        members = [day for _, day in consecutive]
        yield members[0], members[-1]
