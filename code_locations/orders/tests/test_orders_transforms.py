from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from forge_platform.tables import Changes
from orders.transforms import (
    affected_orders,
    daily_order_summary,
    enriched_orders,
    missing_rates,
    restated_days,
    sales_daily_summary,
)

MONDAY = date(2024, 1, 8)
ORDERS = {
    "order_id": pl.Int64(),
    "customer_id": pl.Int64(),
    "order_date": pl.Date(),
    "status": pl.String(),
    "quantity": pl.Int32(),
    "total_amount": pl.Decimal(12, 2),
    "currency": pl.String(),
}
CUSTOMERS = {
    "customer_id": pl.Int64(),
    "email": pl.String(),
    "first_name": pl.String(),
    "last_name": pl.String(),
    "_processing_run_id": pl.String(),
}
RATES = {"date": pl.Date(), "currency": pl.String(), "usd_per_unit": pl.Decimal(18, 8)}
ANN = pl.DataFrame([(1, "ann@example.com", "Ann", "Lee", "run")], schema=CUSTOMERS, orient="row")
MONEY = pl.Decimal(38, 2)
STATUSES = ("pending", "paid", "shipped", "delivered", "other")


def order(
    order_id: int,
    day: date | None = MONDAY,
    amount: str | None = "10.00",
    currency: str | None = "USD",
    *,
    customer: int | None = 1,
    status: str | None = "paid",
) -> tuple[object, ...]:
    total = None if amount is None else Decimal(amount)
    return order_id, customer, day, status, 1, total, currency


def orders_of(*rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=ORDERS, orient="row")


def rates_of(*rows: tuple[date, str, str]) -> pl.DataFrame:
    rates = [(day, currency, Decimal(rate)) for day, currency, rate in rows]
    return pl.DataFrame(rates, schema=RATES, orient="row")


def enriched(*rows: tuple[object, ...], rates: pl.DataFrame | None = None) -> pl.DataFrame:
    return enriched_orders(orders_of(*rows), ANN, rates_of() if rates is None else rates)


def test_an_order_gets_its_customer_and_keeps_its_columns() -> None:
    result = enriched(order(7, amount="12.34", status="shipped"))

    assert result.row(0, named=True) == {
        "order_id": 7,
        "customer_id": 1,
        "order_date": MONDAY,
        "status": "shipped",
        "quantity": 1,
        "total_amount": Decimal("12.34"),
        "currency": "USD",
        "email": "ann@example.com",
        "first_name": "Ann",
        "last_name": "Lee",
        "customer_known": True,
        "usd_per_unit": Decimal("1.00000000"),
        "amount_usd": Decimal("12.34"),
    }
    assert result.schema["usd_per_unit"] == pl.Decimal(18, 8)
    assert result.schema["amount_usd"] == pl.Decimal(14, 2)


@pytest.mark.parametrize("customer", [2, None])
def test_an_order_of_nobody_known_is_kept(customer: int | None) -> None:
    result = enriched(order(7, customer=customer))

    assert result.select("order_id", "customer_id", "email", "customer_known").rows() == [
        (7, customer, None, False)
    ]
    assert result["amount_usd"].item() == Decimal("10.00")


@pytest.mark.parametrize(
    ("rate_day", "rate"),
    [
        (MONDAY, "1.10000000"),
        (MONDAY - timedelta(days=3), "1.10000000"),  # the Friday before
        (MONDAY - timedelta(days=7), "1.10000000"),
        (MONDAY - timedelta(days=8), None),
        (MONDAY + timedelta(days=1), None),
    ],
)
def test_the_rate_is_of_the_day_or_of_the_week_before(rate_day: date, rate: str | None) -> None:
    result = enriched(
        order(1, currency="EUR"),
        rates=rates_of((rate_day, "EUR", "1.10"), (MONDAY, "GBP", "9.00")),
    )

    assert result["usd_per_unit"].to_list() == [None if rate is None else Decimal(rate)]
    assert result["amount_usd"].to_list() == [None if rate is None else Decimal("11.00")]


def test_the_newest_rate_before_the_day_is_taken() -> None:
    days = [MONDAY - timedelta(days=ago) for ago in (5, 1, 3)]
    rates = rates_of(*((day, "EUR", f"1.{day.day}") for day in days), (MONDAY, "GBP", "2"))

    assert enriched(order(1, currency="EUR"), rates=rates)["usd_per_unit"].item() == Decimal("1.7")


