"""Lifetime values computed by hand; ``docs/clv.md`` explains the method and has the example."""

from __future__ import annotations

import gzip
from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from customers.transforms import cohort_retention, customer_clv

CDNOW = Path(__file__).parents[3] / "demo/src/forge_demo/data/CDNOW_master.txt.gz"
ORDERS = {
    "customer_id": pl.Int64(),
    "order_date": pl.Date(),
    "total_amount": pl.Decimal(12, 2),
    "currency": pl.String(),
}
AS_OF = date(2025, 6, 30)  # last 12 months from 2024-07-01, the year before from 2023-07-01


class Value(NamedTuple):
    cohort: date | None
    historical: str
    retention: float
    predicted: str
    total: str


def orders_of(*rows: tuple[int, str, str], currency: str = "USD") -> pl.DataFrame:
    return pl.DataFrame(
        [(id_, date.fromisoformat(day), Decimal(amount), currency) for id_, day, amount in rows],
        schema=ORDERS,
        orient="row",
    )


def values(orders: pl.DataFrame, as_of: date = AS_OF, customers: int = 1) -> list[Value]:
    """The values of the customers 1 to ``customers``, which are the clean ones."""
    clean = pl.DataFrame({"customer_id": range(1, customers + 1)})
    columns = ["cohort", "historical_clv", "retention", "predicted_clv", "total_clv"]
    return [
        Value(cohort, str(historical), retention, str(predicted), str(total))
        for cohort, historical, retention, predicted, total in customer_clv(clean, orders, as_of)
        .select(columns)
        .iter_rows()
    ]


def month(text: str) -> date:
    return date.fromisoformat(f"{text}-01")


def test_the_example_of_the_documentation() -> None:
    orders = orders_of(
        (1, "2024-01-10", "50.00"),
        (1, "2024-09-01", "30.00"),
        (1, "2025-03-15", "20.00"),
        (2, "2024-01-20", "80.00"),
        (3, "2024-01-25", "40.00"),
        (3, "2024-06-30", "10.00"),  # the last day of the year before
        (3, "2024-07-01", "25.00"),  # the first of the last 12 months
        (4, "2024-01-31", "15.00"),
        (5, "2024-11-05", "60.00"),
        (6, "2024-03-03", "100.00"),
        (6, "2025-01-01", "12.34"),
    )

    # January: 4 customers bought in the year before, 1 and 3 came back: r = 2/4.
    # March: 1 of 1 came back: r = 1. November has nobody in the year before: r = 3/5, all.
    assert values(orders, customers=7) == [
        # 30 + 20 = 50; 50 · 0.5 / (1.1 - 0.5) = 25 / 0.6 = 41.666…
        Value(month("2024-01"), "50.00", 0.5, "41.67", "91.67"),
        Value(month("2024-01"), "0.00", 0.5, "0.00", "0.00"),
        # 25 · 0.5 / 0.6 = 20.8333…
        Value(month("2024-01"), "25.00", 0.5, "20.83", "45.83"),
        Value(month("2024-01"), "0.00", 0.5, "0.00", "0.00"),
        # 60 · 0.6 / (1.1 - 0.6) = 36 / 0.5 = 72
        Value(month("2024-11"), "60.00", 0.6, "72.00", "132.00"),
        # 12.34 · 1 / (1.1 - 1) = 123.40
        Value(month("2024-03"), "12.34", 1.0, "123.40", "135.74"),
        Value(None, "0.00", 0.0, "0.00", "0.00"),
    ]


def test_the_first_day_of_the_year_before_counts_and_the_day_before_does_not() -> None:
    # 1 bought on 2023-07-01 (in) and came back, 2 on 2023-07-01 (in) and did not: r = 1/2.
    # 3 bought on 2023-06-30 (out) and came back: would be its cohort's r = 1, is the pooled 1/2.
    orders = orders_of(
        (1, "2023-07-01", "5.00"),
        (1, "2025-06-30", "6.00"),
        (2, "2023-07-01", "5.00"),
        (3, "2023-06-30", "5.00"),
        (3, "2025-06-30", "6.00"),
    )

    # 6 · 0.5 / 0.6 = 5
    assert values(orders, customers=3) == [
        Value(month("2023-07"), "6.00", 0.5, "5.00", "11.00"),
        Value(month("2023-07"), "0.00", 0.5, "0.00", "0.00"),
        Value(month("2023-06"), "6.00", 0.5, "5.00", "11.00"),
    ]


@pytest.mark.parametrize(
    ("as_of", "order", "historical"),
    [
        ("2024-02-29", "2023-02-28", "0.00"),  # 12 months before 29 February is 28 February
        ("2024-02-29", "2023-03-01", "9.00"),
        ("2024-02-29", "2024-02-29", "9.00"),
        ("2024-02-29", "2024-03-01", "0.00"),  # the future
        ("2025-02-28", "2024-02-28", "0.00"),
        ("2025-02-28", "2024-02-29", "9.00"),  # so this window has 366 days
        ("2025-03-31", "2024-03-31", "0.00"),
        ("2025-03-31", "2024-04-01", "9.00"),
    ],
)
def test_the_window_ends_of_month_ends(as_of: str, order: str, historical: str) -> None:
    result = values(orders_of((1, order, "9.00")), date.fromisoformat(as_of))

    assert result[0].historical == historical


