"""Orders: enriched and summed up by day. Data frames in, data frames out.

Money is decimal in and out. Sums are exact; products and quotients are rounded to the cent
with ties to the even cent, so that no rounding adds up over many orders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Protocol

import polars as pl

BASE_CURRENCY = "USD"
RATE_VALID_FOR = timedelta(days=7)
MOVING_AVERAGE_DAYS = 7

STATUSES = ("pending", "paid", "shipped", "delivered")
OTHER_STATUS = "other"

SUMMARISED = ("order_id", "order_date", "customer_id", "amount_usd")
"""The columns of enriched orders that the daily summary is made of."""

_RATE = pl.Decimal(18, 8)
_AMOUNT = pl.Decimal(14, 2)
_CENTS = pl.Decimal(38, 2)


class Change(Protocol):
    """What differs between two states of a table."""

    @property
    def rows(self) -> pl.DataFrame:
        """Inserted rows and the new version of updated ones."""

    @property
    def removed(self) -> pl.DataFrame:
        """Deleted rows and the old version of updated ones."""


def enriched_orders(
    orders: pl.DataFrame, customers: pl.DataFrame, rates: pl.DataFrame
) -> pl.DataFrame:
    """Every order once, with its customer and its amount in US dollars.

    The rate is that of the order's day or, when there was none (weekends, holidays), the newest
    one of the 7 days before. Without any ``usd_per_unit`` and ``amount_usd`` are NULL;
    ``missing_rates`` finds them.

    Args:
        orders: raw orders; their columns and their row order are kept.
        customers: clean customers; an order of somebody else is not ``customer_known``.
        rates: US dollars per unit of a currency and day.
    """
    names = customers.select(
        "customer_id", "email", "first_name", "last_name", customer_known=pl.lit(True)
    )
    return (
        orders.join(names, on="customer_id", how="left", validate="m:1", maintain_order="left")
        .join(
            _rates_of(orders, rates),
            on=["currency", "order_date"],
            how="left",
            validate="m:1",
            maintain_order="left",
        )
        .with_columns(pl.col("customer_known").fill_null(False), usd_per_unit=_usd_per_unit())
        .with_columns(amount_usd=_amount_usd())
    )


def _rates_of(orders: pl.DataFrame, rates: pl.DataFrame) -> pl.DataFrame:
    """The rate that applies to each currency and day on which there are orders."""
    return (
        orders.select("currency", "order_date")
        .drop_nulls()
        .unique()
        .sort("order_date")
        .join_asof(
            rates.select("currency", "usd_per_unit", rate_date="date").sort("rate_date"),
            left_on="order_date",
            right_on="rate_date",
            by="currency",
            tolerance=RATE_VALID_FOR,
            check_sortedness=False,  # both are sorted; Polars cannot see it within a currency
        )
        .select("currency", "order_date", "usd_per_unit")
    )


def _usd_per_unit() -> pl.Expr:
    one = pl.lit(Decimal(1), dtype=_RATE)
    return pl.when(pl.col("currency") == BASE_CURRENCY).then(one).otherwise("usd_per_unit")


def _amount_usd() -> pl.Expr:
    # With all of its 2 + 8 decimals, so that it is rounded once and not twice.
    product = pl.col("total_amount").cast(pl.Decimal(38, 10)) * pl.col("usd_per_unit")
    return product.round(2, mode="half_to_even").cast(_AMOUNT)


def missing_rates(enriched: pl.DataFrame) -> pl.DataFrame:
    """Currencies and days whose orders have no amount in US dollars.

    Returns:
        ``currency``, ``order_date`` and ``orders``; empty when every rate was found.
    """
    return (
        enriched.filter(pl.col("usd_per_unit").is_null())
        .group_by("currency", "order_date")
        .agg(orders=pl.len().cast(pl.Int64))
        .sort("currency", "order_date")
    )


def affected_orders(
    orders: pl.DataFrame, of_orders: Change, of_customers: Change, of_rates: Change
) -> pl.DataFrame:
    """Orders whose enriched row can differ after changes of what it is made from.

    Args:
        orders: raw orders as they are now.
        of_orders: changes of the raw orders.
        of_customers: changes of the clean customers.
        of_rates: changes of the exchange rates; each touches its day and the 7 days after.

    Returns:
        ``order_id``, each once, also of orders that are gone.
    """
    rate = _touched(of_rates, "currency", "date")
    days = pl.date_ranges("date", pl.col("date") + RATE_VALID_FOR)
    rate_days = rate.select("currency", order_date=days).explode("order_date")
    foreign = orders.filter(pl.col("currency") != BASE_CURRENCY)
    of_customer = orders.join(_touched(of_customers, "customer_id"), on="customer_id", how="semi")
    of_rate = foreign.join(rate_days, on=["currency", "order_date"], how="semi")
    return pl.concat(
        [
            _touched(of_orders, "order_id"),
            of_customer.select("order_id"),
            of_rate.select("order_id"),
        ]
    ).unique()


def _touched(change: Change, *columns: str) -> pl.DataFrame:
    return pl.concat([change.rows.select(columns), change.removed.select(columns)]).unique()


def restated_days(rows: pl.DataFrame, removed: pl.DataFrame) -> list[date]:
    """Days whose summary differs after a change of the enriched orders, in order.

    A new name or e-mail address of a customer changes an order, but no summary.

    Args:
        rows: inserted orders and the new version of updated ones.
        removed: deleted orders and the old version of updated ones.
    """
    new, old = rows.select(SUMMARISED), removed.select(SUMMARISED)
    different = pl.concat(
        [
            new.join(old, on=SUMMARISED, how="anti", nulls_equal=True),
            old.join(new, on=SUMMARISED, how="anti", nulls_equal=True),
        ]
    )
    return different["order_date"].drop_nulls().unique().sort().to_list()


def daily_order_summary(orders: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """One row for each of the days, in order, zeros for a day without orders.

    Args:
        orders: enriched orders; those without an amount in US dollars count, but add nothing.
        days: the days that are asked for.
    """
    asked = pl.DataFrame({"date": days}, schema={"date": pl.Date})
    return (
        _orders_of(asked.unique(), orders)
        .group_by("date", maintain_order=True)
        .agg(
            order_count=_count(_is_order()),
            total_revenue=_revenue(),
            unique_customers=pl.col("customer_id").drop_nulls().n_unique().cast(pl.Int64),
        )
    )


def sales_daily_summary(orders: pl.DataFrame) -> pl.DataFrame:
    """One row for each day from the first order's to the last one's, also for days without any.

    Beside ``date``, ``order_count``, ``revenue`` and ``avg_order_value`` (NULL on a day without
    orders) there are ``revenue_7d_avg``, the mean of the day and the 6 calendar days before,
    fewer where the table begins, and ``orders_<status>`` and ``revenue_<status>`` for each of
    ``STATUSES`` and for ``other``, which is every other status and none.

    Args:
        orders: enriched orders; those without an amount in US dollars count, but add nothing.
    """
    span = pl.date_ranges(pl.min("order_date"), pl.max("order_date"))
    calendar = orders.select(date=span.explode().drop_nulls())
    summary = (
        _orders_of(calendar, orders)
        .group_by("date", maintain_order=True)
        .agg(
            _count(_is_order()).alias("order_count"),
            _revenue().alias("revenue"),
            _average().alias("avg_order_value"),
            *_count_and_revenue_by_status(),
        )
    )
    return summary.with_columns(_moving_average(summary))


def _orders_of(days: pl.DataFrame, orders: pl.DataFrame) -> pl.DataFrame:
    """The orders of the days; a day without any is one row that is no order."""
    return days.sort("date").join(
        orders, left_on="date", right_on="order_date", how="left", maintain_order="left"
    )


def _is_order() -> pl.Expr:
    return pl.col("order_id").is_not_null()


def _count(rows: pl.Expr) -> pl.Expr:
    return rows.sum().cast(pl.Int64)


def _revenue() -> pl.Expr:
    return pl.col("amount_usd").sum().cast(_CENTS)


def _average() -> pl.Expr:
    # Orders without an amount are left out: each would count as one over nothing.
    return _revenue() / pl.col("amount_usd").count().replace(0, None)


def _count_and_revenue_by_status() -> Iterator[pl.Expr]:
    known = pl.col("status").is_in(STATUSES)
    status = pl.when(known).then("status").otherwise(pl.lit(OTHER_STATUS))
    for name in (*STATUSES, OTHER_STATUS):
        rows = _is_order() & (status == name)
        yield _count(rows).alias(f"orders_{name}")
        yield pl.col("amount_usd").filter(rows).sum().cast(_CENTS).alias(f"revenue_{name}")


def _moving_average(summary: pl.DataFrame) -> pl.Series:
    window = summary.rolling("date", period=timedelta(days=MOVING_AVERAGE_DAYS))
    return window.agg(revenue_7d_avg=pl.col("revenue").sum() / pl.len())["revenue_7d_avg"]