def test_dollars_need_no_rate_and_ignore_one() -> None:
    result = enriched(
        order(1), order(2, None), rates=rates_of((MONDAY, "USD", "1.5"), (MONDAY, "EUR", "1.1"))
    )

    assert result["amount_usd"].to_list() == [Decimal("10.00")] * 2


@pytest.mark.parametrize(
    ("amount", "rate", "usd"),
    [
        ("10.00", "1.10450000", "11.04"),  # 11.045: the even cent
        ("30.00", "1.10450000", "33.14"),  # 33.135
        ("-10.00", "1.10450000", "-11.04"),
        ("0.02", "0.25000000", "0.00"),  # 0.005
        ("0.01", "5.49999999", "0.05"),  # 0.0549999999: rounded twice it would be 0.06
        ("9999999999.99", "1.00000001", "10000000099.99"),  # no float has these digits
    ],
)
def test_dollars_are_rounded_once_and_half_to_the_even_cent(
    amount: str, rate: str, usd: str
) -> None:
    result = enriched(
        order(1, amount=amount, currency="EUR"), rates=rates_of((MONDAY, "EUR", rate))
    )

    assert result["amount_usd"].item() == Decimal(usd)


def test_orders_without_a_rate_are_kept_and_reported() -> None:
    result = enriched(
        order(1, currency="EUR"),
        order(2, currency="EUR"),
        order(3, MONDAY - timedelta(days=1), currency="EUR"),
        order(4, currency=None),
        order(5, amount=None),
        order(6, None, currency="GBP"),
        rates=rates_of((MONDAY + timedelta(days=1), "EUR", "1.1"), (MONDAY, "GBP", "1.2")),
    )

    assert result["order_id"].to_list() == [1, 2, 3, 4, 5, 6]
    assert missing_rates(result).rows() == [
        (None, MONDAY, 1),
        ("EUR", MONDAY - timedelta(days=1), 1),
        ("EUR", MONDAY, 2),
        ("GBP", None, 1),
    ]


def test_a_customer_that_is_there_twice_is_refused() -> None:
    with pytest.raises(pl.exceptions.ComputeError):
        enriched_orders(orders_of(order(1)), pl.concat([ANN, ANN]), rates_of())


def test_no_orders_give_the_same_columns() -> None:
    assert enriched().schema == enriched(order(1)).schema
    assert missing_rates(enriched()).is_empty()


