from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from customers.transforms import (
    EMAIL_MALFORMED,
    EMAIL_MISSING,
    EMAIL_WITHOUT_DOMAIN,
    ID_MISSING,
    REASONS,
    SUPERSEDED,
    Cleaned,
    clean_customers,
    customer_metrics,
    mixed_currencies,
)

NOON = datetime(2025, 6, 30, 12, tzinfo=UTC)
TIMESTAMP = pl.Datetime("us", "UTC")
CUSTOMERS = {
    "customer_id": pl.Int64(),
    "email": pl.String(),
    "first_name": pl.String(),
    "last_name": pl.String(),
    "created_at": TIMESTAMP,
    "updated_at": TIMESTAMP,
}
FILES = CUSTOMERS | {"_source_file": pl.String(), "_source_line": pl.Int64()}
ORDERS = {
    "order_id": pl.Int64(),
    "customer_id": pl.Int64(),
    "order_date": pl.Date(),
    "total_amount": pl.Decimal(12, 2),
    "currency": pl.String(),
}


def row(customer_id: int | None, hour: int | None = 0, **values: object) -> dict[str, object]:
    updated_at = None if hour is None else NOON + timedelta(hours=hour)
    defaults = {"email": f"c{customer_id}@example.com", "first_name": "Ann", "last_name": "Lee"}
    return {
        "customer_id": customer_id,
        "created_at": NOON,
        "updated_at": updated_at,
        **defaults,
        **values,
    }


def file_row(
    customer_id: int, hour: int, file: str, line: int, **values: object
) -> dict[str, object]:
    return row(customer_id, hour, _source_file=file, _source_line=line, **values)


def clean(
    database: Sequence[dict[str, object]], files: Sequence[dict[str, object]] = ()
) -> Cleaned:
    return clean_frames(pl.DataFrame(database, schema=CUSTOMERS), pl.DataFrame(files, schema=FILES))


def clean_frames(raw: pl.DataFrame, files: pl.DataFrame) -> Cleaned:
    return clean_customers(raw, files, run_id="run-1", processed_at=NOON)


def orders_of(rows: Iterable[tuple[int, int, date, str, str]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (order, customer, day, Decimal(amount), unit)
            for order, customer, day, amount, unit in rows
        ],
        schema=ORDERS,
        orient="row",
    )


def test_a_clean_customer_is_normalised_and_says_which_run_made_it() -> None:
    result = clean(
        [row(1, email="  ANN.Lee@Example.COM\t", first_name="  Ann \t Marie ", last_name="Lee ")]
    )

    assert result.clean.row(0, named=True) == {
        "customer_id": 1,
        "email": "ann.lee@example.com",
        "first_name": "Ann Marie",
        "last_name": "Lee",
        "created_at": NOON,
        "updated_at": NOON,
        "_processing_run_id": "run-1",
        "_processed_at": NOON,
    }
    assert result.rejected.is_empty()


def test_the_time_of_processing_is_kept_in_utc() -> None:
    frame = pl.DataFrame([row(1)], schema=CUSTOMERS)
    summer = datetime(2025, 6, 30, 14, tzinfo=timezone(timedelta(hours=2)))

    result = clean_customers(frame, pl.DataFrame(schema=FILES), run_id="run-1", processed_at=summer)

    assert result.clean.schema["_processed_at"] == TIMESTAMP
    assert result.clean["_processed_at"].item() == NOON


def test_a_name_of_blanks_is_no_name() -> None:
    assert clean([row(1, first_name="  ", last_name=None)]).clean.select(
        "first_name", "last_name"
    ).row(0) == (None, None)


@pytest.mark.parametrize(
    "email",
    [
        "a@b.co",
        "first.last+tag@sub.example.com",
        "o'brien_{x}@example.org",
        "x@1-2.3com.museum",
        "x@xn--bcher-kva.example",
        "x@example.xn--p1ai",
        "-@a.de",
        f"{'a' * 64}@example.com",
        f"a@{'b' * 63}.com",
        f"a@{'.'.join(['b' * 61] * 4)}.abcd",  # 254 characters
    ],
)
def test_valid_addresses(email: str) -> None:
    assert clean([row(1, email=email)]).clean["email"].to_list() == [email]


