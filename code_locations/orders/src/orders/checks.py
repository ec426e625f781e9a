"""What must hold of the orders' tables."""

import polars as pl

from forge_platform import row_check
from orders import transforms

STATUSES = (*transforms.STATUSES, transforms.OTHER_STATUS)

check_every_order_has_usd = row_check(
    "orders.enriched_orders",
    name="check_every_order_has_usd",
    description="Every order has an amount in US dollars, so no exchange rate is missing.",
    wrong=lambda rows: rows.filter(pl.col("amount_usd").is_null()),
)

check_statuses_add_up = row_check(
    "orders.sales_daily_summary",
    name="check_statuses_add_up",
    description="The orders and the revenue of a day are those of its statuses together.",
    wrong=lambda rows: rows.filter(
        (pl.sum_horizontal(f"orders_{status}" for status in STATUSES) != pl.col("order_count"))
        | (pl.sum_horizontal(f"revenue_{status}" for status in STATUSES) != pl.col("revenue"))
    ),
)

checks = [check_every_order_has_usd, check_statuses_add_up]
