"""Customers: cleaned, measured and valued. Data frames in, data frames out.

Money is decimal in and out. Sums are exact; a quotient is rounded to the cent with ties to the
even cent, as Polars divides decimals, so that no rounding adds up over many customers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

import polars as pl

DISCOUNT_RATE = Decimal("0.10")

DATABASE = "raw_customers"

ID_MISSING = "customer_id is missing"
SUPERSEDED = "superseded by a newer row"
EMAIL_MISSING = "email is missing"
EMAIL_WITHOUT_DOMAIN = "email has no domain"
EMAIL_MALFORMED = "email is malformed"
REASONS = (ID_MISSING, SUPERSEDED, EMAIL_MISSING, EMAIL_WITHOUT_DOMAIN, EMAIL_MALFORMED)

_CONTENT = ("created_at", "email", "first_name", "last_name")
_ORIGIN = ("_source_file", "_source_line")
_CLEAN = ("customer_id", "email", "first_name", "last_name", "created_at", "updated_at")
_REJECTED = ("customer_id", "email", "first_name", "last_name", "updated_at", "source", "reason")

_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TOP_LEVEL = r"(?:[a-z]{2,63}|xn--[a-z0-9-]{0,58}[a-z0-9])"
_ADDRESS = rf"^{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+{_TOP_LEVEL}$"
_LOCAL_PART_FITS = r"^[^@]{1,64}@"
_ADDRESS_LENGTH = 254

_CENTS = pl.Decimal(38, 2)
_ZERO = pl.lit(Decimal("0.00"), dtype=_CENTS)


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """Customers that are fit for use, and every row that was removed with its reason.

    Attributes:
        clean: one row per customer.
        rejected: every other row that was read, as it was read.
        counts: reason to the number of rows rejected for it; every known reason is there.
    """

    clean: pl.DataFrame
    rejected: pl.DataFrame
    counts: Mapping[str, int]


def clean_customers(
    raw: pl.DataFrame, files: pl.DataFrame, *, run_id: str, processed_at: datetime
) -> Cleaned:
    """Takes the newest row of each customer and keeps it if its e-mail address is valid.

    The newest row is the one with the newest ``updated_at``. Where that is equal a row of the
    database comes before one of a file, and of two file rows the later one wins: the greater
    file name, then the greater line. Only the newest row is judged: when it is not valid the
    customer is rejected, and an older valid row does not come back, because it says what is
    no longer true.

    A valid address is ``local@domain``. The local part has at most 64 characters: ASCII letters,
    digits and ``!#$%&'*+/=?^_`{|}~-``, with single dots between them. The domain has two labels
    or more, each of letters, digits and inner hyphens, at most 63; the last one has two letters
    or more, or is punycode (``xn--…``). The whole has at most 254. Quoted local parts, addresses
    of hosts by number and letters beyond ASCII are refused: they are typing errors more often.

    A customer's result depends on the rows of that customer only. It may therefore be called
    with some customers, provided that all current rows of each of them are passed.

    Args:
        raw: rows of the database.
        files: rows of files; ``_source_file`` and ``_source_line`` say where they come from.
        run_id: identifies the run, kept in ``_processing_run_id``.
        processed_at: when it ran, with a time zone, kept in ``_processed_at``.
    """
    judged = _newest_first(raw, files).with_columns(reason=_reason())
    rejected = judged.filter(pl.col("reason").is_not_null())
    return Cleaned(
        clean=_normalised(judged.filter(pl.col("reason").is_null()), run_id, processed_at),
        rejected=rejected.with_columns(source=_source()).select(_REJECTED),
        counts={reason: int((rejected["reason"] == reason).sum()) for reason in REASONS},
    )


def _newest_first(raw: pl.DataFrame, files: pl.DataFrame) -> pl.DataFrame:
    rows = pl.concat(
        [
            raw.select(*_CLEAN, _source_file=pl.lit(None, pl.String), _source_line=pl.lit(None)),
            files.select(*_CLEAN, *_ORIGIN),
        ],
        how="vertical_relaxed",
    )
    # Rows that tie in all of this are equal, so the result never depends on the rows' order.
    return rows.sort(
        "customer_id",
        "updated_at",
        *_ORIGIN,
        *_CONTENT,
        descending=[False] + [True] * 7,
        nulls_last=[False, True, False, False] + [True] * 4,
    )


def _reason() -> pl.Expr:
    email = _email()
    valid = (
        email.str.contains(_ADDRESS)
        & email.str.contains(_LOCAL_PART_FITS)
        & (email.str.len_bytes() <= _ADDRESS_LENGTH)
    )
    return (
        pl.when(pl.col("customer_id").is_null())
        .then(pl.lit(ID_MISSING))
        .when(~pl.col("customer_id").is_first_distinct())
        .then(pl.lit(SUPERSEDED))
        .when(email.is_null() | (email == ""))
        .then(pl.lit(EMAIL_MISSING))
        .when(~email.str.contains("@."))
        .then(pl.lit(EMAIL_WITHOUT_DOMAIN))
        .when(~valid)
        .then(pl.lit(EMAIL_MALFORMED))
    )


def _email() -> pl.Expr:
    return pl.col("email").str.strip_chars().str.to_lowercase()


def _source() -> pl.Expr:
    return pl.format("{}:{}", *_ORIGIN).fill_null(DATABASE)


def _normalised(rows: pl.DataFrame, run_id: str, processed_at: datetime) -> pl.DataFrame:
    return rows.select(_CLEAN).with_columns(
        _email(),
        _name("first_name"),
        _name("last_name"),
        _processing_run_id=pl.lit(run_id),
        _processed_at=pl.lit(processed_at).cast(pl.Datetime("us", "UTC")),
    )


def _name(column: str) -> pl.Expr:
    name = pl.col(column).str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(name != "").then(name).alias(column)


def customer_metrics(customers: pl.DataFrame, orders: pl.DataFrame) -> pl.DataFrame:
    """What each customer ordered: one row per customer, with or without orders.

    Without orders the counts and sums are zero, and the average, the dates, the lifetime and
    the currency are NULL: there is nothing to average or to count days between. The currency
    is also NULL for a customer with several, whose sum has no unit; ``mixed_currencies`` finds
    them. A customer's result depends on the rows of that customer only.

    Args:
        customers: clean customers.
        orders: their orders; those of other customers are ignored.
    """
    amount = pl.col("total_amount")
    spent = amount.sum().cast(_CENTS)
    per_customer = orders.group_by("customer_id").agg(
        currency=_only_currency(),
        total_orders=pl.len().cast(pl.Int64),
        total_spent=spent,
        # Orders without an amount are left out: each would count as one over nothing.
        avg_order_value=spent / amount.count().replace(0, None),
        first_order_date=pl.col("order_date").min(),
        last_order_date=pl.col("order_date").max(),
    )
    lifetime = pl.col("last_order_date") - pl.col("first_order_date")
    return (
        customers.select("customer_id", "email", "first_name", "last_name")
        .join(per_customer, on="customer_id", how="left", validate="1:1", maintain_order="left")
        .with_columns(
            pl.col("total_orders").fill_null(0),
            pl.col("total_spent").fill_null(_ZERO),
            customer_lifetime_days=lifetime.dt.total_days(),
        )
    )


def _only_currency() -> pl.Expr:
    currencies = pl.col("currency").drop_nulls()
    return pl.when(currencies.n_unique() == 1).then(currencies.first())


def mixed_currencies(orders: pl.DataFrame) -> pl.DataFrame:
    """Customers whose orders are in more than one currency, which their metrics cannot add up.

    Returns:
        ``customer_id``, ``currencies`` (sorted, separated by commas) and ``orders``.
    """
    currencies = pl.col("currency").drop_nulls().unique()
    return (
        orders.group_by("customer_id")
        .agg(currencies.sort(), orders=pl.len().cast(pl.Int64))
        .filter(pl.col("currency").list.len() > 1)
        .select("customer_id", pl.col("currency").list.join(", ").alias("currencies"), "orders")
        .sort("customer_id")
    )


def customer_clv(customers: pl.DataFrame, orders: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Lifetime value of each customer: past 12 months, and what is expected to follow.

    ``docs/clv.md`` has the method, an example and the limits. The retention of a cohort is that
    of all its customers with orders, also of those that are not clean: a bad e-mail address
    says nothing about buying again.

    Args:
        customers: clean customers.
        orders: orders of all customers; those after ``as_of`` are ignored.
        as_of: last day of the past; the newest order's date unless the past is re-computed.
    """
    activity = _activity(orders, as_of)
    return (
        customers.select("customer_id")
        .join(activity, on="customer_id", how="left", validate="1:1", maintain_order="left")
        .join(_returning(activity), on="cohort", how="left", validate="m:1", maintain_order="left")
        .with_columns(
            pl.col("historical_clv").fill_null(_ZERO),
            retention=(pl.col("returned") / pl.col("base")).fill_null(0.0),
            predicted_clv=_predicted().fill_null(_ZERO),
        )
        .with_columns(total_clv=pl.col("historical_clv") + pl.col("predicted_clv"))
        .select(
            "customer_id",
            "cohort",
            "currency",
            "historical_clv",
            "retention",
            "predicted_clv",
            "total_clv",
        )
    )


