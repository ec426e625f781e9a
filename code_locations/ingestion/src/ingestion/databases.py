"""What the source database has: customers and orders, incrementally."""

import datetime as dt

import dagster as dg

from forge_platform import (
    RETRY_TRANSIENT,
    DatabaseResource,
    DeletesConfig,
    ExtractConfig,
    IcebergResource,
    Recent,
    SourceTable,
    TableWrite,
    extract,
    remove_missing_keys,
    source_metadata,
    table_options,
)
from forge_platform.contracts import RAW_CUSTOMERS, RAW_ORDERS

CUSTOMERS = SourceTable(
    "public",
    "customers",
    columns={
        "customer_id": "bigint",
        "email": "text",
        "first_name": "text",
        "last_name": "text",
        "created_at": "timestamptz",
        "updated_at": "timestamptz",
    },
    key=("customer_id",),
)

ORDERS = SourceTable(
    "public",
    "orders",
    columns={
        "order_id": "bigint",
        "customer_id": "bigint",
        "order_date": "date",
        "status": "text",
        "quantity": "integer",
        "total_amount": "numeric(12,2)",
        "currency": "text",
        "created_at": "timestamptz",
        "updated_at": "timestamptz",
    },
    key=("order_id",),
    also=Recent("order_date", dt.timedelta(days=7)),
)

ORDER_VERSIONS = SourceTable("public", "orders", columns=ORDERS.columns, versions="all")


@dg.asset(
    description=RAW_CUSTOMERS.description,
    kinds={"postgres", "iceberg"},
    metadata={
        **table_options(mode="merge", key=RAW_CUSTOMERS.key, order_by="updated_at"),
        **source_metadata(CUSTOMERS),
    },
    retry_policy=RETRY_TRANSIENT,
)
def raw_customers(
    config: DeletesConfig, database: DatabaseResource, iceberg: IcebergResource
) -> TableWrite:
    """Customers that changed since the watermark, merged by key."""
    write = extract(database, CUSTOMERS, config, iceberg.position(RAW_CUSTOMERS.identifier))
    if not config.compare_keys:
        return write
    return remove_missing_keys(write, database, CUSTOMERS, iceberg, RAW_CUSTOMERS.identifier)


@dg.asset(
    description=RAW_ORDERS.description,
    kinds={"postgres", "iceberg"},
    metadata={
        **table_options(mode="merge", key=RAW_ORDERS.key, order_by="updated_at"),
        **source_metadata(ORDERS),
    },
    retry_policy=RETRY_TRANSIENT,
)
def raw_orders(
    config: DeletesConfig, database: DatabaseResource, iceberg: IcebergResource
) -> TableWrite:
    """Orders that changed since the watermark and those of the last 7 days, merged by key."""
    write = extract(database, ORDERS, config, iceberg.position(RAW_ORDERS.identifier))
    if not config.compare_keys:
        return write
    return remove_missing_keys(write, database, ORDERS, iceberg, RAW_ORDERS.identifier)


@dg.asset(
    kinds={"postgres", "iceberg"},
    metadata={
        **table_options(mode="append", key=("order_id", "updated_at")),
        **source_metadata(ORDER_VERSIONS),
    },
    retry_policy=RETRY_TRANSIENT,
)
def incremental_orders(
    config: ExtractConfig, database: DatabaseResource, iceberg: IcebergResource
) -> TableWrite:
    """Append-only log of orders: every version that was seen, once."""
    position = iceberg.position("ingestion.incremental_orders")
    return extract(database, ORDER_VERSIONS, config, position)