def random_orders(count: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    generator = random.Random(7)
    currencies = {"EUR": 3, "GBP": 5, "JPY": 30}  # and how many days apart their rates are
    rows = [
        order(
            number,
            MONDAY + timedelta(days=generator.randrange(90)),
            f"{generator.randint(-100, 9999)}.{generator.randrange(100):02}",
            generator.choice([*currencies, "USD"]),
            customer=generator.randrange(5),
            status=generator.choice(["pending", "paid", "shipped", "delivered", "lost", None]),
        )
        for number in range(count)
    ]
    rates = [
        (MONDAY + timedelta(days=day), currency, f"{generator.random() * 2:.8f}")
        for currency, step in currencies.items()
        for day in range(0, 90, step)
    ]
    generator.shuffle(rows)
    generator.shuffle(rates)
    return orders_of(*rows), rates_of(*rates)


def test_every_amount_is_what_plain_python_computes() -> None:
    orders, rates = random_orders(500)
    known = {(day, currency): rate for day, currency, rate in rates.rows()}

    def in_dollars(day: date, amount: Decimal, currency: str) -> Decimal | None:
        week = (known.get((day - timedelta(days=ago), currency)) for ago in range(8))
        newest = next((rate for rate in week if rate is not None), None)
        rate = Decimal(1) if currency == "USD" else newest
        return rate and (amount * rate).quantize(Decimal("0.01"), ROUND_HALF_EVEN)

    result = enriched_orders(orders, ANN, rates)

    columns = orders.select("order_date", "total_amount", "currency").rows()
    assert result["amount_usd"].to_list() == [in_dollars(*row) for row in columns]
    assert_frame_equal(result.select(orders.columns), orders)
    assert 0 < missing_rates(result)["orders"].sum() < 500


def changes(before: pl.DataFrame, after: pl.DataFrame) -> Changes:
    return Changes(
        rows=after.join(before, on=before.columns, how="anti", nulls_equal=True),
        removed=before.join(after, on=before.columns, how="anti", nulls_equal=True),
        snapshot_id=1,
        complete=False,
    )


def affected_by_rates(before: pl.DataFrame, after: pl.DataFrame) -> set[int]:
    """Of orders 0 to 9, one a day from Monday in euros, and order 10 on Monday in dollars."""
    days = [order(n, MONDAY + timedelta(days=n), currency="EUR") for n in range(10)]
    nothing = changes(orders_of(), orders_of()), changes(ANN, ANN)
    orders = orders_of(*days, order(10))
    return set(affected_orders(orders, *nothing, changes(before, after))["order_id"])


def test_a_rate_affects_the_orders_of_its_currency_that_day_and_7_days_after() -> None:
    rates = rates_of((MONDAY + timedelta(days=1), "EUR", "1.1"), (MONDAY, "GBP", "1.2"))

    assert affected_by_rates(rates_of(), rates) == {1, 2, 3, 4, 5, 6, 7, 8}
    assert affected_by_rates(rates, rates_of()) == {1, 2, 3, 4, 5, 6, 7, 8}
    assert affected_by_rates(rates, rates) == set()
    assert affected_by_rates(rates_of(), rates_of((MONDAY, "USD", "1.0"))) == set()


def test_a_customer_affects_the_orders_it_has() -> None:
    orders = orders_of(order(1), order(2, customer=2), order(3, customer=None))
    same, rates = changes(orders, orders), changes(rates_of(), rates_of())

    for there_or_gone in (changes(ANN.clear(), ANN), changes(ANN, ANN.clear())):
        assert affected_orders(orders, same, there_or_gone, rates)["order_id"].to_list() == [1]


@pytest.mark.parametrize("seed", range(5))
def test_enriching_the_affected_orders_equals_enriching_all(seed: int) -> None:
    everything, rates = random_orders(400)
    customers = pl.DataFrame(
        [(n, f"{n}@example.com", "Ann", "Lee", "run") for n in range(5)],
        schema=CUSTOMERS,
        orient="row",
    )

    def state(number: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        orders = everything.sample(380, seed=10 * seed + number)
        changed = pl.col("order_id") % 40 == number
        amount = pl.when(changed).then(pl.col("total_amount") + 1).otherwise("total_amount")
        return (
            orders.with_columns(amount.cast(pl.Decimal(12, 2)).alias("total_amount")),
            customers.sample(4, seed=seed + number),
            rates.sample(rates.height - 2, seed=seed + number),
        )

    before, after = state(1), state(2)
    affected = affected_orders(after[0], *map(changes, before, after))

    kept = enriched_orders(*before).join(affected, on="order_id", how="anti")
    renewed = enriched_orders(after[0].join(affected, on="order_id", how="semi"), *after[1:])
    assert 0 < kept.height < 380
    assert affected["order_id"].is_unique().all()
    assert_frame_equal(pl.concat([kept, renewed]), enriched_orders(*after), check_row_order=False)


def test_a_day_is_summed_up() -> None:
    rows = [order(1), order(2, amount="0.01"), order(3, customer=2), order(4, customer=None)]
    yesterday = order(5, MONDAY - timedelta(days=1))

    assert daily_order_summary(enriched(*rows, yesterday), [MONDAY]).row(0, named=True) == {
        "date": MONDAY,
        "order_count": 4,
        "total_revenue": Decimal("30.01"),
        "unique_customers": 2,
    }


def test_each_day_that_is_asked_for_has_one_row_zeros_when_empty() -> None:
    tuesday, wednesday = MONDAY + timedelta(days=1), MONDAY + timedelta(days=2)
    orders = enriched(order(1), order(2, wednesday, "2.50"))

    result = daily_order_summary(orders, [wednesday, MONDAY, tuesday, MONDAY])

    assert result.rows() == [
        (MONDAY, 1, Decimal("10.00"), 1),
        (tuesday, 0, Decimal("0.00"), 0),
        (wednesday, 1, Decimal("2.50"), 1),
    ]
    assert result.schema["total_revenue"] == MONEY


def test_a_day_of_no_orders_at_all_is_a_row_of_zeros() -> None:
    assert daily_order_summary(enriched(), [MONDAY]).rows() == [(MONDAY, 0, Decimal("0.00"), 0)]


def test_an_order_without_a_rate_counts_and_adds_nothing() -> None:
    orders = enriched(order(1), order(2, currency="EUR"))

    assert daily_order_summary(orders, [MONDAY]).row(0) == (MONDAY, 2, Decimal("10.00"), 1)
    assert sales_daily_summary(orders).select("revenue", "avg_order_value").row(0) == (
        Decimal("10.00"),
        Decimal("10.00"),
    )


def column(frame: pl.DataFrame, name: str) -> Sequence[str | None]:
    return [None if value is None else str(value) for value in frame[name]]


def test_the_moving_average_is_over_calendar_days_and_shorter_at_the_start() -> None:
    orders = enriched(
        order(1, MONDAY, "7.00"),
        order(2, MONDAY, "0.01"),
        order(3, MONDAY + timedelta(days=2), "3.00"),
        order(4, MONDAY + timedelta(days=7), "14.00"),
    )

    result = sales_daily_summary(orders)

    assert result["date"].to_list() == [MONDAY + timedelta(days=day) for day in range(8)]
    assert result["order_count"].to_list() == [2, 0, 1, 0, 0, 0, 0, 1]
    assert column(result, "avg_order_value") == [
        *("3.50", None, "3.00", None, None, None, None, "14.00")  # 3.505: the even cent
    ]
    assert column(result, "revenue_7d_avg") == [
        "7.01",
        "3.50",  # 7.01 / 2 = 3.505
        "3.34",  # 10.01 / 3 = 3.3367
        "2.50",  # 10.01 / 4 = 2.5025
        "2.00",  # 10.01 / 5 = 2.002
        "1.67",  # 10.01 / 6 = 1.6683
        "1.43",  # 10.01 / 7 = 1.43
        "2.43",  # Monday has left: 17.00 / 7 = 2.4286
    ]


def by_status(row: dict[str, object]) -> dict[str, tuple[object, object]]:
    return {name: (row[f"orders_{name}"], row[f"revenue_{name}"]) for name in STATUSES}


def test_each_status_has_its_columns_and_unknown_ones_are_other() -> None:
    statuses = ["pending", "paid", "paid", "shipped", "delivered", "returned", None]
    rows = [order(n, amount=f"{2**n}.00", status=status) for n, status in enumerate(statuses)]

    summary = sales_daily_summary(enriched(*rows))

    assert by_status(summary.row(0, named=True)) == {
        "pending": (1, Decimal(1)),
        "paid": (2, Decimal(2 + 4)),
        "shipped": (1, Decimal(8)),
        "delivered": (1, Decimal(16)),
        "other": (2, Decimal(32 + 64)),
    }


def test_a_gap_day_has_zeros_for_every_status() -> None:
    orders = enriched(order(1), order(2, MONDAY + timedelta(days=2), status=None))

    gap = sales_daily_summary(orders).row(1, named=True)

    assert by_status(gap) == dict.fromkeys(STATUSES, (0, Decimal(0)))


def test_the_sales_summary_adds_up_and_agrees_with_the_daily_one() -> None:
    raw, rates = random_orders(500)
    orders = enriched_orders(raw, ANN, rates)

    sales = sales_daily_summary(orders)

    daily = daily_order_summary(orders, sales["date"].to_list())
    assert_frame_equal(
        sales.select("date", "order_count", total_revenue="revenue"),
        daily.drop("unique_customers"),
    )
    assert sales["revenue"].sum() == orders["amount_usd"].sum()
    assert sales["order_count"].sum() == 500
    for total, part in (("order_count", "orders"), ("revenue", "revenue")):
        sums = sales.select(pl.sum_horizontal(f"{part}_{name}" for name in STATUSES)).to_series()
        assert sums.to_list() == sales[total].to_list()


def test_no_orders_give_no_days_but_all_columns() -> None:
    empty = sales_daily_summary(enriched())

    assert empty.is_empty()
    assert empty.schema == sales_daily_summary(enriched(order(1))).schema


def test_only_days_whose_figures_differ_are_restated() -> None:
    columns = ("order_id", "order_date", "customer_id", "amount_usd", "email")
    before = pl.DataFrame(
        [
            (1, date(2024, 1, 1), 7, Decimal("1.00"), "a@x.com"),
            (2, date(2024, 1, 2), 7, Decimal("2.00"), "a@x.com"),
            (3, date(2024, 1, 3), 7, None, "a@x.com"),
            (4, date(2024, 1, 4), 7, Decimal("4.00"), "a@x.com"),
        ],
        schema=columns,
        orient="row",
    )
    after = pl.DataFrame(
        [
            (1, date(2024, 1, 1), 7, Decimal("1.00"), "new@x.com"),
            (2, date(2024, 1, 2), 7, Decimal("2.50"), "a@x.com"),
            (3, date(2024, 1, 9), 7, None, "a@x.com"),
            (5, date(2024, 1, 5), 7, Decimal("4.00"), "a@x.com"),
        ],
        schema=columns,
        orient="row",
    )
    assert [day.day for day in restated_days(after, before)] == [2, 3, 4, 5, 9]