@pytest.mark.parametrize(
    ("email", "reason"),
    [
        (None, EMAIL_MISSING),
        ("", EMAIL_MISSING),
        (" \t\n", EMAIL_MISSING),
        ("nobody", EMAIL_WITHOUT_DOMAIN),
        ("nobody@", EMAIL_WITHOUT_DOMAIN),
        ("nobody@  ", EMAIL_WITHOUT_DOMAIN),
        ("@", EMAIL_WITHOUT_DOMAIN),
        ("@example.com", EMAIL_MALFORMED),
        ("a@localhost", EMAIL_MALFORMED),
        ("a@@example.com", EMAIL_MALFORMED),
        ("a@b@example.com", EMAIL_MALFORMED),
        ("a@example..com", EMAIL_MALFORMED),
        ("a@.example.com", EMAIL_MALFORMED),
        ("a@example.com.", EMAIL_MALFORMED),
        ("a@-example.com", EMAIL_MALFORMED),
        ("a@example-.com", EMAIL_MALFORMED),
        ("a@exa_mple.com", EMAIL_MALFORMED),
        ("a@exa mple.com", EMAIL_MALFORMED),
        ("a@example.c", EMAIL_MALFORMED),
        ("a@example.c0m", EMAIL_MALFORMED),
        ("a@127.0.0.1", EMAIL_MALFORMED),
        (".a@example.com", EMAIL_MALFORMED),
        ("a.@example.com", EMAIL_MALFORMED),
        ("a..b@example.com", EMAIL_MALFORMED),
        ("a b@example.com", EMAIL_MALFORMED),
        ("a@example.com b@example.com", EMAIL_MALFORMED),
        ("a@example.com\nb", EMAIL_MALFORMED),
        ("josé@example.com", EMAIL_MALFORMED),
        ("Ann Lee <ann@example.com>", EMAIL_MALFORMED),
        (f"{'a' * 65}@example.com", EMAIL_MALFORMED),
        (f"a@{'b' * 64}.com", EMAIL_MALFORMED),
        (f"a@{'.'.join(['b' * 61] * 4)}.abcde", EMAIL_MALFORMED),  # 255 characters
    ],
)
def test_invalid_addresses_are_rejected_with_the_reason(email: str | None, reason: str) -> None:
    result = clean([row(1, email=email)])

    assert result.clean.is_empty()
    assert result.rejected.select("customer_id", "email", "source", "reason").row(0) == (
        1,
        email,
        "raw_customers",
        reason,
    )
    assert result.counts == {known: int(known == reason) for known in REASONS}


def test_the_newest_row_wins_wherever_it_comes_from() -> None:
    result = clean(
        [row(1, 0, first_name="old"), row(1, 2, first_name="new"), row(2, 0, first_name="old")],
        [
            file_row(1, 1, "a.csv", 7, first_name="middle"),
            file_row(2, 1, "a.csv", 8, first_name="new"),
        ],
    )

    assert result.clean.select("customer_id", "first_name").rows() == [(1, "new"), (2, "new")]
    assert result.rejected.select("customer_id", "first_name", "source", "reason").rows() == [
        (1, "middle", "a.csv:7", SUPERSEDED),
        (1, "old", "raw_customers", SUPERSEDED),
        (2, "old", "raw_customers", SUPERSEDED),
    ]
    assert result.counts[SUPERSEDED] == 3


def test_of_equally_new_rows_the_database_wins_then_the_later_file_row() -> None:
    result = clean(
        [row(1, first_name="database")],
        [
            file_row(1, 0, "z.csv", 9, first_name="file"),
            file_row(2, 0, "b.csv", 2, first_name="later file, line 2"),
            file_row(2, 0, "b.csv", 10, first_name="later file, line 10"),
            file_row(2, 0, "a.csv", 99, first_name="earlier file"),
        ],
    )

    assert result.clean["first_name"].to_list() == ["database", "later file, line 10"]


def test_a_row_without_a_time_is_older_than_any_other() -> None:
    result = clean([row(1, None, first_name="no time"), row(1, 0, first_name="time")])

    assert result.clean["first_name"].to_list() == ["time"]