def _activity(orders: pl.DataFrame, as_of: date) -> pl.DataFrame:
    day = pl.col("order_date")
    today = pl.lit(as_of)
    year_ago = today.dt.offset_by("-12mo")
    last_year = day > year_ago
    year_before = (day > today.dt.offset_by("-24mo")) & (day <= year_ago)
    return (
        orders.filter(day <= today)
        .drop_nulls("customer_id")
        .group_by("customer_id")
        .agg(
            currency=_only_currency(),
            cohort=day.filter(_is_purchase()).min().dt.truncate("1mo"),
            historical_clv=pl.col("total_amount").filter(last_year).sum().cast(_CENTS),
            bought_before=(year_before & _is_purchase()).any(),
            bought_again=(last_year & _is_purchase()).any(),
        )
    )


def _is_purchase() -> pl.Expr:
    # A gift for 0.00 is a visit of the customer; a refund is booked by the shop.
    return pl.col("total_amount") >= 0


def _returning(activity: pl.DataFrame) -> pl.DataFrame:
    """Per cohort the customers of the year before, and how many of them came back."""
    before, again = pl.col("bought_before"), pl.col("bought_again")
    cohorts = (
        activity.drop_nulls("cohort")
        .group_by("cohort")
        .agg(base=before.sum().cast(pl.Int64), returned=(before & again).sum().cast(pl.Int64))
    )
    base, returned = cohorts.select(pl.sum("base", "returned")).row(0)
    empty = pl.col("base") == 0
    return cohorts.with_columns(
        base=pl.when(empty).then(base or 1).otherwise("base"),
        returned=pl.when(empty).then(returned).otherwise("returned"),
    )


