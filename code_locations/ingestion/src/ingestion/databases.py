"""What the source database has: customers and orders, incrementally."""

import datetime as dt
from functools import partial

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
from forge_platform.contracts import RAW_CUSTOMERS, RAW_ORDERS, TableContract

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
        **table_options(mode="merge", key=RAW_CUSTOMERS.key),
        **source_metadata(CUSTOMERS),
    },
    retry_policy=RETRY_TRANSIENT,
)
def raw_customers(
    config: DeletesConfig, database: DatabaseResource, iceberg: IcebergResource
) -> TableWrite:
    """Customers that changed since the watermark, merged by key."""
    return _merged(RAW_CUSTOMERS, CUSTOMERS, config, database, iceberg)


@dg.asset(
    description=RAW_ORDERS.description,
    kinds={"postgres", "iceberg"},
    metadata={
        **table_options(mode="merge", key=RAW_ORDERS.key),
        **source_metadata(ORDERS),
    },
    retry_policy=RETRY_TRANSIENT,
)
def raw_orders(
    config: DeletesConfig, database: DatabaseResource, iceberg: IcebergResource
) -> TableWrite:
    """Orders that changed since the watermark and those of the last 7 days, merged by key."""
    return _merged(RAW_ORDERS, ORDERS, config, database, iceberg)


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


def _merged(
    contract: TableContract,
    source: SourceTable,
    config: DeletesConfig,
    database: DatabaseResource,
    iceberg: IcebergResource,
) -> TableWrite:
    position = iceberg.position(contract.identifier)
    extraction = partial(extract, database, source, config, position)
    if not config.compare_keys or config.mode == "full":
        return extraction()
    return remove_missing_keys(extraction, database, source, iceberg, contract.identifier, config)