def test_an_older_valid_row_does_not_come_back() -> None:
    result = clean([row(1, 0), row(1, 1, email="gone")])

    assert result.clean.is_empty()
    assert result.rejected["reason"].to_list() == [EMAIL_WITHOUT_DOMAIN, SUPERSEDED]


def test_rows_without_a_customer_do_not_supersede_each_other() -> None:
    result = clean([row(None, 0), row(None, 1)])

    assert result.clean.is_empty()
    assert result.counts[ID_MISSING] == 2


def test_no_rows_give_frames_with_all_columns() -> None:
    empty, filled = clean([]), clean([row(1)])

    assert empty.clean.schema == filled.clean.schema
    assert empty.rejected.schema == filled.rejected.schema
    assert empty.counts == dict.fromkeys(REASONS, 0)


def random_rows(seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Few customers, times and values, so that ties are frequent."""
    generator = random.Random(seed)

    def rows(count: int, **place: object) -> list[dict[str, object]]:
        emails = ["a@example.com", "B@example.com", "nobody", None, "x@@y"]
        return [
            row(
                generator.randrange(60),
                generator.randrange(3),
                email=generator.choice(emails),
                first_name=generator.choice(["Ann", " Bo "]),
                **place,
            )
            for _ in range(count)
        ]

    files = [
        line | {"_source_file": f"{generator.randrange(3)}.csv", "_source_line": number}
        for number, line in enumerate(rows(150))
    ]
    return pl.DataFrame(rows(150), schema=CUSTOMERS), pl.DataFrame(files, schema=FILES)


@pytest.mark.parametrize("seed", range(5))
def test_cleaning_some_customers_equals_cleaning_all_and_taking_those(seed: int) -> None:
    raw, files = random_rows(seed)
    full = clean_frames(raw, files)
    some = pl.col("customer_id").is_in(random.Random(seed).sample(range(60), 20))

    part = clean_frames(raw.filter(some), files.filter(some))

    assert part.clean.height > 0
    assert_frame_equal(part.clean, full.clean.filter(some))
    assert_frame_equal(part.rejected, full.rejected.filter(some))


@pytest.mark.parametrize("seed", range(5))
def test_the_result_does_not_depend_on_the_order_of_rows(seed: int) -> None:
    raw, files = random_rows(seed)
    shuffled = clean_frames(
        raw.sample(fraction=1, shuffle=True, seed=seed),
        files.sample(fraction=1, shuffle=True, seed=seed),
    )

    result = clean_frames(raw, files)

    assert_frame_equal(shuffled.clean, result.clean)
    assert_frame_equal(shuffled.rejected, result.rejected)


@pytest.mark.parametrize("seed", range(5))
def test_every_row_is_either_clean_or_rejected_and_counted(seed: int) -> None:
    raw, files = random_rows(seed)

    result = clean_frames(raw, files)

    assert result.clean.height + result.rejected.height == raw.height + files.height
    assert sum(result.counts.values()) == result.rejected.height
    assert result.clean["customer_id"].is_unique().all()


METRICS = ["total_orders", "total_spent", "avg_order_value"]


def metrics_of(orders: pl.DataFrame, customers: int = 1) -> pl.DataFrame:
    return customer_metrics(clean([row(id_ + 1) for id_ in range(customers)]).clean, orders)


def test_the_metrics_of_a_customer() -> None:
    orders = orders_of(
        [
            (1, 1, date(2024, 2, 28), "0.10", "EUR"),
            (2, 1, date(2024, 3, 1), "0.20", "EUR"),
            (3, 1, date(2024, 3, 1), "99.99", "EUR"),
            (4, 9, date(2024, 3, 1), "50.00", "USD"),
        ]
    )

    assert metrics_of(orders).row(0, named=True) == {
        "customer_id": 1,
        "email": "c1@example.com",
        "first_name": "Ann",
        "last_name": "Lee",
        "currency": "EUR",
        "total_orders": 3,
        "total_spent": Decimal("100.29"),
        "avg_order_value": Decimal("33.43"),
        "first_order_date": date(2024, 2, 28),
        "last_order_date": date(2024, 3, 1),
        "customer_lifetime_days": 2,  # 2024 has a 29 February
    }


@pytest.mark.parametrize(
    ("amounts", "average"),
    [
        (["0.01", "0.02"], "0.02"),  # 0.015 is as near to 0.01 as to 0.02: the even cent
        (["0.02", "0.03"], "0.02"),  # 0.025
        (["0.01", "0.01", "0.02"], "0.01"),  # 0.0133…
        (["0.57", "0.58"], "0.58"),  # 0.575, but 0.57499999999999995559 as a float
        (["9999999999.99", "9999999999.98"], "9999999999.98"),
    ],
)
def test_an_average_is_rounded_to_the_even_cent(amounts: list[str], average: str) -> None:
    day = date(2024, 1, 1)
    orders = orders_of([(n, 1, day, amount, "USD") for n, amount in enumerate(amounts)])

    assert metrics_of(orders)["avg_order_value"].item() == Decimal(average)


def test_a_customer_without_orders_has_zeros_and_no_dates() -> None:
    orders = orders_of([(1, 2, date(2024, 1, 1), "5.00", "USD")])

    result = metrics_of(orders, customers=2)

    assert result.drop("email", "first_name", "last_name").row(0) == (
        *(1, None, 0, Decimal("0.00"), None, None, None, None),
    )
    assert result.select(METRICS).row(1) == (1, Decimal("5.00"), Decimal("5.00"))


def test_a_customer_of_one_day_has_a_lifetime_of_zero_days() -> None:
    orders = orders_of([(1, 1, date(2024, 1, 1), "5.00", "USD")])

    assert metrics_of(orders)["customer_lifetime_days"].item() == 0


def test_an_order_without_an_amount_counts_but_does_not_lower_the_average() -> None:
    amounts = pl.Series("total_amount", [Decimal("5.00"), None], dtype=pl.Decimal(12, 2))
    orders = orders_of([(n, 1, date(2024, 1, 1), "0", "USD") for n in (1, 2)])

    assert metrics_of(orders.with_columns(amounts)).select(METRICS).row(0) == (
        *(2, Decimal("5.00"), Decimal("5.00")),
    )


def test_a_customer_whose_orders_have_no_amount_has_no_average() -> None:
    amounts = pl.Series("total_amount", [None], dtype=pl.Decimal(12, 2))
    orders = orders_of([(1, 1, date(2024, 1, 1), "0", "USD")])

    assert metrics_of(orders.with_columns(amounts)).select(METRICS).row(0) == (
        *(1, Decimal("0.00"), None),
    )


def test_no_orders_at_all_give_the_same_columns() -> None:
    orders = orders_of([(1, 1, date(2024, 1, 1), "5.00", "USD")])

    assert metrics_of(orders.clear()).schema == metrics_of(orders).schema
    assert metrics_of(orders).schema["total_spent"] == pl.Decimal(38, 2)


def test_a_customer_with_several_currencies_is_found_and_has_none() -> None:
    day = date(2024, 1, 1)
    orders = orders_of(
        [
            (1, 1, day, "1.00", "USD"),
            (2, 2, day, "1.00", "USD"),
            (3, 2, day, "1.00", "EUR"),
            (4, 2, day, "1.00", "USD"),
        ]
    )

    assert mixed_currencies(orders).rows(named=True) == [
        {"customer_id": 2, "currencies": "EUR, USD", "orders": 3}
    ]
    assert metrics_of(orders, customers=2)["currency"].to_list() == ["USD", None]


def test_metrics_of_some_customers_equal_those_of_all() -> None:
    generator = random.Random(1)
    orders = orders_of(
        (
            n,
            generator.randint(1, 30),
            date(2024, 1, 1) + timedelta(days=generator.randrange(500)),
            f"{generator.randrange(10_000)}.{generator.randrange(100):02}",
            "USD",
        )
        for n in range(300)
    )
    customers = clean([row(id_ + 1) for id_ in range(40)]).clean
    some = pl.col("customer_id") % 3 == 0

    part = customer_metrics(customers.filter(some), orders.filter(some))

    assert_frame_equal(part, customer_metrics(customers, orders).filter(some))
