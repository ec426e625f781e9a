"""The edges between code locations: what a table promises to readers in other locations.

A producer's table is checked against its contract after every write; a consumer lists the
contract's ``spec()`` beside its own assets, so that lineage is unbroken and a location
loads without importing another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg

IO_MANAGER_KEY = "iceberg_io_manager"
NAMESPACE = "forge/namespace"


@dataclass(frozen=True, kw_only=True)
class TableContract:
    """What a code location promises about one of its tables.

    Attributes:
        location: the code location that writes it; also the Iceberg namespace.
        asset: asset key and table name.
        columns: column name to Iceberg type, as Iceberg prints it.
        key: columns that identify a row; unique and never NULL.
        owner: e-mail address, or ``team:`` and a name.
        max_age: a materialisation older than this is stale.
        partitions: how the table is partitioned, if it is.
    """

    location: str
    asset: str
    description: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    owner: str
    max_age: timedelta
    partitions: dg.PartitionsDefinition[str] | None = None

    @property
    def asset_key(self) -> dg.AssetKey:
        """The asset's key, the same in every location."""
        return dg.AssetKey(self.asset)

    @property
    def identifier(self) -> str:
        """The table's name in the catalog, before an environment's prefix."""
        return f"{self.location}.{self.asset}"

    def spec(self) -> dg.AssetSpec:
        """The asset as a consumer in another location lists it."""
        return dg.AssetSpec(
            self.asset_key,
            description=self.description,
            group_name=self.location,
            owners=[self.owner],
            kinds={"iceberg"},
            partitions_def=self.partitions,
            metadata={NAMESPACE: self.location},
        ).with_io_manager_key(IO_MANAGER_KEY)


RAW_CUSTOMERS = TableContract(
    location="ingestion",
    asset="raw_customers",
    description="Customers as the source has them, newest row per customer.",
    columns={
        "customer_id": "long",
        "email": "string",
        "first_name": "string",
        "last_name": "string",
        "created_at": "timestamptz",
        "updated_at": "timestamptz",
    },
    key=("customer_id",),
    owner="team:ingestion",
    max_age=timedelta(hours=26),
)

RAW_ORDERS = TableContract(
    location="ingestion",
    asset="raw_orders",
    description="Orders as the source has them, current state of every order.",
    columns={
        "order_id": "long",
        "customer_id": "long",
        "order_date": "date",
        "status": "string",
        "quantity": "int",
        "total_amount": "decimal(12, 2)",
        "currency": "string",
        "created_at": "timestamptz",
        "updated_at": "timestamptz",
    },
    key=("order_id",),
    owner="team:ingestion",
    max_age=timedelta(hours=26),
)

RAW_CUSTOMER_FILES = TableContract(
    location="ingestion",
    asset="raw_customer_files",
    description="Customer rows from files that partners drop, each file exactly once.",
    columns={
        "customer_id": "long",
        "email": "string",
        "first_name": "string",
        "last_name": "string",
        "created_at": "timestamptz",
        "updated_at": "timestamptz",
        "_source_file": "string",
        "_source_line": "long",
    },
    key=("_source_file", "_source_line"),
    owner="team:ingestion",
    max_age=timedelta(days=8),
)

EXCHANGE_RATES = TableContract(
    location="ingestion",
    asset="exchange_rates",
    description="Daily exchange rates: how many US dollars one unit of a currency is worth.",
    columns={"date": "date", "currency": "string", "usd_per_unit": "decimal(18, 8)"},
    key=("date", "currency"),
    owner="team:ingestion",
    max_age=timedelta(days=4),
)

CLEAN_CUSTOMERS = TableContract(
    location="customers",
    asset="clean_customers",
    description="Customers with a valid e-mail address, newest row per customer, normalised.",
    columns={
        "customer_id": "long",
        "email": "string",
        "first_name": "string",
        "last_name": "string",
        "created_at": "timestamptz",
        "updated_at": "timestamptz",
        "_processing_run_id": "string",
        "_processed_at": "timestamptz",
    },
    key=("customer_id",),
    owner="team:customers",
    max_age=timedelta(hours=26),
)

CONTRACTS: tuple[TableContract, ...] = (
    RAW_CUSTOMERS,
    RAW_ORDERS,
    RAW_CUSTOMER_FILES,
    EXCHANGE_RATES,
    CLEAN_CUSTOMERS,
)
