"""The change of the source: who is changed, and that the first transaction can commit last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812

from forge_demo import change, source
from forge_demo.state import DemoState
from forge_platform.errors import ConfigurationError
from forge_platform.testing import ConnectionParameters, EmbeddedPostgres


@pytest.fixture(scope="module")
def parameters(postgres: EmbeddedPostgres) -> Iterator[ConnectionParameters]:
    parameters = postgres.create_database("demo_change")
    source.load(parameters)
    yield parameters
    postgres.drop_database("demo_change")


@pytest.fixture
def early(parameters: ConnectionParameters) -> Iterator[Connection]:
    with closing(psycopg2.connect(**parameters)) as connection:
        yield connection


@pytest.fixture
def later(parameters: ConnectionParameters) -> Iterator[Connection]:
    with closing(psycopg2.connect(**parameters)) as connection:
        yield connection


def test_customers_without_flaws_are_chosen(early: Connection) -> None:
    chosen = change.choose(early.cursor())
    assert len(set(chosen.customers)) == 1_000
    assert all(source.is_clean(customer) for customer in chosen.customers)
    assert list(chosen.orders) == list(range(69_660, 70_160))
    assert len(set(chosen.orders.values())) == 500


def test_parts_are_the_whole(early: Connection) -> None:
    chosen = change.choose(early.cursor())
    late, prompt = chosen.split(change.LATE_CUSTOMERS)
    assert (len(late.customers), len(late.orders)) == (300, 150)
    assert [*late.customers, *prompt.customers] == chosen.customers
    assert {**late.orders, **prompt.orders} == chosen.orders
    assert set(late.orders.values()) <= set(late.customers)


def test_first_transaction_commits_last_with_older_time_stamps(
    early: Connection, later: Connection
) -> None:
    chosen = change.choose(early.cursor())
    late, prompt = chosen.split(change.LATE_CUSTOMERS)
    change.write(early.cursor(), late)
    change.write(later.cursor(), prompt)
    later.commit()
    cursor = later.cursor()
    cursor.execute("SELECT max(updated_at) FROM customers WHERE last_name = 'Changed'")
    [(seen,)] = cursor.fetchall()
    later.commit()
    early.commit()
    cursor.execute(
        "SELECT count(*), max(updated_at) FROM customers"
        " WHERE last_name = 'Changed' AND updated_at < %s",
        (seen,),
    )
    assert cursor.fetchall() == [(300, chosen.began)]
    cursor.execute("SELECT count(*) FROM orders WHERE updated_at >= %s", (chosen.began,))
    assert cursor.fetchall() == [(500,)]
    later.rollback()
    assert not set(change.choose(early.cursor()).customers) & set(chosen.customers)


def test_orders_are_in_the_customers_currency_and_on_finished_days(early: Connection) -> None:
    change.write(early.cursor(), change.choose(early.cursor()))
    cursor = early.cursor()
    cursor.execute("SELECT customer_id, currency FROM orders WHERE created_at = now()")
    assert all(currency == source.currency(customer) for customer, currency in cursor.fetchall())
    cursor.execute(
        "SELECT count(DISTINCT order_date), max(order_date) < current_date FROM orders"
        " WHERE created_at = now()"
    )
    assert cursor.fetchall() == [(5, True)]


def test_without_a_demo_there_is_a_clear_error(state_folder: DemoState) -> None:
    with pytest.raises(ConfigurationError, match="make demo"):
        change.change_source(state_folder, limit=1)


@pytest.fixture
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> DemoState:
    return DemoState(tmp_path_factory.mktemp("state") / "demo")
