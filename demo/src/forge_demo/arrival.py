"""How much of a change of the source has arrived in the tables of the three domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from forge_platform import IcebergResource


@dataclass(frozen=True)
class Change:
    """What was changed in the source.

    Attributes:
        began: start of the first transaction; nothing of the change is older.
        customers: ids of the customers who have a new name and e-mail.
        orders: ids of the new orders, each with its customer, who is one of those.
    """

    began: datetime
    customers: Sequence[int]
    orders: Mapping[int, int]

    def split(self, count: int) -> tuple[Change, Change]:
        """The first customers with their orders, and the others with theirs."""
        return self._of(self.customers[:count]), self._of(self.customers[count:])

    def _of(self, customers: Sequence[int]) -> Change:
        known = set(customers)
        orders = {order: buyer for order, buyer in self.orders.items() if buyer in known}
        return Change(self.began, customers, orders)


@dataclass(frozen=True)
class Arrival:
    """How much of what is expected a table has."""

    table: str
    what: str
    expected: int
    found: int

    @property
    def is_complete(self) -> bool:
        """Whether all of it is there."""
        return self.found == self.expected


def arrivals(
    variables: Mapping[str, str], change: Change, recent_orders: Mapping[date, int]
) -> list[Arrival]:
    """Looks into the tables.

    Args:
        variables: the demo's, for its catalog.
        change: what is looked for.
        recent_orders: how many orders the source has of each day of the new orders.
    """
    iceberg = IcebergResource(
        catalog_uri=variables["ICEBERG_CATALOG_URI"],
        warehouse_path=variables["ICEBERG_WAREHOUSE"],
    )

    def arrival(table: str, what: str, expected: int, rows: pl.Expr) -> Arrival:
        found = iceberg.view(table).scan().filter(rows).select(pl.len()).collect().item()
        return Arrival(table, what, expected, found)

    customers = pl.col("customer_id").is_in(change.customers)
    changed = customers & (pl.col("updated_at") >= change.began)
    buyers = pl.col("customer_id").is_in(list(change.orders.values()))
    ordered = buyers & pl.col("last_order_date").is_in(list(recent_orders))
    orders = pl.col("order_id").is_in(list(change.orders))
    return [
        arrival("ingestion.raw_customers", "customers", len(change.customers), changed),
        arrival("ingestion.raw_orders", "orders", len(change.orders), orders),
        arrival("ingestion.incremental_orders", "orders", len(change.orders), orders),
        arrival("customers.clean_customers", "customers", len(change.customers), changed),
        arrival("customers.customer_metrics", "buyers", len(change.orders), ordered),
        arrival("orders.enriched_orders", "orders", len(change.orders), orders),
        _summed(iceberg, recent_orders),
    ]


def _summed(iceberg: IcebergResource, recent_orders: Mapping[date, int]) -> Arrival:
    table = "orders.daily_order_summary"
    days = iceberg.view(table).scan().filter(pl.col("date").is_in(list(recent_orders)))
    found = days.select(pl.col("order_count").sum()).collect().item()
    return Arrival(table, "orders of those days", sum(recent_orders.values()), found)
