"""What must hold of the orders' tables."""

import polars as pl

from forge_platform import row_check

check_every_order_has_usd = row_check(
    "orders.enriched_orders",
    name="check_every_order_has_usd",
    description="Every order has an amount in US dollars, so no exchange rate is missing.",
    wrong=lambda rows: rows.filter(pl.col("amount_usd").is_null()),
)

check_no_negative_revenue = row_check(
    "orders.sales_daily_summary",
    name="check_no_negative_revenue",
    description="No day has a negative number of orders.",
    wrong=lambda rows: rows.filter(pl.col("order_count") < 0),
)

checks = [check_every_order_has_usd, check_no_negative_revenue]
