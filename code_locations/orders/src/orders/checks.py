"""What must hold of the orders' tables."""

from typing import TYPE_CHECKING

from forge_platform import row_check

if TYPE_CHECKING:
    import polars as pl

check_every_order_has_usd = row_check(
    "orders.enriched_orders",
    name="check_every_order_has_usd",
    description="Every order has an amount in US dollars, so no exchange rate is missing.",
    wrong=lambda rows: rows.sql("SELECT * FROM self WHERE amount_usd IS NULL"),
)


def unbalanced_days(rows: "pl.LazyFrame") -> "pl.LazyFrame":
    """The days whose statuses together are not the day."""
    import polars as pl

    from orders import transforms

    statuses = (*transforms.STATUSES, transforms.OTHER_STATUS)
    orders = pl.sum_horizontal(f"orders_{status}" for status in statuses)
    revenue = pl.sum_horizontal(f"revenue_{status}" for status in statuses)
    return rows.filter((orders != pl.col("order_count")) | (revenue != pl.col("revenue")))


check_statuses_add_up = row_check(
    "orders.sales_daily_summary",
    name="check_statuses_add_up",
    description="The orders and the revenue of a day are those of its statuses together.",
    wrong=unbalanced_days,
)

checks = [check_every_order_has_usd, check_statuses_add_up]