def test_24_months_before_29_february() -> None:
    # The year before is 2022-03-01 to 2023-02-28: customer 2 bought a day too early for it.
    orders = orders_of(
        (1, "2022-03-01", "1.00"),
        (1, "2024-02-29", "1.00"),
        (2, "2022-02-28", "1.00"),
        (2, "2024-02-29", "1.00"),
        (3, "2022-02-01", "1.00"),
        (3, "2023-02-28", "1.00"),
    )

    # March 2022: 1 of 1. February 2022: only 3 in the year before, did not return: 0 of 1.
    retention = [value.retention for value in values(orders, date(2024, 2, 29), customers=3)]
    assert retention == [1.0, 0.0, 0.0]


def test_orders_after_the_day_are_not_known_yet() -> None:
    orders = orders_of(
        (1, "2025-07-01", "10.00"), (2, "2025-06-01", "4.00"), (2, "2025-07-01", "1.00")
    )

    assert values(orders, customers=2) == [
        Value(None, "0.00", 0.0, "0.00", "0.00"),
        Value(month("2025-06"), "4.00", 0.0, "0.00", "4.00"),
    ]


def test_without_a_year_before_nothing_is_predicted() -> None:
    orders = orders_of((1, "2025-01-05", "10.00"), (1, "2025-02-05", "20.00"))

    assert values(orders) == [Value(month("2025-01"), "30.00", 0.0, "0.00", "30.00")]


def test_a_single_cohort_in_which_all_return_is_worth_ten_times_its_year() -> None:
    orders = orders_of((1, "2024-06-30", "1.00"), (1, "2024-07-01", "33.33"))

    # 33.33 · 1 / (1.1 - 1) = 333.30
    assert values(orders) == [Value(month("2024-06"), "33.33", 1.0, "333.30", "366.63")]


def test_a_refund_lowers_the_value_and_is_no_purchase() -> None:
    orders = orders_of(
        (1, "2024-05-01", "90.00"),
        (1, "2024-08-01", "100.00"),
        (1, "2024-08-09", "-30.00"),
        (2, "2024-05-02", "40.00"),
        (2, "2024-08-01", "-40.00"),  # sent back: did not buy again
        (3, "2024-05-03", "-5.00"),  # a refund of something older than the data: no cohort
        (3, "2024-08-03", "-5.00"),
        (4, "2023-01-10", "5.00"),
        (4, "2024-05-04", "-5.00"),  # did not buy in the year before
        (4, "2025-01-10", "6.00"),
    )

    # r = 1/2 (1 and 2 bought before, 1 again); 70 · 0.5 / 0.6 = 58.333…
    # A negative year is not continued into the future. The pooled r for 4: 6 · 0.5 / 0.6 = 5.
    assert values(orders, customers=4) == [
        Value(month("2024-05"), "70.00", 0.5, "58.33", "128.33"),
        Value(month("2024-05"), "-40.00", 0.5, "0.00", "-40.00"),
        Value(None, "-5.00", 0.0, "0.00", "-5.00"),
        Value(month("2023-01"), "6.00", 0.5, "5.00", "11.00"),
    ]


def test_a_purchase_for_nothing_is_a_purchase() -> None:
    orders = orders_of(
        (1, "2024-05-01", "0.00"), (1, "2024-08-01", "0.00"), (2, "2024-05-01", "1.00")
    )

    assert values(orders)[0] == Value(month("2024-05"), "0.00", 0.5, "0.00", "0.00")


def test_half_a_cent_goes_to_the_even_cent() -> None:
    before = [(id_, "2024-05-01", "1.00") for id_ in range(1, 11)]
    orders = orders_of(*before, (1, "2024-08-01", "0.25"))

    # r = 1/10: 0.25 · 0.1 / (1.1 - 0.1) = 0.025
    assert values(orders)[0].predicted == "0.02"


def test_customers_that_are_not_clean_count_in_their_cohort() -> None:
    orders = orders_of(
        (1, "2024-05-01", "6.00"), (1, "2024-08-01", "6.00"), (99, "2024-05-01", "6.00")
    )

    # 99 has no row in the result, but did not come back: r = 1/2; 6 · 0.5 / 0.6 = 5
    assert values(orders) == [Value(month("2024-05"), "6.00", 0.5, "5.00", "11.00")]


def test_orders_without_a_customer_or_a_day_are_nobodys() -> None:
    known = orders_of((1, "2024-05-01", "6.00"), (1, "2024-08-01", "6.00"))
    nobody = known.head(1).with_columns(customer_id=pl.lit(None, pl.Int64))
    no_day = known.with_columns(order_date=pl.lit(None, pl.Date), customer_id=pl.lit(2, pl.Int64))
    orders = pl.concat([known, nobody, no_day])

    assert values(orders) == values(known)
    assert cohort_retention(orders).equals(cohort_retention(known))


