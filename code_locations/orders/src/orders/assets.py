"""Orders: enriched with customer and US dollars, and summed up by day."""

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from forge_platform import (
    RETRY_TRANSIENT,
    Changes,
    IcebergResource,
    RunModeConfig,
    TableView,
    TableWrite,
    on_missing_partitions,
    on_upstream_change,
    picture,
    plan_work,
    snapshots,
    table_options,
)

FIRST_DAY = "2024-01-01"
daily_partitions = dg.DailyPartitionsDefinition(start_date=FIRST_DAY)


@dg.asset(
    kinds={"polars", "iceberg"},
    metadata=table_options(mode="overwrite", key=("order_id",)),
    automation_condition=on_upstream_change(),
    retry_policy=RETRY_TRANSIENT,
)
def enriched_orders(
    config: RunModeConfig,
    iceberg: IcebergResource,
    raw_orders: TableView,
    clean_customers: TableView,
    exchange_rates: TableView,
) -> TableWrite:
    """Every order with its customer and its amount in US dollars.

    The rate is that of the order's day, or the newest of the 7 days before.
    """
    import polars as pl

    from orders import transforms

    def affected(changes: Sequence[Changes]) -> pl.DataFrame:
        known = raw_orders.read(["order_id", "customer_id", "currency", "order_date"])
        return transforms.affected_orders(known, *changes)

    upstream = [raw_orders, clean_customers, exchange_rates]
    work = plan_work(iceberg, "orders.enriched_orders", upstream, config, affected)
    orders = work.rows(raw_orders)
    enriched = transforms.enriched_orders(orders, clean_customers.read(), exchange_rates.read())
    missing = transforms.missing_rates(enriched)
    return work.write(
        enriched,
        rows_read=orders.height,
        metadata={
            "unknown_customers": enriched.filter(~pl.col("customer_known")).height,
            "missing_rates": missing.height,
        },
    )


@dg.asset(
    kinds={"polars", "iceberg"},
    partitions_def=daily_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    metadata=table_options(mode="merge", key=("date",), partition_by="date"),
    automation_condition=on_missing_partitions(),
    retry_policy=RETRY_TRANSIENT,
)
def daily_order_summary(
    context: dg.AssetExecutionContext, enriched_orders: TableView
) -> TableWrite:
    """Orders, revenue in US dollars and customers of each day; a day without orders has zeros."""
    import polars as pl

    from orders import transforms

    days = [dt.date.fromisoformat(key) for key in context.partition_keys]
    wanted = pl.col("order_date").is_between(min(days), max(days))
    orders = enriched_orders.scan().filter(wanted).collect()
    return TableWrite(
        rows=transforms.daily_order_summary(orders, days),
        inputs=snapshots(enriched_orders),
        rows_read=orders.height,
    )


@dg.asset(
    kinds={"polars", "iceberg"},
    metadata=table_options(mode="overwrite", key=("date",)),
    automation_condition=on_upstream_change(),
    retry_policy=RETRY_TRANSIENT,
)
def sales_daily_summary(enriched_orders: TableView) -> TableWrite:
    """All days: revenue, average order value, 7-day moving average, and both by status."""
    from orders import pictures, transforms

    orders = enriched_orders.read()
    summary = transforms.sales_daily_summary(orders)
    return TableWrite(
        rows=summary,
        inputs=snapshots(enriched_orders),
        rows_read=orders.height,
        metadata={"revenue_curve": picture(pictures.revenue_curve(summary), "revenue")},
    )
