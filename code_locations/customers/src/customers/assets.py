"""Customers: cleaned, measured, valued, and handed out to PostgreSQL and S3."""

import datetime as dt
from collections.abc import Iterator
from io import BytesIO

import dagster as dg

from forge_platform import (
    RETRY_TRANSIENT,
    DatabaseResource,
    IcebergResource,
    RunModeConfig,
    S3Resource,
    TableView,
    TableWrite,
    keys_of,
    on_upstream_change,
    picture,
    plan_work,
    snapshots,
    sync_table,
    table_options,
    written,
)

KEY = ("customer_id",)
REJECTED = "customers.rejected_customers"
CLEAN = "customers.clean_customers"


@dg.multi_asset(
    outs={
        "rejected_customers": dg.AssetOut(
            description="Every customer row that was removed while cleaning, with the reason.",
            metadata=table_options(mode="overwrite"),
            kinds={"polars", "iceberg"},
            automation_condition=on_upstream_change(),
        ),
        "clean_customers": dg.AssetOut(
            description="Customers with a valid e-mail address: newest row per customer, "
            "lower-case e-mail, names stripped.",
            metadata=table_options(mode="overwrite", key=KEY),
            kinds={"polars", "iceberg"},
            automation_condition=on_upstream_change(),
        ),
    },
    retry_policy=RETRY_TRANSIENT,
)
def clean_customers(
    context: dg.AssetExecutionContext,
    config: RunModeConfig,
    iceberg: IcebergResource,
    raw_customers: TableView,
    raw_customer_files: TableView,
) -> Iterator[dg.Output[TableWrite]]:
    """Cleans the customers whose rows changed; rejected rows are written before clean ones."""
    from customers import transforms

    work = plan_work(
        iceberg,
        [REJECTED, CLEAN],
        [raw_customers, raw_customer_files],
        config,
        keys_of("customer_id"),
    )
    raw, files = work.rows(raw_customers), work.rows(raw_customer_files)
    cleaned = transforms.clean_customers(
        raw, files, run_id=context.run_id, processed_at=dt.datetime.now(dt.UTC)
    )
    rows_read = raw.height + files.height
    rejected = work.write(cleaned.rejected, REJECTED, rows_read=rows_read)
    yield dg.Output(rejected, "rejected_customers")
    clean = work.write(
        cleaned.clean,
        CLEAN,
        rows_read=rows_read,
        rows_rejected=cleaned.rejected.height,
        metadata={"removed_by_reason": dict(cleaned.counts)},
    )
    yield dg.Output(clean, "clean_customers")


@dg.asset(
    kinds={"polars", "iceberg"},
    metadata=table_options(mode="overwrite", key=KEY),
    retry_policy=RETRY_TRANSIENT,
    automation_condition=on_upstream_change(),
)
def customer_metrics(
    config: RunModeConfig,
    iceberg: IcebergResource,
    clean_customers: TableView,
    raw_orders: TableView,
) -> TableWrite:
    """What each customer ordered: how often, how much, from when to when.

    Amounts are in the customer's currency. A customer without orders has zeros.
    """
    from customers import transforms

    work = plan_work(
        iceberg,
        "customers.customer_metrics",
        [clean_customers, raw_orders],
        config,
        keys_of("customer_id"),
    )
    customers, orders = work.rows(clean_customers), work.rows(raw_orders)
    metrics = transforms.customer_metrics(customers, orders)
    return work.write(metrics, rows_read=customers.height + orders.height)


@dg.asset(
    kinds={"polars", "iceberg"},
    metadata=table_options(mode="overwrite", key=KEY),
    retry_policy=RETRY_TRANSIENT,
    automation_condition=on_upstream_change(),
)
def customer_clv(clean_customers: TableView, raw_orders: TableView) -> TableWrite:
    """Customer lifetime value (CLV): past 12 months, and what is expected to follow.

    Methodology (docs/clv.md):

    - historical: sum of purchases of the 12 months up to the newest order
    - retention: share of the customer's cohort that bought again from one year to the next
    - predicted: expected future value at that retention, discounted at 10 % a year
    - total: historical + predicted
    """
    from customers import pictures, transforms

    customers = clean_customers.read(["customer_id"])
    orders = raw_orders.read()
    as_of = orders["order_date"].max()
    if not isinstance(as_of, dt.date):
        as_of = dt.datetime.now(dt.UTC).date()
    retention = transforms.cohort_retention(orders)
    return TableWrite(
        rows=transforms.customer_clv(customers, orders, as_of),
        inputs=snapshots(clean_customers, raw_orders),
        rows_read=customers.height + orders.height,
        metadata={
            "as_of": as_of.isoformat(),
            "cohort_retention": picture(pictures.retention_heat_map(retention), "retention"),
        },
    )


@dg.asset(
    kinds={"postgres"},
    retry_policy=RETRY_TRANSIENT,
    automation_condition=on_upstream_change(),
)
def customer_metrics_serving(
    context: dg.AssetExecutionContext,
    serving_database: DatabaseResource,
    customer_metrics: TableView,
) -> dg.MaterializeResult[None]:
    """The metrics in PostgreSQL, for applications; a reader sees the old rows or the new ones."""
    metrics = customer_metrics.read()
    counts = sync_table(serving_database, "serving", "customer_metrics", KEY, metrics)
    return written(context, customer_metrics, metrics.height, **counts.as_metadata())


@dg.asset(
    kinds={"s3", "parquet"},
    retry_policy=RETRY_TRANSIENT,
    automation_condition=on_upstream_change(),
)
def customer_metrics_export(
    context: dg.AssetExecutionContext, exports: S3Resource, customer_metrics: TableView
) -> dg.MaterializeResult[None]:
    """The metrics as one Parquet file on S3, replaced at once."""
    metrics = customer_metrics.read()
    file = BytesIO()
    metrics.write_parquet(file)
    uri = exports.write("customer_metrics.parquet", file.getvalue())
    size = file.getbuffer().nbytes
    return written(context, customer_metrics, metrics.height, uri=uri, bytes=size)