def test_the_currency_of_the_money_is_said() -> None:
    clean = pl.DataFrame({"customer_id": [1, 2]})

    result = customer_clv(clean, orders_of((1, "2024-05-01", "6.00"), currency="EUR"), AS_OF)

    assert result["currency"].to_list() == ["EUR", None]
    assert result.schema["total_clv"] == pl.Decimal(38, 2)


def test_no_orders_give_the_same_columns() -> None:
    clean = pl.DataFrame({"customer_id": [1]})
    orders = orders_of((1, "2024-05-01", "6.00"))

    assert (
        customer_clv(clean, orders.clear(), AS_OF).schema
        == customer_clv(clean, orders, AS_OF).schema
    )


def test_the_retention_of_cohorts_by_month() -> None:
    orders = orders_of(
        (1, "2023-12-31", "1.00"),
        (1, "2024-01-01", "1.00"),  # the next day is the next month
        (1, "2024-01-15", "1.00"),  # twice in a month is once
        (2, "2023-12-01", "1.00"),
        (3, "2024-01-31", "1.00"),
        (3, "2024-03-01", "1.00"),
        (3, "2024-03-02", "-1.00"),
        (4, "2024-03-31", "-1.00"),  # never bought anything
    )

    december, january = date(2023, 12, 1), date(2024, 1, 1)
    assert cohort_retention(orders).rows() == [
        (december, 0, 2, 2, 1.0),
        (december, 1, 2, 1, 0.5),
        (december, 2, 2, 0, 0.0),
        (december, 3, 2, 0, 0.0),
        (january, 0, 1, 1, 1.0),
        (january, 1, 1, 0, 0.0),
        (january, 2, 1, 1, 1.0),
    ]


def test_no_orders_have_no_cohorts() -> None:
    orders = orders_of((1, "2024-05-01", "6.00"))

    assert cohort_retention(orders.clear()).is_empty()
    assert cohort_retention(orders.clear()).schema == cohort_retention(orders).schema


@pytest.fixture(scope="module")
def purchases() -> list[tuple[int, date, int]]:
    """Customer, day and cents of every CDNOW purchase, from 2024 on."""
    with gzip.open(CDNOW, "rt", encoding="ascii") as file:
        rows = [line.split() for line in file][1:]
    return [
        (int(id_), date.fromisoformat(day) + timedelta(days=9861), int(Decimal(dollars) * 100))
        for id_, day, _, dollars in rows
    ]


def values_in_plain_python(purchases: list[tuple[int, date, int]]) -> dict[int, tuple[int, int]]:
    """Historical and predicted cents by the formulas of the documentation, in fractions."""
    by_customer = defaultdict(list)
    for customer, day, cents in purchases:
        by_customer[customer].append((day, cents))
    last_day_before = date(2024, 6, 29)
    cohorts = defaultdict(list)
    for customer, bought in by_customer.items():
        cohorts[min(day for day, _ in bought).replace(day=1)].append(customer)
    result = {}
    for members in cohorts.values():
        years = {
            id_: [c for day, c in by_customer[id_] if day > last_day_before] for id_ in members
        }
        r = Fraction(sum(bool(year) for year in years.values()), len(members))
        for id_, year in years.items():
            result[id_] = sum(year), round(sum(year) * r / (1 + Fraction(1, 10) - r))
    return result


def test_cdnow_agrees_with_plain_python_for_every_customer(
    purchases: list[tuple[int, date, int]],
) -> None:
    orders = pl.DataFrame(
        [(id_, day, Decimal(cents) / 100, "USD") for id_, day, cents in purchases],
        schema=ORDERS,
        orient="row",
    )
    customers = orders.select("customer_id").unique().sort("customer_id")

    result = customer_clv(customers, orders, date(2025, 6, 29))

    expected = values_in_plain_python(purchases)
    money = result.select("customer_id", "historical_clv", "predicted_clv").iter_rows()
    assert {id_: (int(past * 100), int(future * 100)) for id_, past, future in money} == expected
    assert result["historical_clv"].sum() == Decimal("1069356.50")
    assert result["predicted_clv"].sum() == Decimal("506397.37")
    cohorts = (
        result.group_by("cohort")
        .agg(
            customers=pl.len(),
            again=(pl.col("retention").first() * pl.len()).round().cast(pl.Int64),
            historical=pl.col("historical_clv").sum().cast(pl.String),
            predicted=pl.col("predicted_clv").sum().cast(pl.String),
        )
        .sort("cohort")
    )
    assert cohorts.rows() == [
        (date(2024, 1, 1), 7846, 2677, "366344.99", "164725.02"),
        (date(2024, 2, 1), 8776, 3098, "390141.18", "184370.05"),
        (date(2024, 3, 1), 6948, 2557, "312870.33", "157302.30"),
    ]