def _predicted() -> pl.Expr:
    # m·r / (1 + d - r) with r = returned / base, multiplied out: no float, exact to the cent.
    value = pl.max_horizontal("historical_clv", _ZERO)
    return (
        value
        * pl.col("returned")
        / (pl.lit(1 + DISCOUNT_RATE) * pl.col("base") - pl.col("returned"))
    )


def cohort_retention(orders: pl.DataFrame) -> pl.DataFrame:
    """Share of each cohort that bought in each month since its first one.

    A cohort is the customers whose first purchase fell into the same calendar month. There is
    a row for every month up to that of the newest purchase, also when nobody bought; the
    newest month may not be over yet.

    Returns:
        ``cohort`` (first day of the month), ``month`` (0 is the first), ``customers`` of the
        cohort, ``active`` ones in that month, ``retention`` = active / customers.
    """
    purchases = _purchases_by_month(orders)
    newest = pl.lit(purchases["month"].max(), pl.Int64)
    grid = (
        purchases.group_by("cohort", "cohort_month")
        .agg(customers=pl.col("customer_id").n_unique().cast(pl.Int64))
        .with_columns(month=pl.int_ranges(0, newest - pl.col("cohort_month") + 1))
        .explode("month")
    )
    active = purchases.group_by("cohort", month=pl.col("month") - pl.col("cohort_month")).agg(
        active=pl.col("customer_id").n_unique().cast(pl.Int64)
    )
    return (
        grid.join(active, on=["cohort", "month"], how="left")
        .with_columns(pl.col("active").fill_null(0))
        .select("cohort", "month", "customers", "active")
        .with_columns(retention=pl.col("active") / pl.col("customers"))
        .sort("cohort", "month")
    )


def _purchases_by_month(orders: pl.DataFrame) -> pl.DataFrame:
    day = pl.col("order_date")
    first = day.min().over("customer_id")
    return (
        orders.filter(_is_purchase())
        .drop_nulls(["customer_id", "order_date"])
        .select(
            "customer_id",
            cohort=first.dt.truncate("1mo"),
            cohort_month=_month_number(first),
            month=_month_number(day),
        )
    )


def _month_number(day: pl.Expr) -> pl.Expr:
    return day.dt.year().cast(pl.Int64) * 12 + day.dt.month()
